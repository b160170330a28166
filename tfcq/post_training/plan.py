"""Post-training quantization as a plan: which steps are taken, and in which order."""

import dataclasses
import functools
from collections.abc import Callable

import keras
import numpy as np

from tfcq.errors import UserError, unknown_choice
from tfcq.nn.activation_ranges import (
    activation_layers,
    is_trained_quantized,
    ranges_at,
    takes_ranges,
    trained_bits,
)
from tfcq.nn.calibration import Calibrator
from tfcq.nn.cloning import copy_of
from tfcq.nn.quantizable import QuantizableModel
from tfcq.post_training.batch_norm import reestimate_batch_norm
from tfcq.post_training.bias_correction import correct_biases
from tfcq.post_training.equalization import equalize
from tfcq.post_training.graph import kernel_layers, parts_of
from tfcq.post_training.mixed_precision import allocate, kernel_sizes, scan_sensitivities
from tfcq.post_training.observation import activation_quantizers, observe
from tfcq.post_training.ranges import RANGES
from tfcq.post_training.rounding import RoundingSettings, learn_rounding
from tfcq.post_training.weights import (
    WEIGHT_SCALES,
    check_weight_quantizer,
    with_stored_scales,
)
from tfcq.settings.bitwidths import FLOAT, BitWidth
from tfcq.settings.evaluation_groups import CALIBRATION_PASSES

# What is rounded together, see `learn_rounding`; None where nothing is learned.
ROUNDINGS: dict[str, str | None] = {"nearest": None, "adaround": "layer", "block": "block"}
_SCANNED_IMAGES = 256
# Images per pass: an average needs many passes, other ranges do not depend on it.
_AVERAGED_IMAGES, _OBSERVED_IMAGES = 32, 256


@dataclasses.dataclass(frozen=True)
class Plan:
    """The steps after training, in the order in which they are taken.

    Args:
        equalize: whether weight ranges move from channel to channel first (`equalize`).
        calibration: how activation ranges are found, a name in `RANGES`.
        calibration_pass: whether in a `"float"` pass or in one that is `"quantized"` as asked for;
            None for the way the model was trained.
        keep_ranges: whether a model that holds the ranges of its training at a bit-width runs with
            these there.
        mixed_precision: whether weight bits go where they matter most, in the same size in all
            (`scan_sensitivities`, `allocate`); layers with fixed bits keep them.
        weight_scales: how weight scales are found, a name in `WEIGHT_SCALES`.
        rounding: `"nearest"`, or learned by layer (`"adaround"`) or by `"block"`.
        reestimate_batch_norm: whether batch norms take the statistics of the quantized pass.
        correct_biases: whether the mean error of each channel is taken out of the biases.
        learning: how rounding is learned.

    Raises:
        UserError: on an unknown name.
    """

    equalize: bool = False
    calibration: str = "minmax"
    calibration_pass: str | None = None
    keep_ranges: bool = True
    mixed_precision: bool = False
    weight_scales: str = "max"
    rounding: str = "nearest"
    reestimate_batch_norm: bool = False
    correct_biases: bool = False
    learning: RoundingSettings = RoundingSettings()

    def __post_init__(self) -> None:
        for what, name, known in (
            ("calibration method", self.calibration, RANGES),
            ("weight scale", self.weight_scales, WEIGHT_SCALES),
            ("rounding of weights", self.rounding, ROUNDINGS),
        ):
            if name not in known:
                raise unknown_choice(what, name, known)
        if self.calibration_pass not in (None, *CALIBRATION_PASSES):
            raise unknown_choice("calibration pass", self.calibration_pass, CALIBRATION_PASSES)

    @property
    def changes_weights(self) -> bool:
        """Whether a bit-width needs a copy of the model, with weights and scales of its own."""
        return (
            self.mixed_precision
            or self.reestimate_batch_norm
            or self.correct_biases
            or self.weight_scales != "max"
            or ROUNDINGS[self.rounding] is not None
        )

    @property
    def in_words(self) -> str:
        """What is done, for results."""
        flags = ("equalize", "mixed_precision", "reestimate_batch_norm", "correct_biases")
        steps = [flag.replace("_", " ") for flag in flags if getattr(self, flag)]
        if self.weight_scales != "max":
            steps.append(f"{self.weight_scales} weight scales")
        if self.rounding != "nearest":
            steps.append(f"{self.rounding} rounding")
        return ", ".join([f"{self.calibration} ranges", *steps])


