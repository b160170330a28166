"""What a step cannot do without: its convolutions and matrix products, and how fast they are."""

import dataclasses
import os
import platform
import statistics
import time
from collections.abc import Callable
from typing import Any


@dataclasses.dataclass(frozen=True)
class Product:
    """A convolution, or the matrix product of a dense layer, on random values of its own.

    Args:
        layer: the layer.
        inputs: values in the place of its inputs.
        kernel: values in the place of its kernel.
        upstream: values in the place of its outputs' gradient.
        reads_images: whether nothing before it is trained, so that no gradient of its inputs is
            asked for.
    """

    layer: Any
    inputs: Any
    kernel: Any
    upstream: Any
    reads_images: bool

    def outputs(self) -> Any:
        """Returns the product of inputs and kernel."""
        return applied(self.layer, self.inputs, self.kernel)

    @property
    def flop(self) -> int:
        """Floating-point operations of one forward pass, a multiplication and an addition each."""
        from tfcq.nn.flops import flops_of_kernel

        return flops_of_kernel(self.layer, self.upstream.shape)


def applied(layer: Any, inputs: Any, kernel: Any) -> Any:
    """Returns the product of inputs and kernel as a layer makes it, quantizable or not."""
    from tfcq.nn.layers import QUANTIZED_COUNTERPARTS

    return QUANTIZED_COUNTERPARTS.get(type(layer), type(layer)).apply_kernel(layer, inputs, kernel)


def products(network: Any, batch_size: int, reads_images: bool) -> list[Product]:
    """Returns the products of a network in the order in which it makes them.

    Args:
        network: a Keras model.
        batch_size: images of a pass.
        reads_images: whether its inputs are images.
    """
    import tensorflow as tf

    from tfcq.nn.flops import product_layers

    found: list[Product] = []
    for layer in product_layers(network):
        dtype = getattr(layer, "product_dtype", None) or layer.compute_dtype

        def values(shape: Any, seed: int, dtype: str = dtype) -> Any:
            drawn = tf.random.stateless_normal(shape, (len(found), seed), alg="philox")
            return tf.cast(drawn, dtype)

        inputs = values((batch_size, *layer.input.shape[1:]), 0)
        kernel = values(layer.kernel.shape, 1)
        upstream = values(applied(layer, inputs, kernel).shape, 2)
        found.append(Product(layer, inputs, kernel, upstream, reads_images and not found))
    return found


def forward_pass(made: list[Product], start: Any) -> Any:
    """Makes products one after the other; returns a scalar that depends on all of them.

    Args:
        made: the products, at least one.
        start: a scalar, zero; TensorFlow would make passes that begin alike only once.
    """
    made = _begun(made, start)
    return _in_turn([lambda one=one: [one.outputs()] for one in made], start)


def trained_pass(made: list[Product], start: Any) -> Any:
    """Makes products one after the other, then their gradients in reverse order.

    Args:
        made: as for `forward_pass`.
        start: as for `forward_pass`.
    """
    import tensorflow as tf

    kept = []

    def forward(one: Product) -> list:
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            sources = [one.kernel] if one.reads_images else [one.inputs, one.kernel]
            tape.watch(sources)
            outputs = one.outputs()
        kept.append((tape, outputs, sources))
        return [outputs]

    def backward() -> list:
        (tape, outputs, sources), one = kept.pop(), made[len(kept)]
        return tape.gradient(outputs, sources, output_gradients=one.upstream)

    made = _begun(made, start)
    forwards = [lambda one=one: forward(one) for one in made]
    return _in_turn(forwards + [backward] * len(made), start)


def _begun(made: list[Product], start: Any) -> list[Product]:
    import tensorflow as tf

    kernel = made[0].kernel
    return [dataclasses.replace(made[0], kernel=kernel + tf.cast(start, kernel.dtype)), *made[1:]]


def _in_turn(makes: list[Callable[[], list]], total: Any) -> Any:
    import tensorflow as tf

    for make in makes:
        # As in a step, where each waits for the one before.
        with tf.control_dependencies([total]):
            made = make()
        # TensorFlow leaves out whatever nothing is read of.
        total = tf.add_n([total, *(tf.cast(tf.reshape(one, [-1])[0], tf.float32) for one in made)])
    return total


def products_of(model: Any, batch_size: int) -> tuple[list[Product], list[Product]]:
    """Returns the products of a pass that is trained, and of one that only makes targets.

    Args:
        model: a `Pretrainer`.
        batch_size: images of a pass.
    """
    projector, predictor = model.framework.projector, model.framework.predictor
    heads = [
        [] if head is None else products(head, batch_size, reads_images=False)
        for head in (projector, predictor)
    ]
    encoder = products(model.backbone, batch_size, reads_images=True) + heads[0]
    return encoder + heads[1], encoder


def floor(model: Any, batch_size: int) -> tuple[Callable[..., Any], list[Any], int]:
    """Returns what makes the products of a step alone, and how many operations they are.

    Args:
        model: a `Pretrainer`.
        batch_size: images of a step.

    Returns:
        A function for `tf.function`, in which passes may overlap as in a step; what it takes; and
        the floating-point operations.
    """
    import tensorflow as tf

    from tfcq.pretraining.costs import pass_counts

    whole, encoder = products_of(model, batch_size)
    trained, further = pass_counts(model)

    def made(*starts: Any) -> Any:
        totals = [trained_pass(whole, start) for start in starts[:trained]]
        return tf.add_n(totals + [forward_pass(encoder, start) for start in starts[trained:]])

    once = sum(one.flop * (2 if one.reads_images else 3) for one in whole)
    operations = trained * once + further * sum(one.flop for one in encoder)
    return made, [tf.zeros(())] * (trained + further), operations


def rate() -> dict[str, float]:
    """Returns how many GFLOP of a convolution a second and a CPU-second are.

    3 x 3, 64 channels to 64, 64 images of 32 x 32, float32.
    """
    import tensorflow as tf

    images, kernel = tf.zeros([64, 32, 32, 64]), tf.zeros([3, 3, 64, 64])
    clocks = (time.perf_counter, time.process_time)
    measured: list[list[float]] = []
    for _ in range(60):
        before = [clock() for clock in clocks]
        tf.nn.conv2d(images, kernel, 1, "SAME")[0, 0, 0, 0].numpy()
        measured.append([clock() - start for clock, start in zip(clocks, before, strict=True)])
    gflop = 2 * 64 * 32 * 32 * 64 * 64 * 9 / 1e9
    seconds, cpu_seconds = map(statistics.median, zip(*measured[10:], strict=True))
    return {"GFLOP/s": gflop / seconds, "GFLOP per CPU-second": gflop / cpu_seconds}


def machine() -> str:
    """Returns what the figures were measured on, and how busy it was before."""
    import tensorflow as tf

    accelerators = [
        tf.config.experimental.get_device_details(gpu).get("device_name", gpu.name)
        for gpu in tf.config.list_physical_devices("GPU")
    ]
    processor = f"{os.cpu_count()} CPU cores, {platform.machine()}"
    return f"{processor}, {', '.join(accelerators) or 'no GPU'}, load {os.getloadavg()[0]:.1f}"
