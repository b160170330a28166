"""Bits of layers by name: which layers the overrides of a policy reach."""

import dataclasses
import difflib
import fnmatch
from typing import Any

import keras

from tfcq.errors import UserError
from tfcq.nn.activation_quantizer import ActivationQuantizer
from tfcq.settings.policies import FLOAT, Policy, parse_layer_bits


def left_in_float(name: str, policy: Policy) -> bool:
    """Whether a policy leaves a layer in float by its name.

    Args:
        name: the layer's name.
        policy: the policy, of whose overrides the first that matches wins.
    """
    matching = (bits for pattern, bits in policy.overrides if fnmatch.fnmatchcase(name, pattern))
    first = next(matching, None)
    return first is not None and parse_layer_bits(first).weights == FLOAT


def opened(policy: Policy, model: keras.Model) -> Policy:
    """Returns a policy in which bits of a nested model are those of each layer in it.

    Args:
        policy: the policy, whose overrides may name nested models.
        model: the model.

    Raises:
        UserError: when a layer in a nested model that is named shares its name with one outside.
    """
    nested = _nested(model)
    leaves = _layer_names(model)
    overrides: list[tuple[str, str]] = []
    for pattern, bits in policy.overrides:
        named = [one for one in nested if fnmatch.fnmatchcase(one.name, pattern)]
        inside = [name for one in named for name in _layer_names(one)]
        for name in inside:
            outside = leaves.count(name) > inside.count(name)
            if outside and not fnmatch.fnmatchcase(name, pattern):
                raise UserError(
                    f"Layer bits name {pattern!r}, the model {named[0].name!r}, whose layer "
                    f"{name!r} shares its name with a layer outside; allowed: names of their own."
                )
        if not named or fnmatch.filter(leaves, pattern):
            overrides.append((pattern, bits))
        overrides += [(name, bits) for name in inside]
    return dataclasses.replace(policy, overrides=tuple(overrides))


def _layer_names(model: keras.Model) -> list[str]:
    """Returns the names of all layers that a user gave bits: nested ones, but no quantizers."""
    own = (keras.layers.InputLayer, ActivationQuantizer)
    return [layer.name for layer in leaves_of(model) if not isinstance(layer, own)]


def known_names(model: keras.Model) -> list[str]:
    """Returns the names that overrides know: of nested models, and of all layers that compute.

    Args:
        model: the model.
    """
    return [*(one.name for one in _nested(model)), *_layer_names(model)]


def _nested(model: keras.Model) -> list[keras.Model]:
    """Returns the models nested in a model, at any depth."""
    own = [one for one in getattr(model, "layers", []) if isinstance(one, keras.Model)]
    return own + [deeper for one in own for deeper in _nested(one)]


def check_overrides(policy: Policy, names: list[str]) -> None:
    """Refuses an override that matches no layer.

    Args:
        policy: the policy.
        names: the names of all layers, nested ones included.

    Raises:
        UserError: naming the pattern and the nearest layer.
    """
    for pattern, bits in policy.overrides:
        parse_layer_bits(bits)
        if not fnmatch.filter(names, pattern):
            letters = "".join(c for c in pattern[:100] if c not in "*?[]")
            near = sorted(dict.fromkeys(names), key=lambda name: -_likeness(letters, name))
            raise UserError(
                f"Layer bits name {pattern!r}, which matches none of {len(near)} layers; the "
                f"nearest: {', '.join(near[:3])}."
            )


def _likeness(letters: str, name: str) -> float:
    """Returns how much a name begins like what a pattern holds beside its wildcards, 0 to 1."""
    return difflib.SequenceMatcher(None, letters, name[: len(letters)]).ratio()


def leaves_of(model: keras.Model) -> list[Any]:
    """Returns the layers of a model and of those nested in it, without the nested models.

    Args:
        model: the model.
    """
    parts = (leaves_of(one) if isinstance(one, keras.Model) else [one] for one in model.layers)
    return [layer for part in parts for layer in part]
