"""What an evaluation is about: a quantizable model, its data set and where results go."""

import dataclasses
import os
import pathlib
from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from tfcq.data.augmentation import Augmentation, augmentation_for
from tfcq.errors import UserError
from tfcq.evaluation.records import weights_fingerprint
from tfcq.integer.form import deployable, told_refusal
from tfcq.nn.quantizable import QuantizableModel, quantizers_of
from tfcq.settings.backbones import UNIT_RANGE
from tfcq.settings.datasets import FOLDER_PREFIX, is_tfds
from tfcq.settings.evaluation_groups import EvaluationDataSettings, SubjectSettings
from tfcq.settings.policies import INT8, Policy, policy_named
from tfcq.settings.training_groups import DataSettings

# Settings of the data that a run has too; what is not asked for is the run's.
_ASKED = (
    "data_dir", "image_size", "train_images", "holdout", "holdout_seed", "channels", "background",
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Subject:
    """What is evaluated, on which data, and where results go.

    Args:
        model: quantizable model from images to features, or to logits.
        policy: how it is quantized.
        data: the data set.
        results: folder of the results.
        title: what it is called in pictures.
        name: what it is called in results.
        policy_name: what the policy is called in results.
        has_own_policy: whether the model is quantized the way it was trained or saved.
        input_range: the pixels that the network takes, a name in `INPUT_RANGES`; `model` itself
            takes those from 0 to 1.
        assumed_range: whether nothing told so.
        came_quantizable: whether it had quantizers before a policy gave it others.
        weights: fingerprint of the network's weights, whatever form `model` has.
        network: it before a policy took it apart, of images in [0, 1].
    """

    model: QuantizableModel
    policy: Policy
    data: DataSettings
    results: pathlib.Path
    title: str
    name: str
    policy_name: str
    has_own_policy: bool
    input_range: str = UNIT_RANGE
    assumed_range: bool = False
    came_quantizable: bool = True
    weights: str = ""
    network: keras.Model | None = None

    @property
    def input_shape(self) -> tuple[int | None, ...]:
        """Batch, height, width and channels that the model takes, None for any."""
        return self.model.input_shape

    @property
    def output_shape(self) -> tuple[int | None, ...]:
        """Batch, and number of features or logits."""
        return self.model.output_shape

    @property
    def saved_quantizers(self) -> bool:
        """Whether its quantizers come from a file, so that no policy tells of them."""
        return False

    def standard_augmentation(self, size: int, channels: int) -> Augmentation:
        """Returns how its training augmented images, or else the standard of their size.

        Args:
            size: height and width of the images, in pixels.
            channels: number of channels.
        """
        return augmentation_for(size, channels)

    def quantization(self) -> dict[str, Any]:
        """Returns what decides how the model is quantized, whatever the policy is called.

        Of a model that was saved quantizable, the quantizer of every layer.
        """
        if not self.saved_quantizers:
            policy = dataclasses.asdict(self.policy)
            policy.pop("name")
            return policy
        return {
            name: quantizer.get_config() | {"kind": type(quantizer).__name__}
            for attribute in ("weight_quantizer", "quantizer")
            for name, quantizer in quantizers_of(self.model, attribute).items()
        }

    def check_weights(self) -> None:
        """Refuses NaN and infinity, which ranges and scales alone may hold, until they are set.

        Raises:
            UserError: naming the weight.
        """
        for weight in self.model.weights:
            values = np.asarray(weight)
            unset = weight.name in ("minimum", "maximum", "scale")
            if not unset and values.dtype.kind == "f" and not np.all(np.isfinite(values)):
                raise UserError(
                    f"Weight {weight.path!r} of {self.title} holds NaN or infinity; train it again "
                    "at a lower learning rate."
                )


def at_policy(
    model: keras.Model, policy: Policy, make: Callable[..., QuantizableModel]
) -> tuple[QuantizableModel, str]:
    """Returns a network quantized by a policy, and the fingerprint of its weights.

    Under `int8` it is the integer form of the network, where it has one.

    Args:
        model: a model of images in [0, 1].
        policy: the policy.
        make: takes model and policy and returns the model quantized by any policy.
    """
    told = told_refusal(model, policy) if policy.name == INT8.name else ""
    if told:
        print(f"As policy {policy.name} it is scored; tfcq.export would refuse: {told}", flush=True)
    if told or policy.name != INT8.name:
        made = make(model, policy)
        return made, weights_fingerprint(made)
    # A float one is quantized as a whole, with layers that are taken apart first.
    made = make(model, policy) if isinstance(model, QuantizableModel) else model
    return deployable(made, policy), weights_fingerprint(made)


def chosen_policy(name: str, subject: SubjectSettings, rounding: str | None) -> Policy:
    """Returns the policy of a name with what was asked for beside it.

    Args:
        name: name of the policy.
        subject: what was asked for.
        rounding: how quantizers round; None for the policy's own way.
    """
    policy = policy_named(name).with_layer_bits(subject.layer_bits)
    if subject.per_tensor:
        policy = dataclasses.replace(policy, per_channel=False)
    return rounded(policy, rounding)


def rounded(policy: Policy, rounding: str | None) -> Policy:
    """Returns a policy whose quantizers round another way.

    Args:
        policy: the policy.
        rounding: how quantizers round; None for the policy's own way.
    """
    return policy if rounding is None else dataclasses.replace(policy, rounding=rounding)


def policy_in_words(policy: str, subject: SubjectSettings, rounding: str | None) -> str:
    """Returns what a policy and what was asked for beside it are called in results.

    Args:
        policy: the policy in words.
        subject: what was asked for.
        rounding: how quantizers round; None for the policy's own way.
    """
    parts = (
        policy,
        "per tensor" if subject.per_tensor else None,
        subject.layer_bits,
        f"rounding {rounding}" if rounding else None,
    )
    return ", ".join(part for part in parts if part)


def _same_images(dataset: str, other: str) -> bool:
    """Returns whether two names are of the same data set: a folder has many."""
    names = (dataset, other)
    if not all(name.startswith(FOLDER_PREFIX) for name in names):
        return dataset == other
    return len({os.path.realpath(name.removeprefix(FOLDER_PREFIX)) for name in names}) == 1


def chosen_data(given: EvaluationDataSettings, own: DataSettings) -> DataSettings:
    """Returns the data set asked for, or the subject's own.

    Args:
        given: what was asked for.
        own: the subject's own.

    Raises:
        UserError: when other images are to be held out than training was without.
    """
    chosen = own
    if given.dataset is not None and not _same_images(given.dataset, own.dataset):
        chosen = DataSettings(dataset=given.dataset)
        kept = ["channels"]
        if is_tfds(given.dataset):
            kept.append("data_dir")
        if given.dataset.startswith(FOLDER_PREFIX):
            kept.append("background")
        chosen = dataclasses.replace(chosen, **{name: getattr(own, name) for name in kept})
    changed = {name: getattr(given, name) for name in _ASKED if getattr(given, name) is not None}
    changed |= {n: True for n in ("download", "strict_data") if getattr(given, n)}
    if chosen.holdout is not None:
        for name in ("holdout", "holdout_seed"):
            if changed.get(name, getattr(own, name)) != getattr(own, name):
                raise UserError(
                    f"--{name}={changed[name]} with a run that held out --holdout={own.holdout:g} "
                    f"--holdout_seed={own.holdout_seed}; leave it out, and those images are tested."
                )
    if "background" in changed and not chosen.dataset.startswith(FOLDER_PREFIX):
        raise UserError(
            f"--background has no effect here: data set {chosen.dataset!r} is no folder:PATH; "
            "leave it out."
        )
    if "holdout_seed" in changed and changed.get("holdout", chosen.holdout) is None:
        raise UserError("--holdout_seed has no effect here: --holdout is missing; such as 0.2.")
    return dataclasses.replace(chosen, **changed)
