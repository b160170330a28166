"""From the flags of an evaluation to its settings, refusing what cannot be used or has no effect.

Needs no TensorFlow.
"""

import dataclasses
import math

from tfcq.backbones.names import APPLICATION
from tfcq.config import crop_area
from tfcq.errors import UserError, unknown_choice
from tfcq.evaluation_settings import (
    GROUPS,
    KEPT,
    LEARNED_ROUNDINGS,
    QAT_QUANTIZERS,
    STARTS,
    USED_BY,
    CalibrationSettings,
    EvaluationConfig,
    PostTrainingSettings,
)
from tfcq.nn.policies import parse_bits_by_layer
from tfcq.protocol_presets import PRESETS
from tfcq.quantization.bitwidths import parse_bit_widths
from tfcq.settings import OptimizationSettings

_STEPS = tuple(field.name for field in dataclasses.fields(PostTrainingSettings))
_CALIBRATION = tuple(field.name for field in dataclasses.fields(CalibrationSettings))


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
    published = (subject.model or "").startswith(f"{APPLICATION}:")
    if subject.weights is not None and not published:
        raise UserError(
            f"--weights has no effect here; allowed with --model={APPLICATION}:NAME alone."
        )
    protocols = config.protocols()
    has_logits = subject.weights is not None and protocols == ("classifier",)
    if published and "classifier" in protocols and not has_logits:
        raise UserError(
            f"--protocol={config.measurement.protocol} with --model={subject.model}; allowed: "
            "classifier alone and with --weights, which then has logits instead of features."
        )
    anew = {name for name in protocols if "from_scratch" in USED_BY[name]}
    if subject.weights is not None and config.measurement.from_scratch and anew >= set(protocols):
        raise UserError("--weights has no effect here: --from_scratch starts from random ones.")
    start = config.measurement.start
    if start not in STARTS and not start.endswith(KEPT):
        raise unknown_choice("start", start, (*STARTS, f"PATH{KEPT}"))
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
    for name in ("label_share", "test_crop"):
        share = values[name]
        if share is not None and not 0 < share <= 1:
            raise UserError(f"--{name}={share} cannot be used; allowed: above 0 to 1.")
    for name in ("seed", "calibration_seed"):
        if values[name] is not None and not 0 <= values[name] < 2**32:
            raise UserError(f"--{name}={values[name]} cannot be used; allowed: 0 to {2**32 - 1}.")
    crop_area(config.training.crop_area)
    if subject.layer_bits is not None:
        parse_bits_by_layer(subject.layer_bits)
    for name in ("layer_bits", "per_tensor"):
        if getattr(subject, name) and subject.policy is None:
            raise UserError(
                f"--policy is missing; --{name} needs one to depart from, such as --policy=paper."
            )
    for protocol in config.protocols():
        if protocol in PRESETS:
            _check_milestones(protocol, config.optimization(protocol))
    if "semi" in config.protocols() and config.measurement.label_share is None:
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
    learned = config.post_training.rounding in LEARNED_ROUNDINGS
    if config.quantizer_rounding is not None:
        used.add("rounding")
    if learned and any("rounding" in USED_BY[protocol] for protocol in protocols):
        used.add("seed")
    if config.measurement.from_scratch:
        used.add("seed")
    known = {name for names in USED_BY.values() for name in names}
    names = ", ".join(protocols)
    for name in sorted(given & known - used):
        raise UserError(f"--{name} has no effect here: {names} does not use it; leave it out.")
    _check_steps(config, given)
    augmented = config.measurement.features == "augmented"
    if "crop_area" in given and not augmented and set(protocols) <= {"linear", "knn", "classifier"}:
        raise UserError(
            "--crop_area has no effect here: --features=cached crops no image; allowed with "
            "--features=augmented."
        )
    own_scales = QAT_QUANTIZERS[config.measurement.quantizer][1] != "minmax"
    if set(protocols) == {"qat"} and own_scales and config.quantizer_rounding is not None:
        raise UserError(
            f"--rounding has no effect here: quantizer {config.measurement.quantizer!r} of qat "
            "rounds to the nearest; allowed with --quantizer=minmax."
        )
    calibration = sorted(given & set(_CALIBRATION))
    if set(protocols) == {"qat"} and own_scales and calibration:
        raise UserError(
            f"--{calibration[0]} has no effect here: quantizer {config.measurement.quantizer!r} of "
            "qat has no range to calibrate; leave it out."
        )
    if "output_dir" in given and config.subject.model is None:
        raise UserError("--output_dir has no effect here: a run's results lie in its folder.")
    if "preset" in given and sum(protocol in PRESETS for protocol in protocols) > 1:
        raise UserError(f"--preset with several protocols that train: {names}; name one.")


def _check_steps(config: EvaluationConfig, given: set[str]) -> None:
    """Refuses ranges and steps after training that would change nothing."""
    steps = sorted(given & {*_STEPS, *_CALIBRATION, "layer_bits", "per_tensor"})
    if steps and all(bits.is_float for bits in parse_bit_widths(config.measurement.bits)):
        raise UserError(
            f"--{steps[0]} has no effect here: --bits={config.measurement.bits} quantizes nothing; "
            "allowed with bit-widths such as 4w4a."
        )
    rounding = config.post_training.rounding
    if "rounding_iterations" in given and rounding not in LEARNED_ROUNDINGS:
        raise UserError(
            f"--rounding_iterations has no effect here: --rounding={rounding or 'nearest'} learns "
            "nothing; allowed with --rounding=adaround or block."
        )