def check_plan(model: QuantizableModel, plan: Plan) -> None:
    """Refuses a plan with a step that cannot be taken on a model, or changes nothing there.

    Args:
        model: a quantizable model.
        plan: the steps.

    Raises:
        UserError: naming the layer or the step.
    """
    if plan.equalize or plan.changes_weights:
        for layer in kernel_layers(model):
            check_weight_quantizer(layer)
    if plan.equalize or plan.calibration != "minmax":
        # Raises at a quantizer without a range.
        list(activation_quantizers(model))
    free = [layer for layer in kernel_layers(model) if layer.weight_quantizer.bits is None]
    if plan.mixed_precision and not free:
        raise UserError(
            f"Mixed precision has no layer to choose bits for: those of {model.name!r} are fixed."
        )
    learned = ROUNDINGS[plan.rounding] is not None
    if learned or plan.reestimate_batch_norm or plan.correct_biases:
        parts = parts_of(model)
        norms = [
            operation
            for part in parts
            for operation in part.operations
            if isinstance(operation, keras.layers.BatchNormalization)
        ]
        if plan.reestimate_batch_norm and not norms:
            raise UserError(f"Model {model.name!r} has no batch norm to re-estimate.")
    if plan.equalize and not equalize(copy_of(model), iterations=1):
        raise UserError(f"Model {model.name!r} has no pair of layers to equalize.")


class Calibration:
    """Sets the activation ranges of a model, in the pass and by the method of a plan.

    Args:
        model: a quantizable model; its quantizers may be of any kind with `"minmax"`.
        images: float array [count, height, width, channels].
        plan: which pass, and how a range follows from it; the pass is quantized as asked for where
            it says so, or says nothing of a model that was trained so.
    """

    def __init__(self, model: QuantizableModel, images: np.ndarray, plan: Plan) -> None:
        self._model, self._images, self._plan = model, images, plan
        self._calibrate = Calibrator(model)
        self._set_float_ranges: Callable[[int], None] | None = None

    def observe(self) -> None:
        """Takes the model's weights as they are from now on.

        Raises:
            UserError: as `observe` does.
        """
        asked = self._plan.calibration_pass
        quantized = asked == "quantized" or (asked is None and is_trained_quantized(self._model))
        self._set_float_ranges = None if quantized else self._observed(FLOAT)

    def set_ranges(self, bits: BitWidth) -> str:
        """Sets the ranges for a bit-width; tells how: `"float pass"` or `"quantized pass"`.

        Args:
            bits: the bit-width, not float.
        """
        if self._set_float_ranges is None:
            self._observed(bits)(bits.pair[1])
            return "quantized pass"
        self._set_float_ranges(bits.pair[1])
        return "float pass"

    def _observed(self, bits: BitWidth) -> Callable[[int], None]:
        method = self._plan.calibration
        if method == "minmax":
            # The least and the greatest value are the range whatever the levels.
            self._calibrate(self._images, bits)
            return lambda activation_bits: None
        batch_size = _AVERAGED_IMAGES if method == "moving_average" else _OBSERVED_IMAGES
        observed = observe(self._model, self._images, batch_size, bits=bits)
        return functools.partial(observed.set_ranges, method)


@dataclasses.dataclass(frozen=True)
class Quantized:
    """A model as it is run at a bit-width.

    Args:
        model: the model.
        ranges: whose activation ranges it has; None in float, and where quantizers have none.
        weight_bits: bits of each layer's weights, where they were chosen; else None.
        steps: what was done after training, in words; None in float.
    """

    model: QuantizableModel
    ranges: str | None = None
    weight_bits: dict[str, int] | None = None
    steps: str | None = None


