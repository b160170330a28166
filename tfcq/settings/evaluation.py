"""The settings of an evaluation in groups, and what they must agree on."""

import dataclasses
import functools
from typing import Any

from tfcq.errors import UserError, unknown_choice
from tfcq.settings.backbones import APPLICATION, NORMALIZATION, normalization
from tfcq.settings.bitwidths import BitWidth, parse_bit_widths
from tfcq.settings.checkpoints import CHECKPOINTS_HELP, is_checkpoint
from tfcq.settings.datasets import colour
from tfcq.settings.evaluation_groups import (
    DEPLOYED_BITS,
    DEPLOYED_WEIGHTS,
    CalibrationSettings,
    EvaluationDataSettings,
    ProtocolSettings,
    SubjectSettings,
)
from tfcq.settings.fields import check_fields, grouped, share_range
from tfcq.settings.kernels import FILE_ENDING, XNNPACK, is_file, parse_kernels
from tfcq.settings.policies import parse_bits_by_layer
from tfcq.settings.protocol_groups import (
    KEPT,
    LEARNED_ROUNDINGS,
    PostTrainingSettings,
    ProtocolTrainingSettings,
)
from tfcq.settings.protocols import PROTOCOLS, STARTS, Protocol, protocols_named
from tfcq.settings.training import check_milestones


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
        self._check_file()
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
        if self.measurement.kernels is not None:
            parse_kernels(self.measurement.kernels)

    @functools.cached_property
    def protocols(self) -> tuple[Protocol, ...]:
        """The protocols in the order asked for."""
        return protocols_named(self.measurement.protocol)

    @functools.cached_property
    def bit_widths(self) -> tuple[BitWidth, ...]:
        """The bit-widths in the order asked for."""
        return parse_bit_widths(self.measurement.bits)

    @property
    def scores_file(self) -> bool:
        """Whether a TFLite file is scored, which is run and neither quantized nor trained."""
        return is_file(self.subject.model)

    @functools.cached_property
    def kernels(self) -> tuple[str, ...]:
        """The kernels that a TFLite file is run on, in the order asked for."""
        asked = self.measurement.kernels
        return parse_kernels(XNNPACK if asked is None else asked)

    @property
    def scores_logits(self) -> bool:
        """Whether nothing but the model's own logits is scored."""
        return all(protocol.scores_logits for protocol in self.protocols)

    @property
    def test_crop(self) -> float | None:
        """Share of plain images that is kept: as asked for, all for a model of the user's.

        None is for the usual share, with which runs and published networks are scored.
        """
        model = self.subject.model
        own = model is not None and not model.startswith(f"{APPLICATION}:")
        return 1.0 if own and self.data.test_crop is None else self.data.test_crop

    @property
    def quantizer_rounding(self) -> str | None:
        """How quantizers round; None for the way they were made."""
        rounding = self.post_training.rounding
        return None if rounding in LEARNED_ROUNDINGS else rounding

    @property
    def chooses_steps(self) -> bool:
        """Whether `classifier` chooses steps after training: a user's own model, none asked for.

        The papers' protocols keep min-max, so that figures can be compared. Neither they nor which
        images set the ranges is a step.
        """
        asked = self.calibration.calibration, self.calibration.calibration_pass
        none_asked = asked == (None, None) and self.post_training == PostTrainingSettings()
        return self.subject.model is not None and none_asked

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
        public = is_checkpoint(subject.model)
        for name in sorted(NORMALIZATION):
            if getattr(subject, name) is not None and not public:
                raise UserError(
                    f"--{name} has no effect here: a run and a model of Keras have their own; "
                    f"allowed with --model={CHECKPOINTS_HELP} alone."
                )
        normalization(subject.input_mean, subject.input_std)
        if subject.weights is not None and not published:
            raise UserError(
                f"--weights has no effect here; allowed with --model={APPLICATION}:NAME alone."
            )
        if subject.input_range is not None and (published or public or subject.model is None):
            raise UserError(
                "--input_range has no effect here: what it takes is known; allowed with "
                "--model=PATH.keras or PATH.tflite alone."
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
            if getattr(subject, name) and subject.policy is None and not self.scores_file:
                raise UserError(
                    f"--policy is missing; --{name} needs one to depart from, such as "
                    "--policy=paper."
                )

    def _check_file(self) -> None:
        model, measurement = self.subject.model, self.measurement
        if not self.scores_file:
            if measurement.kernels is not None:
                raise UserError(
                    "--kernels has no effect here: Keras computes at --bits instead; allowed with "
                    f"--model=PATH{FILE_ENDING} alone, such as the file that tfcq.export wrote."
                )
            return
        for protocol in self.protocols:
            if protocol.trains_network:
                allowed = ", ".join(p.name for p in PROTOCOLS.values() if not p.trains_network)
                raise UserError(
                    f"--protocol={protocol.name} trains the network, and {model} can only be run; "
                    f"allowed with a {FILE_ENDING}: {allowed}."
                )
        augmented = measurement.features == "augmented"
        if augmented or measurement.from_scratch:
            flag = "--features=augmented" if augmented else "--from_scratch"
            raise UserError(
                f"{flag} cannot be had of {model}, which can only be run; leave it out."
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


def check_deployed(config: EvaluationConfig) -> None:
    """Refuses settings that no integer runtime has.

    Args:
        config: the settings.

    Raises:
        UserError: saying which there are.
    """
    if config.scores_file:
        raise UserError(
            f"{config.subject.model} is a TFLite file already; allowed: --run_dir, or a .keras "
            "file. python -m tfcq.verify checks a file, python -m tfcq.evaluate scores it."
        )
    (bits, *others) = config.bit_widths
    if others or bits.is_float or bits.activations != 8 or bits.weights not in DEPLOYED_WEIGHTS:
        raise UserError(
            f"--bits={config.measurement.bits} cannot be exported; allowed: one of 2w8a to "
            f"{DEPLOYED_BITS}, as activations of other than 8 bits do not exist in LiteRT."
        )
    if config.quantizer_rounding not in (None, "nearest"):
        raise UserError(
            f"--rounding={config.quantizer_rounding} cannot be exported; allowed: nearest, as "
            "LiteRT rounds, adaround or block."
        )
