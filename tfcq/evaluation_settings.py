"""The settings of an evaluation in groups.

Needs no TensorFlow.
"""

import dataclasses
import math

from tfcq.config import CALIBRATION_IMAGES
from tfcq.errors import UserError, unknown_choice
from tfcq.nn.policies import POLICIES, parse_bits_by_layer
from tfcq.protocol_presets import PRESETS
from tfcq.quantization.bitwidths import parse_bit_widths
from tfcq.settings import LEARNING_RATE_SCHEDULES, OPTIMIZERS, OptimizationSettings, setting

PROTOCOLS = ("linear", "knn", "finetune", "semi", "qat", "classifier")
ALL_BITS = "fp,8w8a,6w6a,5w5a,4w4a,3w3a,2w8a,2w4a"
QAT_QUANTIZERS = {
    "lsq": ("lsq", "lsq"),
    "pact": ("dorefa", "pact"),
    "dorefa": ("dorefa", "dorefa"),
    "minmax": ("minmax", "minmax"),
}
STARTS = ("linear", "finetune")
FEATURES = ("cached", "augmented")
# The keys of `tfcq.post_training.ranges.RANGES`.
CALIBRATIONS = ("minmax", "moving_average", "percentile", "mse", "entropy")
# The keys of `tfcq.post_training.weights.WEIGHT_SCALES` and `tfcq.post_training.plan.ROUNDINGS`.
WEIGHT_SCALES = ("max", "mse")
ROUNDINGS = ("nearest", "adaround", "block")


