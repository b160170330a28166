"""The settings of an evaluation in groups, and what they must agree on."""

import dataclasses
import functools
from typing import Any

from tfcq.errors import UserError, unknown_choice
from tfcq.settings.backbones import APPLICATION, INPUT_RANGES, UNIT_RANGE
from tfcq.settings.bitwidths import BitWidth, parse_bit_widths
from tfcq.settings.datasets import colour
from tfcq.settings.fields import check_fields, grouped, setting, share_range
from tfcq.settings.policies import POLICIES, parse_bits_by_layer
from tfcq.settings.protocols import (
    FEATURES,
    KEPT,
    LEARNED_ROUNDINGS,
    LINEAR,
    PROTOCOLS,
    QAT_QUANTIZERS,
    STARTS,
    PostTrainingSettings,
    Protocol,
    ProtocolTrainingSettings,
    protocols_named,
    used_by,
)
from tfcq.settings.training import CALIBRATION_IMAGES, HIGHEST_SEED, check_milestones

ALL_BITS = "fp,8w8a,6w6a,5w5a,4w4a,3w3a,2w8a,2w4a"
# What an integer runtime computes, and the policy that quantizes as it does.
DEPLOYED_BITS = "8w8a"
DEPLOYED_POLICY = "int8"
CALIBRATIONS = ("minmax", "moving_average", "percentile", "mse", "entropy")
CALIBRATION_PASSES = ("float", "quantized")


