"""Which settings of a run, an evaluation or a detection would change nothing beside the others."""

import dataclasses

from tfcq.errors import UserError
from tfcq.settings.backbones import BACKBONE_SETTINGS, settings_of
from tfcq.settings.bitwidths import parse_bit_choices
from tfcq.settings.datasets import (
    BOXED_TFDS,
    BOXES_PREFIX,
    DIGITS,
    FOLDER_PREFIX,
    SCENES,
    SCENES_PREFIX,
    is_tfds,
)
from tfcq.settings.detection import DetectionConfig
from tfcq.settings.detection_groups import YOLOV4
from tfcq.settings.evaluation import EvaluationConfig
from tfcq.settings.evaluation_groups import CalibrationSettings
from tfcq.settings.protocol_groups import LEARNED_ROUNDINGS, QAT_QUANTIZERS
from tfcq.settings.protocols import POST_TRAINING, PROTOCOLS, QAT
from tfcq.settings.recipes import recipe_named
from tfcq.settings.training import Config
from tfcq.settings.training_groups import TPU, OptimizationSettings, ViewSettings

_CALIBRATION = tuple(field.name for field in dataclasses.fields(CalibrationSettings))
# Settings of a network's quantizers; those of a file are what they are.
_QUANTIZES = ("bits", "policy", "layer_bits", "per_tensor", "describe")
_QUANTIZED_ONLY = ("weight_bits", "activation_bits", "precision_set", "bit_schedule")


def check_used(config: Config, given: set[str]) -> None:
    """Refuses settings that were given but would change nothing.

    Args:
        config: the settings.
        given: names of the settings that the user set.

    Raises:
        UserError: naming the first of them and what makes it useless.
    """
    recipe = recipe_named(config.method.recipe)
    data = config.data
    unused = []
    if not recipe.draws:
        unused += [(n, f"recipe {config.method.recipe!r} draws no bits") for n in _QUANTIZED_ONLY]
    bits = recipe.bits(*(getattr(config.method, name) for name in _QUANTIZED_ONLY[:3]))
    single = all(text is None or len(parse_bit_choices(text)) == 1 for text in bits.values())
    if single and config.method.bit_schedule != "fixed":
        unused += [("bit_schedule", "there is one candidate for the bits, as with 'fixed'")]
    if set(recipe.views) == {0}:
        names = [field.name for field in dataclasses.fields(ViewSettings)]
        unused += [(n, f"recipe {config.method.recipe!r} augments no view") for n in names]
    network = config.network
    unused += [
        (name, f"backbone {network.backbone!r} does not use it")
        for name in sorted(BACKBONE_SETTINGS - settings_of(network.backbone))
    ]
    if network.start is not None:
        unused += [
            (name, f"--start={network.start} brings the weights")
            for name in ("kernel_initializer", "zero_init_residual")
        ]
    if config.method.projection_layers == 1:
        unused += [("projection_hidden", "a projector of one layer has no hidden one")]
    if config.execution.strategy == "single":
        unused += [("batch_norm", "--strategy=single has one replica")]
    if config.execution.strategy != TPU:
        unused += [("tpu", f"--strategy={config.execution.strategy} uses none")]
    unused += _in_optimization(config.optimization)
    if config.views.jitter_probability == 0:
        unused += [
            (name, "--jitter_probability is 0")
            for name in ("brightness", "contrast", "saturation", "hue")
        ]
    if not is_tfds(data.dataset):
        unused += [
            (n, f"data set {data.dataset!r} is no TFDS name") for n in ("data_dir", "download")
        ]
    if not data.dataset.startswith(FOLDER_PREFIX):
        unused += [
            (n, f"data set {data.dataset!r} is no folder:PATH")
            for n in ("strict_data", "background")
        ]
    if data.holdout is None:
        unused += [("holdout_seed", "--holdout is missing")]
    _refuse(unused, given)


def _in_optimization(settings: OptimizationSettings) -> list[tuple[str, str]]:
    """Returns settings of an optimizer that change nothing beside the others, and why."""
    unused = []
    if settings.duration is not None:
        unused += [("epochs", "--duration says how long the run is")]
    if settings.learning_rate_schedule != "step":
        unused += [("milestone_factor", "the learning rate has no milestones")]
    if settings.optimizer == "adamw":
        unused += [("nesterov", "AdamW has none")]
    if settings.momentum == 0:
        unused += [("nesterov", "--momentum is 0")]
    if settings.weight_decay == 0 and settings.optimizer != "lars":
        unused += [("exclude", "--weight_decay is 0")]
    if settings.exclude == "none" and settings.optimizer != "lars":
        unused += [("exclude", f"{settings.optimizer} leaves no variable out by itself")]
    return unused


def _refuse(unused: list[tuple[str, str]], given: set[str]) -> None:
    for name, reason in unused:
        if name in given:
            raise UserError(f"--{name} has no effect here: {reason}; leave it out.")