@dataclasses.dataclass(frozen=True)
class SubjectSettings:
    """What is evaluated."""

    run_dir: str | None = setting(None, "folder of the run")
    model: str | None = setting(
        None, "instead of a run: PATH.keras, or applications:NAME with random weights"
    )
    output_dir: str | None = setting(None, "where results of --model are written")
    policy: str | None = setting(
        None, "quantize by this policy; default the way the run was trained", tuple(POLICIES)
    )
    layer_bits: str | None = setting(
        None, "bits of single layers by name or pattern, such as stem:8w8a,stage4_*:4w4a"
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


@dataclasses.dataclass(frozen=True)
class CalibrationSettings:
    """How activation ranges are found."""

    calibration: str = setting("minmax", "how a range follows from activations", CALIBRATIONS)
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
    rounding: str = setting("nearest", "of weights: learned by layer or block", ROUNDINGS)
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
    from_scratch: bool = setting(False, "finetune, semi: start from random weights")
    quantizer: str = setting("lsq", "qat: what is trained", tuple(QAT_QUANTIZERS))
    start: str = setting("linear", "qat: the float classifier to start from", STARTS)
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


_TRAINING = tuple(field.name for field in dataclasses.fields(ProtocolTrainingSettings))
_STEPS = tuple(field.name for field in dataclasses.fields(PostTrainingSettings))
# What each protocol makes use of; the rest is used by all.
USED_BY: dict[str, tuple[str, ...]] = {
    "linear": ("features", "seed", *_TRAINING, *_STEPS),
    "knn": ("neighbours", "temperature", *_STEPS),
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
    "qat": ("quantizer", "start", "curve_images", "keep_classifiers", "seed", *_TRAINING),
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

    def optimization(self, protocol: str) -> OptimizationSettings:
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


def config_from_flags(values: dict[str, object], given: set[str]) -> EvaluationConfig:
    """Returns the settings of a command line.

    Args:
        values: value of every flag.
        given: names of the flags that were set.

    Raises:
        UserError: on a value that cannot be used, or a flag that would change nothing.
    """
    groups = {
        field: type(default)(**{f.name: values[f.name] for f in dataclasses.fields(default)})
        for field, default in GROUPS.values()
    }
    config = EvaluationConfig(**groups)
    _check(config, values)
    _check_used(config, given)
    return config


def _check(config: EvaluationConfig, values: dict[str, object]) -> None:
    for _, default in GROUPS.values():
        for field in dataclasses.fields(default):
            choices, value = field.metadata["choices"], values[field.name]
            if choices and value is not None and value not in choices:
                raise unknown_choice(field.name.replace("_", " "), value, choices)
    subject = config.subject
    if (subject.run_dir is None) == (subject.model is None):
        missing = "is missing" if subject.run_dir is None else "and --model were both given"
        raise UserError(
            f"--run_dir {missing}; give the folder of a run that tfcq.train made, or a model with "
            "--model."
        )
    if subject.model is not None:
        for name, value in (("output_dir", subject.output_dir), ("dataset", config.data.dataset)):
            if value is None:
                raise UserError(f"--{name} is missing; --model={subject.model} needs it.")
    positive = ("image_size", "train_images", "test_images", "calibration_images", "neighbours")
    positive += ("rounding_iterations", "curve_images")
    for name in (*positive, "epochs", "batch_size"):
        if values[name] is not None and values[name] < 1:
            raise UserError(f"--{name}={values[name]} cannot be used; allowed: 1 and above.")
    for name in ("temperature", "learning_rate"):
        if values[name] is not None and not 0 < values[name] < math.inf:
            raise UserError(f"--{name}={values[name]} cannot be used; allowed: above 0, finite.")
    decay = values["weight_decay"]
    if decay is not None and not 0 <= decay < math.inf:
        raise UserError(f"--weight_decay={decay} cannot be used; allowed: 0 and above, finite.")
    measurement = config.measurement
    share = measurement.label_share
    if share is not None and not 0 < share <= 1:
        raise UserError(f"--label_share={share} cannot be used; allowed: above 0 to 1.")
    for name in ("seed", "calibration_seed"):
        if values[name] is not None and not 0 <= values[name] < 2**32:
            raise UserError(f"--{name}={values[name]} cannot be used; allowed: 0 to {2**32 - 1}.")
    if subject.layer_bits is not None:
        parse_bits_by_layer(subject.layer_bits)
        if subject.policy is None:
            raise UserError(
                "--policy is missing; --layer_bits needs one to depart from, such as "
                "--policy=paper."
            )
    for protocol in config.protocols():
        if protocol in PRESETS:
            _check_milestones(protocol, config.optimization(protocol))
    if "semi" in config.protocols() and share is None:
        raise UserError("--label_share is missing; semi needs it, such as --label_share=0.1.")


def _check_milestones(protocol: str, settings: OptimizationSettings) -> None:
    stepping = settings.learning_rate_schedule == "step"
    if stepping != bool(settings.milestones):
        raise UserError(
            f"--learning_rate_schedule={settings.learning_rate_schedule} with --milestones="
            f"{settings.milestones}; allowed: milestones with the schedule 'step' alone."
        )
    for duration in settings.milestone_durations():
        if duration.unit == "epochs" and not 0 < duration.amount < settings.epochs:
            raise UserError(
                f"{protocol} lowers its learning rate after {duration.amount:g} epochs, and "
                f"--epochs={settings.epochs}; allowed: earlier --milestones, or "
                "--learning_rate_schedule=cosine."
            )


def _check_used(config: EvaluationConfig, given: set[str]) -> None:
    protocols = config.protocols()
    used = {name for protocol in protocols for name in USED_BY[protocol]}
    learned = config.post_training.rounding != "nearest"
    if learned and any("rounding" in USED_BY[protocol] for protocol in protocols):
        used.add("seed")
    known = {name for names in USED_BY.values() for name in names}
    names = ", ".join(protocols)
    for name in sorted(given & known - used):
        raise UserError(f"--{name} has no effect here: {names} does not use it; leave it out.")
    _check_steps(config, given)
    own_scales = QAT_QUANTIZERS[config.measurement.quantizer][1] != "minmax"
    if "qat" in protocols and own_scales and config.calibration.calibration != "minmax":
        raise UserError(
            f"--calibration has no effect here: quantizer {config.measurement.quantizer!r} of qat "
            "has no range to calibrate; leave it out."
        )
    if "output_dir" in given and config.subject.model is None:
        raise UserError("--output_dir has no effect here: a run's results lie in its folder.")
    if "preset" in given and sum(protocol in PRESETS for protocol in protocols) > 1:
        raise UserError(f"--preset with several protocols that train: {names}; name one.")


def _check_steps(config: EvaluationConfig, given: set[str]) -> None:
    """Refuses steps after training that would change nothing."""
    steps = sorted(given & set(_STEPS))
    if steps and all(bits.is_float for bits in parse_bit_widths(config.measurement.bits)):
        raise UserError(
            f"--{steps[0]} has no effect here: --bits={config.measurement.bits} quantizes nothing; "
            "allowed with bit-widths such as 4w4a."
        )
    if "rounding_iterations" in given and config.post_training.rounding == "nearest":
        raise UserError(
            "--rounding_iterations has no effect here: --rounding=nearest learns nothing; allowed "
            "with --rounding=adaround or block."
        )
