"""The settings of an evaluation in groups.

Needs no TensorFlow.
"""

import dataclasses

from tfcq.config import CALIBRATION_IMAGES
from tfcq.errors import UserError, unknown_choice
from tfcq.nn.policies import POLICIES, ROUNDINGS
from tfcq.protocol_presets import CLASSIFIER_STARTS, PRESETS, LabelledTraining
from tfcq.settings import LEARNING_RATE_SCHEDULES, OPTIMIZERS, setting

PROTOCOLS = ("linear", "knn", "finetune", "semi", "qat", "classifier")
ALL_BITS = "fp,8w8a,6w6a,5w5a,4w4a,3w3a,2w8a,2w4a"
QAT_QUANTIZERS = {
    "lsq": ("lsq", "lsq"),
    "pact": ("dorefa", "pact"),
    "dorefa": ("dorefa", "dorefa"),
    "minmax": ("minmax", "minmax"),
}
STARTS = ("linear", "finetune")
KEPT = ".keras"
FEATURES = ("cached", "augmented")
# The keys of `tfcq.post_training.ranges.RANGES`.
CALIBRATIONS = ("minmax", "moving_average", "percentile", "mse", "entropy")
# `tfcq.post_training.plan.PASSES`.
CALIBRATION_PASSES = ("float", "quantized")
# The keys of `tfcq.post_training.weights.WEIGHT_SCALES` and `tfcq.post_training.plan.ROUNDINGS`.
WEIGHT_SCALES = ("max", "mse")
LEARNED_ROUNDINGS = ("adaround", "block")


@dataclasses.dataclass(frozen=True)
class SubjectSettings:
    """What is evaluated."""

    run_dir: str | None = setting(None, "folder of the run")
    model: str | None = setting(
        None, "instead of a run: PATH.keras, or applications:NAME of keras.applications"
    )
    weights: str | None = setting(
        None,
        "of --model=applications:NAME: imagenet, which Keras downloads once, or the file of a "
        "network's .weights.h5; default random",
    )
    output_dir: str | None = setting(None, "where results of --model are written; export: any")
    policy: str | None = setting(
        None, "quantize by this policy instead of the way it was trained", tuple(POLICIES)
    )
    layer_bits: str | None = setting(
        None,
        "beside --policy: bits of single layers by name or pattern, such as "
        "stem:8w8a,stage4_*:4w4a",
    )
    per_tensor: bool = setting(
        False, "beside --policy: one weight scale a layer instead of one a channel"
    )


@dataclasses.dataclass(frozen=True)
class EvaluationDataSettings:
    """The labelled images; default the run's own."""

    dataset: str | None = setting(None, "another data set: digits, folder:PATH, or a TFDS name")
    data_dir: str | None = setting(None, "folder of prepared TFDS data sets")
    download: bool = setting(False, "let TFDS download what is not prepared")
    strict_data: bool = setting(False, "refuse a folder with a broken image instead of skipping")
    image_size: int | None = setting(None, "height and width of the images in pixels")
    train_images: int | None = setting(
        None, "train on the first so many images; default the run's, or all"
    )
    test_images: int | None = setting(None, "test on the first so many images; default all")
    test_crop: float | None = setting(
        None,
        "share of the shorter side that the central crop of plain images keeps, such as 0.875, 224 "
        "of 256 pixels; default that for images larger than the network's, else 1",
    )