def check_used_in_detection(config: DetectionConfig, given: set[str]) -> None:
    """Refuses settings of a detection that were given but would change nothing.

    Args:
        config: the settings.
        given: names of the settings that the user set.

    Raises:
        UserError: naming the first of them and what makes it useless.
    """
    dataset, detector = config.data.dataset, config.detector.detector
    protocol, quantizer = config.measurement.protocol, config.measurement.quantizer
    unused = _in_optimization(config.training)
    if dataset.startswith(BOXES_PREFIX) or dataset in (SCENES, f"{SCENES_PREFIX}{DIGITS}"):
        reason = f"data set {dataset!r} is none of TensorFlow Datasets"
        unused += [(name, reason) for name in ("data_dir", "download")]
    if dataset in (*BOXED_TFDS, SCENES, f"{SCENES_PREFIX}{DIGITS}"):
        unused += [("holdout", f"data set {dataset!r} has a test split of its own")]
    if config.data.holdout is None:
        unused += [("holdout_seed", "--holdout is missing")]
    if not dataset.startswith(BOXES_PREFIX):
        unused += [("strict_data", f"data set {dataset!r} is no {BOXES_PREFIX}PATH")]
    if dataset.split(":")[0] == SCENES:
        unused += [("longest_side", "scenes are square, and --shorter_side is their side")]
    if detector == YOLOV4:
        reason = f"{YOLOV4} has anchors of its own and no proposals"
        unused += [(n, reason) for n in ("anchor_sizes", "proposals", "sampled_regions")]
    if protocol != QAT.name:
        unused += [("quantizer", f"--protocol={protocol} trains in float")]
    else:
        reason = "qat goes on from the float detector, whose weights it has"
        unused += [("from_scratch", reason)]
        reason = "qat trains at each bit-width and takes no step after it"
        unused += [(name, reason) for name in (*POST_TRAINING, "calibration")]
        if QAT_QUANTIZERS[quantizer][1] != "minmax":
            reason = f"quantizer {quantizer!r} of qat has no range to calibrate"
            unused += [("calibration_images", reason)]
    if all(bits.is_float for bits in config.bit_widths):
        reason = f"--bits={config.measurement.bits} quantizes nothing"
        names = (*POST_TRAINING, "calibration", "quantize", "quantizer")
        unused += [(name, reason) for name in names]
        if config.measurement.export_bits is None:
            unused += [("calibration_images", reason)]
    if config.post_training.rounding not in LEARNED_ROUNDINGS:
        unused += [("rounding_iterations", "--rounding learns nothing")]
    _refuse(unused, given)


def check_used_in_evaluation(config: EvaluationConfig, given: set[str]) -> None:
    """Refuses settings of an evaluation that were given but would change nothing.

    Args:
        config: the settings.
        given: names of the settings that the user set.

    Raises:
        UserError: naming the first of them and what makes it useless.
    """
    if config.scores_file:
        _check_file(config, given)
    used = {name for protocol in config.protocols for name in protocol.uses}
    if config.quantizer_rounding is not None:
        used.add("rounding")
    learned = config.post_training.rounding in LEARNED_ROUNDINGS and config.uses("rounding")
    if learned or config.measurement.from_scratch:
        used.add("seed")
    known = {name for protocol in PROTOCOLS.values() for name in protocol.uses}
    names = ", ".join(protocol.name for protocol in config.protocols)
    for name in sorted(given & known - used):
        raise UserError(f"--{name} has no effect here: {names} does not use it; leave it out.")
    _check_steps(config, given)
    trains_network = any(protocol.trains_network for protocol in config.protocols)
    if "crop_area" in given and not trains_network and config.measurement.features != "augmented":
        raise UserError(
            "--crop_area has no effect here: --features=cached crops no image; allowed with "
            "--features=augmented."
        )
    _check_learned_ranges(config, given)
    if "output_dir" in given and config.subject.model is None:
        raise UserError("--output_dir has no effect here: a run's results lie in its folder.")
    if "preset" in given and sum(bool(protocol.presets) for protocol in config.protocols) > 1:
        raise UserError(f"--preset with several protocols that train: {names}; name one.")


def _check_file(config: EvaluationConfig, given: set[str]) -> None:
    """Refuses beside a TFLite file what would quantize a network, or make a training repeat."""
    for name in sorted(given & {*POST_TRAINING, *_CALIBRATION, *_QUANTIZES}):
        raise UserError(
            f"--{name} has no effect here: {config.subject.model} is run as it is, with its own "
            "bits and scales; allowed: --kernels."
        )
    if "deterministic" in given and not any(one.presets for one in config.protocols):
        raise UserError(
            f"--deterministic has no effect here: {config.subject.model} is run by LiteRT, which "
            "repeats by itself, and nothing is trained; leave it out."
        )


def _check_learned_ranges(config: EvaluationConfig, given: set[str]) -> None:
    """Refuses rounding and calibration where nothing but quantizers with learned scales is run."""
    quantizer = config.measurement.quantizer
    placed_anew = all("quantizer" in protocol.uses for protocol in config.protocols)
    if not placed_anew or QAT_QUANTIZERS[quantizer][1] == "minmax":
        return
    if config.quantizer_rounding is not None:
        raise UserError(
            f"--rounding has no effect here: quantizer {quantizer!r} of qat rounds to the nearest; "
            "allowed with --quantizer=minmax."
        )
    for name in sorted(given & set(_CALIBRATION)):
        raise UserError(
            f"--{name} has no effect here: quantizer {quantizer!r} of qat has no range to "
            "calibrate; leave it out."
        )


def _check_steps(config: EvaluationConfig, given: set[str]) -> None:
    """Refuses ranges and steps after training that would change nothing."""
    steps = sorted(given & {*POST_TRAINING, *_CALIBRATION, "layer_bits", "per_tensor"})
    if steps and all(bits.is_float for bits in config.bit_widths):
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