class PostTraining:
    """A trained model, quantized at any bit-width by a plan.

    Args:
        model: a quantizable model, of which nothing but its activation ranges is changed.
        images: float array [count, height, width, channels], for calibration; without labels.
        plan: the steps.

    Raises:
        UserError: when a step cannot be taken on this model, such as learned rounding of weights
            whose quantizer is not min-max.
    """

    def __init__(self, model: QuantizableModel, images: np.ndarray, plan: Plan) -> None:
        self.plan = plan
        self.images = images
        self.source = model
        if plan.equalize:
            self.source = copy_of(model)
            equalize(self.source)
        bits = trained_bits(self.source) if plan.keep_ranges else None
        self._kept = {} if bits is None else {bits: ranges_at(self.source, bits)}
        self._calibration = Calibration(self.source, images, plan)
        self._calibration.observe()
        self._sensitivities: dict[str, dict[int, float]] = {}
        self._reestimated: QuantizableModel | None = None

    def at(self, bits: BitWidth) -> Quantized:
        """Returns the model that is run at a bit-width: a prepared copy, or the model itself.

        The model itself is the same object at every bit-width; its ranges are those of the last
        one asked for.

        Args:
            bits: the bit-width; a float one needs no step.

        Raises:
            UserError: when no layer's bias can be corrected.
        """
        if bits.is_float:
            return Quantized(self.source)
        found = self._take_ranges(bits)
        ranges = found if takes_ranges(self.source) else None
        if not self.plan.changes_weights:
            return Quantized(self.source, ranges, steps=self.plan.in_words)
        weight_bits, _ = bits.pair
        mixed = self._mixed_bits(weight_bits) if self.plan.mixed_precision else None
        copy = with_stored_scales(self.source, mixed or weight_bits, self.plan.weight_scales)
        unit = ROUNDINGS[self.plan.rounding]
        if unit is not None:
            learn_rounding(copy, self.source, self.images, bits, unit, self.plan.learning)
        if self.plan.reestimate_batch_norm:
            reestimate_batch_norm(copy, self.images, bits)
        if self.plan.correct_biases:
            corrected = correct_biases(copy, self._reference(), self.images, bits)
            if not corrected:
                raise UserError(f"Model {copy.name!r} has no bias to correct, and no batch norm.")
        return Quantized(copy, ranges, mixed, self.plan.in_words)

    def _take_ranges(self, bits: BitWidth) -> str:
        kept, others = self._kept.get(bits, []), ""
        if len(kept) < sum(1 for _ in activation_layers(self.source)):
            others = self._calibration.set_ranges(bits)
        for layer, minimum, maximum in kept:
            layer.set_range(minimum, maximum, (bits.weights, bits.activations))
        if not kept:
            return others
        return f"of its training, others {others}" if others else "of its training"

    def _reference(self) -> QuantizableModel:
        """Returns the float network whose mean outputs corrected biases restore.

        Its norms are re-estimated where those of the quantized network are: means of the training's
        crops would otherwise come back.
        """
        if self.plan.reestimate_batch_norm and self._reestimated is None:
            self._reestimated = copy_of(self.source)
            reestimate_batch_norm(self._reestimated, self.images, FLOAT)
        return self._reestimated or self.source

    def _mixed_bits(self, uniform: int) -> dict[str, int]:
        """Returns weight bits by layer, of the same size in all as uniform ones."""
        fixed = {
            layer.name: layer.weight_quantizer.bits
            for layer in kernel_layers(self.source)
            if layer.weight_quantizer.bits is not None
        }
        sizes = {n: s for n, s in kernel_sizes(self.source).items() if n not in fixed}
        candidates = {*range(2, 9), uniform}
        missing = candidates.difference(*self._sensitivities.values())
        if missing:
            images = self.images[:_SCANNED_IMAGES]
            found = scan_sensitivities(self.source, images, sorted(missing))
            for name in sizes:
                self._sensitivities.setdefault(name, {}).update(found[name])
        # Not those of other bit-widths: the outcome would depend on what was asked for before.
        table = {
            name: {bits: found for bits, found in row.items() if bits in candidates}
            for name, row in self._sensitivities.items()
        }
        mixed = allocate(table, sizes, uniform * sum(sizes.values()))
        return {**mixed, **fixed}