@dataclasses.dataclass(frozen=True)
class SubjectSettings:
    """What is evaluated."""

    run_dir: str | None = setting(None, "folder of the run")
    checkpoint: str | None = setting(
        None,
        "of an unfinished run: the checkpoint that is scored, latest or a number of epochs",
    )
    model: str | None = setting(
        None, "instead of a run: PATH.keras, or applications:NAME of keras.applications"
    )
    weights: str | None = setting(
        None,
        "of --model=applications:NAME: imagenet, which Keras downloads once, or the file of a "
        "network's .weights.h5; default random",
    )
    input_range: str | None = setting(
        None,
        "of --model=PATH.keras: the pixels that it takes; default what its first layers tell, else "
        f"{UNIT_RANGE}",
        tuple(INPUT_RANGES),
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
    channels: str | None = setting(
        None, "turn all images to grey or to colour; default as the run did", ("1", "3")
    )
    background: str | None = setting(
        None,
        "behind transparent pixels: white, black, grey or #RRGGBB; default as the run did",
    )
    image_size: int | None = setting(None, "height and width of the images in pixels", at_least=1)
    train_images: int | None = setting(
        None, "train on the first so many images; default the run's, or all", at_least=1
    )
    holdout: float | None = setting(
        None,
        "where there is no test split, share of each class that becomes one; default the run's",
        above=0,
        below=1,
    )
    holdout_seed: int | None = setting(
        None,
        "which images --holdout takes; default the run's, or 0",
        at_least=0,
        at_most=HIGHEST_SEED,
    )
    test_images: int | None = setting(
        None, "test on the first so many images; default all", at_least=1
    )
    test_crop: float | None = setting(
        None,
        "share of the shorter side that the central crop of plain images keeps, such as 0.875, 224 "
        "of 256 pixels; default that for images larger than the network's, else 1",
        above=0,
        at_most=1,
    )


@dataclasses.dataclass(frozen=True)
class CalibrationSettings:
    """How activation ranges are found."""

    calibration: str | None = setting(
        None,
        "how a range follows from activations; default minmax, and below 8 bits of a classifier of "
        "your own (--model, --protocol=classifier) mse beside --correct_biases",
        CALIBRATIONS,
    )
    calibration_pass: str | None = setting(
        None,
        "record activations in a float pass, or in one quantized as scored; default as the network "
        "was trained",
        CALIBRATION_PASSES,
    )
    calibration_images: int | None = setting(
        None,
        f"training images that set the ranges; default {CALIBRATION_IMAGES:,} or all",
        at_least=1,
    )
    calibration_seed: int | None = setting(
        None,
        "draw them with this seed; default the first of the training images",
        at_least=0,
        at_most=HIGHEST_SEED,
    )


@dataclasses.dataclass(frozen=True)
class ProtocolSettings:
    """How accuracy is measured."""

    protocol: str = setting(
        LINEAR.name, f"one of these or a comma-separated list: {', '.join(PROTOCOLS)}"
    )
    bits: str = setting(ALL_BITS, "bit-widths, such as fp,8w8a,2-4w4a")
    neighbours: int = setting(20, f"{used_by('neighbours')}: how many neighbours vote", at_least=1)
    temperature: float = setting(
        0.1, f"{used_by('temperature')}: the smaller, the more the nearest decide", above=0
    )
    features: str = setting(
        "cached", f"{used_by('features')}: once, or of augmented images", FEATURES
    )
    label_share: float | None = setting(
        None,
        f"{used_by('label_share')}: share of every class's labels, such as 0.01",
        above=0,
        at_most=1,
    )
    from_scratch: bool = setting(
        False, f"{used_by('from_scratch')}: random weights instead of the backbone's"
    )
    quantizer: str = setting(
        "lsq", f"{used_by('quantizer')}: what is trained", tuple(QAT_QUANTIZERS)
    )
    start: str = setting(
        STARTS[0],
        f"{used_by('start')}: the float classifier to start from: {' or '.join(STARTS)}, trained "
        "first, or a PATH.keras that --keep_classifiers saved",
    )
    curve_images: int | None = setting(
        None,
        f"{used_by('curve_images')}: first test images that score every epoch; default all",
        at_least=1,
    )
    keep_classifiers: bool = setting(
        False, f"{used_by('keep_classifiers')}: save what was trained beside the results"
    )
    seed: int = setting(
        0,
        "seed of subsets, order, augmentation and learned rounding",
        at_least=0,
        at_most=HIGHEST_SEED,
    )


@dataclasses.dataclass(frozen=True)
class EvaluationConfig:
    """All settings of an evaluation.

    Raises:
        UserError: on a value that cannot be used, or that does not go with another.
    """

    subject: SubjectSettings = SubjectSettings()
    data: EvaluationDataSettings = EvaluationDataSettings()
    calibration: CalibrationSettings = CalibrationSettings()
    post_training: PostTrainingSettings = PostTrainingSettings()
    measurement: ProtocolSettings = ProtocolSettings()
    training: ProtocolTrainingSettings = ProtocolTrainingSettings()

    def __post_init__(self) -> None:
        for group in dataclasses.fields(self):
            check_fields(getattr(self, group.name))
        if self.data.background is not None:
            colour("background", self.data.background)
        self._check_subject()
        self._check_policy()
        start = self.measurement.start
        if start not in STARTS and not start.endswith(KEPT):
            raise unknown_choice("start", start, (*STARTS, f"PATH{KEPT}"))
        share_range("crop_area", self.training.crop_area)
        for protocol in self.protocols:
            if protocol.presets:
                self._check_milestones(protocol)
            for name, example in protocol.needs.items():
                if getattr(self.measurement, name) is None:
                    raise UserError(
                        f"--{name} is missing; {protocol.name} needs it, such as "
                        f"--{name}={example}."
                    )
        parse_bit_widths(self.measurement.bits)

    @functools.cached_property
    def protocols(self) -> tuple[Protocol, ...]:
        """The protocols in the order asked for."""
        return protocols_named(self.measurement.protocol)

    @functools.cached_property
    def bit_widths(self) -> tuple[BitWidth, ...]:
        """The bit-widths in the order asked for."""
        return parse_bit_widths(self.measurement.bits)

    @property
    def scores_logits(self) -> bool:
        """Whether nothing but the model's own logits is scored."""
        return all(protocol.scores_logits for protocol in self.protocols)

    @property
    def quantizer_rounding(self) -> str | None:
        """How quantizers round; None for the way they were made."""
        rounding = self.post_training.rounding
        return None if rounding in LEARNED_ROUNDINGS else rounding

    @property
    def chooses_steps(self) -> bool:
        """Whether steps after training are chosen here: a classifier of the user's, none asked for.

        The papers' protocols keep min-max, so that figures can be compared.
        """
        asked = (self.calibration, self.post_training)
        own = self.subject.model is not None and self.scores_logits
        return own and asked == (CalibrationSettings(), PostTrainingSettings())

    def uses(self, name: str) -> bool:
        """Whether a protocol that was asked for uses a setting.

        Args:
            name: a setting that not all protocols use.
        """
        return any(name in protocol.uses for protocol in self.protocols)

    def _check_milestones(self, protocol: Protocol) -> None:
        training = protocol.training(self.training)
        check_milestones(training)
        for duration in training.milestone_durations():
            if duration.unit == "epochs" and not 0 < duration.amount < training.epochs:
                raise UserError(
                    f"{protocol.name} lowers its learning rate after {duration.amount:g} epochs, "
                    f"and --epochs={training.epochs}; allowed: earlier --milestones, or "
                    "--learning_rate_schedule=cosine."
                )

    def _check_subject(self) -> None:
        subject, names = self.subject, self.measurement.protocol
        if (subject.run_dir is None) == (subject.model is None):
            missing = "is missing" if subject.run_dir is None else "and --model were both given"
            raise UserError(
                f"--run_dir {missing}; give the folder of a run that tfcq.train made, or a model "
                "with --model."
            )
        if subject.model is not None:
            if subject.checkpoint is not None:
                raise UserError("--checkpoint has no effect here; allowed with --run_dir alone.")
            for name, value in (("output_dir", subject.output_dir), ("dataset", self.data.dataset)):
                if value is None:
                    raise UserError(f"--{name} is missing; --model={subject.model} needs it.")
        published = (subject.model or "").startswith(f"{APPLICATION}:")
        if subject.weights is not None and not published:
            raise UserError(
                f"--weights has no effect here; allowed with --model={APPLICATION}:NAME alone."
            )
        if subject.input_range is not None and (published or subject.model is None):
            raise UserError(
                "--input_range has no effect here: what it takes is known; allowed with "
                "--model=PATH.keras alone."
            )
        wants_logits = any(protocol.scores_logits for protocol in self.protocols)
        if published and wants_logits and not (subject.weights and self.scores_logits):
            raise UserError(
                f"--protocol={names} with --model={subject.model}; allowed: classifier alone and "
                "with --weights, which then has logits instead of features."
            )
        anew = all("from_scratch" in protocol.uses for protocol in self.protocols)
        if subject.weights is not None and self.measurement.from_scratch and anew:
            raise UserError("--weights has no effect here: --from_scratch starts from random ones.")

    def _check_policy(self) -> None:
        subject = self.subject
        if subject.layer_bits is not None:
            parse_bits_by_layer(subject.layer_bits)
        for name in ("layer_bits", "per_tensor"):
            if getattr(subject, name) and subject.policy is None:
                raise UserError(
                    f"--policy is missing; --{name} needs one to depart from, such as "
                    "--policy=paper."
                )


# The groups under the headings of the help.
GROUPS: dict[str, Any] = {
    "Subject": SubjectSettings(),
    "Data": EvaluationDataSettings(),
    "Calibration": CalibrationSettings(),
    "Post-training": PostTrainingSettings(),
    "Protocol": ProtocolSettings(),
    "Training": ProtocolTrainingSettings(),
}


def evaluation_from_flat(values: dict[str, Any]) -> EvaluationConfig:
    """Returns the settings of an evaluation from values by setting name.

    Args:
        values: value of each setting; those absent keep their default.

    Raises:
        UserError: on an unknown setting or a value that cannot be used.
    """
    return EvaluationConfig(**grouped(EvaluationConfig, values))