@dataclasses.dataclass(frozen=True)
class CalibrationSettings:
    """How activation ranges are found."""

    calibration: str = setting("minmax", "how a range follows from activations", CALIBRATIONS)
    calibration_pass: str | None = setting(
        None,
        "record activations in a float pass, or in one quantized as scored; default as the network "
        "was trained",
        CALIBRATION_PASSES,
    )
    calibration_images: int | None = setting(
        None, f"training images that set the ranges; default {CALIBRATION_IMAGES:,} or all"
    )
    calibration_seed: int | None = setting(
        None, "draw them with this seed; default the first of the training images"
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
    rounding_iterations: int = setting(10_000, "steps of learned rounding for each layer or block")
    reestimate_batch_norm: bool = setting(
        False, "give batch norms the statistics of the quantized network"
    )
    correct_biases: bool = setting(False, "take the mean error of each channel out of biases")


@dataclasses.dataclass(frozen=True)
class ProtocolSettings:
    """How accuracy is measured."""

    protocol: str = setting(
        "linear", f"one of these or a comma-separated list: {', '.join(PROTOCOLS)}"
    )
    bits: str = setting(ALL_BITS, "bit-widths, such as fp,8w8a,2-4w4a")
    neighbours: int = setting(20, "kNN: how many neighbours vote")
    temperature: float = setting(0.1, "kNN: the smaller, the more the nearest decide")
    features: str = setting("cached", "linear: once, or of augmented images", FEATURES)
    label_share: float | None = setting(
        None, "finetune, semi: share of every class's labels, such as 0.01"
    )
    from_scratch: bool = setting(
        False, "linear, knn, finetune, semi: random weights instead of the backbone's"
    )
    quantizer: str = setting("lsq", "qat: what is trained", tuple(QAT_QUANTIZERS))
    start: str = setting(
        "linear",
        f"qat: the float classifier to start from: {' or '.join(STARTS)}, trained first, or a "
        "PATH.keras that --keep_classifiers saved",
    )
    curve_images: int | None = setting(
        None, "finetune, semi, qat: first test images that score every epoch; default all"
    )
    keep_classifiers: bool = setting(
        False, "finetune, semi, qat: save what was trained beside the results"
    )
    seed: int = setting(0, "seed of subsets, order, augmentation and learned rounding")


@dataclasses.dataclass(frozen=True)
class ProtocolTrainingSettings:
    """How a protocol trains; default its preset's."""

    preset: str | None = setting(None, "published settings of the protocol")
    epochs: int | None = setting(None, "passes over the labelled images")
    batch_size: int | None = setting(None, "images per step")
    optimizer: str | None = setting(None, "the optimizer", OPTIMIZERS)
    learning_rate: float | None = setting(None, "highest learning rate")
    learning_rate_schedule: str | None = setting(
        None, "course of the learning rate", LEARNING_RATE_SCHEDULES
    )
    milestones: str | None = setting(None, "when 'step' lowers the rate, such as 30epochs")
    weight_decay: float | None = setting(None, "l2 penalty (SGD, LARS) or decoupled decay (AdamW)")
    crop_area: str | None = setting(
        None, "area of a crop of an augmented image as a share, such as 0.08-1"
    )
    classifier_start: str | None = setting(
        None,
        "linear, finetune, semi: zeros, uniform within 1 / sqrt(width) as PyTorch's layers, or "
        "normal of deviation 0.01",
        CLASSIFIER_STARTS,
    )


_TRAINING = tuple(field.name for field in dataclasses.fields(ProtocolTrainingSettings))
# Of a classifier that was trained before.
_FURTHER_TRAINING = tuple(name for name in _TRAINING if name != "classifier_start")
_STEPS = tuple(field.name for field in dataclasses.fields(PostTrainingSettings))
# What each protocol makes use of; the rest is used by all.
USED_BY: dict[str, tuple[str, ...]] = {
    "linear": ("features", "from_scratch", "seed", *_TRAINING, *_STEPS),
    "knn": ("neighbours", "temperature", "from_scratch", *_STEPS),
    "finetune": (
        "label_share",
        "from_scratch",
        "curve_images",
        "keep_classifiers",
        "seed",
        *_TRAINING,
        *_STEPS,
    ),
    "semi": ("label_share", "from_scratch", "curve_images", "keep_classifiers", "seed", *_TRAINING),
    "qat": ("quantizer", "start", "curve_images", "keep_classifiers", "seed", *_FURTHER_TRAINING),
    "classifier": _STEPS,
}


@dataclasses.dataclass(frozen=True)
class EvaluationConfig:
    """All settings of an evaluation."""

    subject: SubjectSettings = SubjectSettings()
    data: EvaluationDataSettings = EvaluationDataSettings()
    calibration: CalibrationSettings = CalibrationSettings()
    post_training: PostTrainingSettings = PostTrainingSettings()
    measurement: ProtocolSettings = ProtocolSettings()
    training: ProtocolTrainingSettings = ProtocolTrainingSettings()

    def protocols(self) -> tuple[str, ...]:
        """Returns the protocols in the order asked for.

        Raises:
            UserError: on an unknown protocol, or one that stands twice.
        """
        names = tuple(name.strip() for name in self.measurement.protocol.split(","))
        for name in names:
            if name not in PROTOCOLS:
                raise unknown_choice("protocol", name, PROTOCOLS)
            if names.count(name) > 1:
                raise UserError(f"Protocol {name!r} stands twice; name it once.")
        return names

    @property
    def quantizer_rounding(self) -> str | None:
        """How quantizers round; None for the way they were made."""
        rounding = self.post_training.rounding
        return None if rounding in LEARNED_ROUNDINGS else rounding

    def optimization(self, protocol: str) -> LabelledTraining:
        """Returns how a protocol trains: what was given, then its preset's.

        Args:
            protocol: a protocol that trains.

        Raises:
            UserError: on an unknown preset.
        """
        presets, training = PRESETS[protocol], self.training
        name = training.preset or next(iter(presets))
        if name not in presets:
            raise unknown_choice(f"preset of {protocol}", name, presets)
        given = {k: v for k, v in dataclasses.asdict(training).items() if v is not None}
        given.pop("preset", None)
        if given.get("learning_rate_schedule", "step") != "step":
            given.setdefault("milestones", None)
        if "learning_rate" in given:
            # The rate that was asked for, not a multiple of it.
            given["scale_learning_rate"] = False
        return dataclasses.replace(presets[name], **given)


GROUPS = {
    "Subject": ("subject", SubjectSettings()),
    "Data": ("data", EvaluationDataSettings()),
    "Calibration": ("calibration", CalibrationSettings()),
    "Post-training": ("post_training", PostTrainingSettings()),
    "Protocol": ("measurement", ProtocolSettings()),
    "Training": ("training", ProtocolTrainingSettings()),
}


def defaults() -> dict[str, object]:
    """Returns the default of every setting, by the name of its flag."""
    return {
        field.name: getattr(default, field.name)
        for _, default in GROUPS.values()
        for field in dataclasses.fields(default)
    }
