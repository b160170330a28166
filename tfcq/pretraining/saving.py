"""A Pretrainer as a file: what makes it anew, and what would fail to save it, told in time."""

import os
import re
from typing import Any

import keras

from tfcq.errors import UserError
from tfcq.settings.recipes import RECIPES, Recipe, parse_recipe

_INSTEAD = "save pretrainer.backbone, or the weights alone (save_weights_only, save_weights())"
# What a Pretrainer is made of beside backbone and recipe; policies are in the backbone.
SAVED = (
    "framework", "weight_bits", "activation_bits", "precision_set", "bit_schedule", "seed",
    "loss_reduction", "shuffle_keys", "error_correlation", "accumulate", "name",
)  # fmt: skip
# Pre-training has no labels, and so no figures of a validation.
_VALIDATION = "val_"


def saved_arguments(
    arguments: dict[str, Any], backbone: keras.Model, recipe: Recipe
) -> dict[str, Any]:
    """Returns the arguments of a Pretrainer as a `.keras` file keeps them.

    Args:
        arguments: those of `SAVED`, and the settings of the framework.
        backbone: the quantizable backbone.
        recipe: the recipe.

    Raises:
        UserError: a framework that was built already, or a recipe with settings of its own, which
            only code makes anew.
    """
    if not isinstance(arguments["framework"], str):
        raise UserError(
            f"A Pretrainer whose framework is no name cannot be made anew from a file; {_INSTEAD}."
        )
    text = recipe.name if RECIPES.get(recipe.name) == recipe else recipe.text
    if text == recipe.text and parse_recipe(text, recipe.name) != recipe:
        raise UserError(
            f"A Pretrainer whose recipe {recipe.name!r} has settings of its own cannot be made "
            f"anew from a file; {_INSTEAD}."
        )
    serialized = keras.saving.serialize_keras_object(backbone)
    return {**arguments, "backbone": serialized, "recipe": text}


def check_arguments(given: dict[str, Any]) -> None:
    """Refuses arguments of `keras.Model.fit` that need labels, or would change nothing.

    Args:
        given: the arguments beside those of `Pretrainer.fit`.

    Raises:
        UserError: naming the first of them.
    """
    for name in ("validation_data", "validation_split", "class_weight", "sample_weight"):
        value = given.get(name)
        if value is not None and not (isinstance(value, float) and value == 0):
            use = "validate on" if name.startswith("validation") else "weigh"
            raise UserError(
                f"fit() received {name}; pre-training has no labels to {use}. Evaluate the "
                "backbone with tfcq.evaluate, or in a callback."
            )


def check_callbacks(model: keras.Model, callbacks: list[Any]) -> None:
    """Refuses callbacks that would fail, or never do anything, after the first epoch.

    Args:
        model: the Pretrainer.
        callbacks: the callbacks of a training.

    Raises:
        UserError: a figure of a validation is asked for, a checkpoint could not be saved, or its
            folder not be made.
    """
    for callback in callbacks:
        saves = isinstance(callback, keras.callbacks.ModelCheckpoint)
        name = type(callback).__name__
        asked = re.findall(r"{(\w+)", str(callback.filepath)) if saves else []
        if not saves or callback.save_best_only:
            asked.append(getattr(callback, "monitor", None) or "")
        for figure in asked:
            if figure.startswith(_VALIDATION):
                raise UserError(
                    f"{name} asks for {figure!r}, which pre-training does not have; allowed: its "
                    "figures, such as 'loss'."
                )
        if saves:
            _make_folder(str(callback.filepath), name)
        if saves and not callback.save_weights_only:
            _check_savable(model, name)


def _make_folder(path: str, name: str) -> None:
    folder = os.path.dirname(path) or "."
    if "{" in folder:
        return
    try:
        os.makedirs(folder, exist_ok=True)
        told = None if os.access(folder, os.W_OK) else "not writable"
    except OSError as error:
        told = error.strerror
    if told:
        raise UserError(f"{name} cannot save: folder {folder!r}: {told}; give another filepath.")


def _check_savable(model: keras.Model, name: str) -> None:
    try:
        keras.saving.serialize_keras_object(model)
    except UserError as error:
        raise UserError(f"{name} cannot save: {error}") from None
    except Exception as error:
        # Layers and optimizers of the user's own may raise anything.
        reason = " ".join(str(error).split())[:200]
        raise UserError(
            f"{name} cannot save: {type(error).__name__}: {reason}; {_INSTEAD}."
        ) from None
