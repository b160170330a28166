"""How protocols train and what is done after training: settings in groups."""

import dataclasses

from tfcq.settings.fields import setting
from tfcq.settings.policies import ROUNDINGS
from tfcq.settings.training_groups import LEARNING_RATE_SCHEDULES, OPTIMIZERS, OptimizationSettings

# Kinds of the quantizers of weights and activations that quantization-aware training trains.
QAT_QUANTIZERS = {
    "lsq": ("lsq", "lsq"),
    "pact": ("dorefa", "pact"),
    "dorefa": ("dorefa", "dorefa"),
    "minmax": ("minmax", "minmax"),
}
KEPT = ".keras"
CLASSIFIER_STARTS = ("zeros", "uniform", "normal")
FEATURES = ("cached", "augmented")
# What trains a linear classifier on cached features: the probe's own arithmetic, which knows SGD
# with momentum under a cosine, or `keras.Model.fit` with any optimizer and schedule.
TRAINERS = ("probe", "fit")
WEIGHT_SCALES = ("max", "mse")
# By layer, or by block.
LEARNED_ROUNDINGS = ("adaround", "block")


@dataclasses.dataclass(frozen=True)
class LabelledTraining(OptimizationSettings):
    """How a protocol trains with labels."""

    crop_area: str | None = setting(None, "area of a crop as a share; default that of the views")
    classifier_start: str = setting("zeros", "what the classifier starts at", CLASSIFIER_STARTS)
    trainer: str = setting("fit", "what trains on cached features", TRAINERS)
    standardized: bool = setting(False, "scale features to mean 0 and deviation 1 first")


@dataclasses.dataclass(frozen=True)
class ProtocolTrainingSettings:
    """How a protocol trains; default its preset's."""

    preset: str | None = setting(None, "published settings of the protocol")
    epochs: int | None = setting(None, "passes over the labelled images", at_least=1)
    batch_size: int | None = setting(None, "images per step", at_least=1)
    optimizer: str | None = setting(None, "the optimizer", OPTIMIZERS)
    learning_rate: float | None = setting(None, "highest learning rate", above=0)
    learning_rate_schedule: str | None = setting(
        None, "course of the learning rate", LEARNING_RATE_SCHEDULES
    )
    milestones: str | None = setting(None, "when 'step' lowers the rate, such as 30epochs")
    weight_decay: float | None = setting(
        None, "l2 penalty (SGD, LARS) or decoupled decay (AdamW)", at_least=0
    )
    crop_area: str | None = setting(
        None, "area of a crop of an augmented image as a share, such as 0.08-1"
    )
    classifier_start: str | None = setting(
        None,
        "linear, finetune, semi: zeros, uniform within 1 / sqrt(width) as PyTorch's layers, or "
        "normal of deviation 0.01",
        CLASSIFIER_STARTS,
    )


@dataclasses.dataclass(frozen=True)
class PostTrainingSettings:
    """What is done after training, at each bit-width, in this order."""

    equalize: bool = setting(False, "move weight ranges from channel to channel first")
    mixed_precision: bool = setting(
        False, "give each layer weight bits of its own, in the size that --bits takes"
    )
    weight_scales: str = setting("max", "weight scales by largest weight or error", WEIGHT_SCALES)
    rounding: str | None = setting(
        None,
        "how quantizers round, or that of weights is learned: by layer (adaround) or block; "
        "default as trained, or to the nearest with --policy",
        (*ROUNDINGS, *LEARNED_ROUNDINGS),
    )
    rounding_iterations: int = setting(
        10_000, "steps of learned rounding for each layer or block", at_least=1
    )
    reestimate_batch_norm: bool = setting(
        False, "give batch norms the statistics of the quantized network"
    )
    correct_biases: bool = setting(False, "take the mean error of each channel out of biases")
