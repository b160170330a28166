"""Learned rounding of weights: AdaRound on layers, the same on blocks as BRECQ does."""

import dataclasses
import functools
import math

import keras
import numpy as np
import tensorflow as tf

from tfcq.errors import UserError, unknown_choice
from tfcq.nn.calibration import check_quantizable
from tfcq.nn.quantizable import QuantizableModel
from tfcq.post_training.graph import Part, kernel_layers, paired_parts, run
from tfcq.post_training.observation import check_images
from tfcq.quantization.precision import Precision
from tfcq.quantization.stored_scale import stored_scale
from tfcq.settings.bitwidths import BitWidth
from tfcq.settings.generator import GENERATOR

UNITS = ("layer", "block")
# Ends of the stretched sigmoid (AdaRound, Eq. 23), which cut to 0 and 1 can be reached.
_STRETCH = (-0.1, 1.1)
_EXPONENTS = (20.0, 2.0)
_SMALLEST = 1e-30


@dataclasses.dataclass(frozen=True)
class Reconstruction:
    """How a unit's output was met, as a share of the float output's squared size.

    Args:
        name: the unit's layers with a kernel, joined by `+`.
        nearest: squared error with weights rounded to the nearest.
        learned: squared error with the rounding that was kept.
    """

    name: str
    nearest: float
    learned: float


@dataclasses.dataclass(frozen=True)
class RoundingSettings:
    """How rounding is learned; the defaults are AdaRound's.

    Args:
        iterations: steps of Adam on each unit.
        batch_size: images per step, drawn with replacement.
        learning_rate: of Adam.
        regularization: weight of the term that drives roundings to 0 or 1.
        warm_up: share of the iterations without that term, 0 to below 1.
        seed: seed of the draws.

    Raises:
        UserError: on a value that cannot be used.
    """

    iterations: int = 10_000
    batch_size: int = 32
    learning_rate: float = 0.01
    regularization: float = 0.01
    warm_up: float = 0.2
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("iterations", "batch_size"):
            if getattr(self, name) < 1:
                raise UserError(
                    f"{name} {getattr(self, name)} cannot be used; allowed: 1 and above. The "
                    "nearest is 1."
                )
        if not 0 <= self.warm_up < 1:
            raise UserError(f"warm_up {self.warm_up} cannot be used; allowed: 0 to below 1.")
        for name in ("learning_rate", "regularization"):
            if not 0 <= getattr(self, name) < math.inf:
                raise UserError(
                    f"{name} {getattr(self, name)} cannot be used; allowed: 0 and above."
                )


class SoftRounding:
    """A kernel whose elements are rounded down, up, or for now in between (AdaRound, Eqs. 22, 23).

        kernel = scale clip(floor(w / scale) + h(V), lowest, highest)
        h(V) = clip(1.2 sigmoid(V) - 0.1, 0, 1)

    V starts where nothing is rounded: h(V) = w / scale - floor(w / scale).

    Args:
        layer: a layer with a stored scale.
    """

    def __init__(self, layer: keras.layers.Layer) -> None:
        self.layer = layer
        self.scale = tf.convert_to_tensor(stored_scale(layer))
        kernel = tf.cast(tf.convert_to_tensor(layer.kernel), self.scale.dtype)
        self.ends = layer.weight_quantizer.levels(self.scale.dtype)
        self.floor = tf.floor(kernel / self.scale)
        low, high = _STRETCH
        share = (kernel / self.scale - self.floor - low) / (high - low)
        self.logits = keras.Variable(tf.math.log(share / (1 - share)), dtype=self.scale.dtype)

    def shares(self) -> tf.Tensor:
        """Returns h(V), in [0, 1]."""
        low, high = _STRETCH
        return tf.clip_by_value(tf.sigmoid(self.logits) * (high - low) + low, 0, 1)

    def kernel(self, shares: tf.Tensor) -> tf.Tensor:
        """Returns the kernel with its elements rounded up by these shares.

        Args:
            shares: float tensor of the kernel's shape.
        """
        levels = tf.clip_by_value(self.floor + shares, *self.ends)
        return tf.cast(levels * self.scale, self.layer.compute_dtype)

    def rounded(self) -> tf.Tensor:
        """Returns the kernel on its grid, every element down or up, whichever is nearer to h."""
        return self.kernel(tf.cast(self.shares() >= 0.5, self.scale.dtype))


def regularizer_at(step: tf.Tensor, settings: RoundingSettings) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns weight and exponent of the regularizer: none in the warm-up, then along a cosine.

    Args:
        step: int32 tensor of shape (), from 0.
        settings: how rounding is learned.

    Returns:
        Two float32 tensors of shape ().
    """
    warm_up = settings.warm_up * settings.iterations
    progress = (tf.cast(step, tf.float32) - warm_up) / (settings.iterations - warm_up)
    first, last = _EXPONENTS
    exponent = last + (first - last) * (1 + tf.cos(math.pi * tf.maximum(progress, 0))) / 2
    return tf.where(progress >= 0, settings.regularization, 0.0), exponent


def undecided(shares: tf.Tensor, exponent: tf.Tensor) -> tf.Tensor:
    """Returns sum of 1 - |2 h - 1|^exponent, zero where all is rounded (AdaRound, Eq. 24).

    Args:
        shares: float tensor, h(V).
        exponent: float tensor of shape (); high ones push only what is almost decided.
    """
    return tf.reduce_sum(1 - tf.pow(tf.abs(2 * shares - 1), exponent))


def learn_rounding(
    model: QuantizableModel,
    reference: QuantizableModel,
    images: np.ndarray,
    bits: BitWidth,
    unit: str = "layer",
    settings: RoundingSettings | None = None,
) -> list[Reconstruction]:
    """Rounds each kernel down or up such that its unit computes what the float model does.

        min over V of    mean |unit(x quantized) - y|^2 / mean square of y
                         + regularization * sum of 1 - |2 h(V) - 1|^exponent

    where y = float unit(x float), with the exponent falling from 20 to 2 along a cosine, after a
    warm-up without that term. |.|^2 is summed over channels and averaged over images and positions;
    the papers do not divide by the mean square of y, with which the regularization means the same
    for outputs of every size. With
    unit `"layer"` this is AdaRound (Nagel et al. 2020, Eqs. 21 to 25): a unit is a layer with the
    batch norm and activation function fused into it. With `"block"` a unit is a part through whose
    ends all paths pass, such as a residual block, and its kernels are learned together (BRECQ, Li
    et al. 2021, Sec. 3.2, without its Fisher weights and its learned activation steps). Units
    follow each other; inputs are those of the quantized pass with the units before it done, its
    activation quantizers included. A rounding that meets the float output worse than the nearest
    does, over all images, is not kept. Kernels then lie on their grid, so the float pass uses the
    rounded weights.

    Args:
        model: from `with_stored_scales`, with activation ranges; changed in place.
        reference: the model whose float pass is to be met, with the same layers; it may not share
            them.
        images: float array [count, height, width, channels].
        bits: bits of the quantized pass, both numbers; weights use those they were prepared for.
        unit: `"layer"` or `"block"`.
        settings: how rounding is learned.

    Returns:
        One entry per unit, in order.

    Raises:
        UserError: on a float model, layers without stored scale, models whose layers differ, an
            unknown unit, bits that are float, no image, images with NaN or infinity, or a graph
            that cannot be cut (`graph.parts_of`).
    """
    settings = settings or RoundingSettings()
    if unit not in UNITS:
        raise unknown_choice("unit", unit, UNITS)
    for either in (model, reference):
        check_quantizable(either)
    for layer in kernel_layers(model):
        stored_scale(layer)
    check_images(images, settings.batch_size)
    pass_bits = bits.pair
    size = max(settings.batch_size, 256)
    inputs = targets = images
    done: list[Reconstruction] = []
    for part, original in paired_parts(model, reference):
        precision = Precision(*pass_bits)
        units = _layer_units(part, original) if unit == "layer" else _block_units(part, original)
        for start, end, wanted, layers in units:
            xs = run(part.until(start), inputs, precision, size)
            ys = run(original.until(wanted), targets, None, size)
            network = QuantizableModel(start, end)
            done.append(_learn(network, layers, xs, ys, pass_bits, settings, len(done)))
        inputs = run(part.until(), inputs, precision, size)
        targets = run(original.until(), targets, None, size)
    return done


def _layer_units(part: Part, original: Part):
    for layer in part.kernels:
        last = part.graph.fused_into(layer.name)[-1]
        operations = part.graph.operations, original.graph.operations
        yield layer.input, operations[0][last].output, operations[1][last].output, [layer]


def _block_units(part: Part, original: Part):
    if part.kernels:
        yield part.inputs, part.outputs, original.outputs, part.kernels


def _learn(
    network: QuantizableModel,
    layers: list[keras.layers.Layer],
    inputs: np.ndarray,
    targets: np.ndarray,
    pass_bits: tuple[int, int],
    settings: RoundingSettings,
    number: int,
) -> Reconstruction:
    roundings = [SoftRounding(layer) for layer in layers]
    logits = [rounding.logits for rounding in roundings]
    optimizer = keras.optimizers.Adam(settings.learning_rate)
    optimizer.build(logits)
    xs, ys = tf.constant(inputs), tf.constant(targets)
    size_of_targets = np.sum(np.square(targets, dtype=np.float64))
    power = max(size_of_targets / targets.size, _SMALLEST)

    def outputs(x: tf.Tensor, kernels: list[tf.Tensor]) -> tf.Tensor:
        precision = Precision(*pass_bits, shared={})
        for layer, kernel in zip(layers, kernels, strict=True):
            precision.provide(layer, kernel)
        return network(x, precision=precision, training=False)

    def learn(xs: tf.Tensor, ys: tf.Tensor) -> None:
        for step in tf.range(settings.iterations):
            drawn = _drawn_images(len(inputs), settings, number, step)
            strength, exponent = regularizer_at(step, settings)
            with tf.GradientTape() as tape:
                shares = [rounding.shares() for rounding in roundings]
                kernels = [r.kernel(h) for r, h in zip(roundings, shares, strict=True)]
                found = outputs(tf.gather(xs, drawn), kernels)
                squared = tf.square(tf.cast(found - tf.gather(ys, drawn), shares[0].dtype))
                loss = tf.reduce_mean(tf.reduce_sum(squared, -1)) / power
                for h in shares:
                    regularizer = undecided(h, tf.cast(exponent, h.dtype))
                    loss += tf.cast(strength, h.dtype) * regularizer
            optimizer.apply(tape.gradient(loss, [v.value for v in logits]), logits)

    # Arguments, since TensorFlow keeps what a trace captures; behind `partial`, or it would take
    # the traces of several layers for those of one.
    tf.function(functools.partial(learn))(xs, ys)

    def error(kernels: list[tf.Tensor]) -> float:
        size = max(settings.batch_size, 256)
        starts = range(0, len(inputs), size)
        found = [outputs(xs[s : s + size], kernels).numpy() for s in starts]
        squared = np.sum(np.square(np.concatenate(found).astype(np.float64) - targets))
        return float(squared / max(size_of_targets, _SMALLEST))

    precision = Precision(*pass_bits)
    nearest = [layer.quantized_kernel(precision) for layer in layers]
    learned = [rounding.rounded() for rounding in roundings]
    errors = error(nearest), error(learned)
    kept = learned if errors[1] < errors[0] else nearest
    for layer, kernel in zip(layers, kept, strict=True):
        layer.kernel.assign(kernel)
    return Reconstruction("+".join(layer.name for layer in layers), errors[0], min(errors))


def _drawn_images(
    count: int, settings: RoundingSettings, number: int, step: tf.Tensor
) -> tf.Tensor:
    seed = tf.random.experimental.stateless_fold_in([settings.seed, number], step, alg=GENERATOR)
    return tf.random.stateless_uniform(
        [settings.batch_size], seed, maxval=count, dtype=tf.int32, alg=GENERATOR
    )
