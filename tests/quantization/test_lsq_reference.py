"""LSQ against float64 vectors: step sizes, outputs and both gradients."""

import numpy as np
import pytest
import tensorflow as tf

from tfcq.nn.activation_quantizer import ActivationQuantizer
from tfcq.nn.layers import QuantizedConv2D
from tfcq.quantization.lsq import LSQActivationQuantizer, LSQWeightQuantizer
from tfcq.quantization.precision import Precision

TOLERANCE = 1e-9
BITS = [2, 3, 4, 8]


@pytest.fixture
def vectors(reference):
    return reference("lsq_vectors")


@pytest.fixture
def convolution(float64, vectors):
    layer = QuantizedConv2D(6, 3, weight_quantizer=LSQWeightQuantizer())
    layer.build((None, 8, 8, 4))
    return layer


@pytest.fixture
def activation(float64, vectors):
    layer = ActivationQuantizer(LSQActivationQuantizer())
    layer.build(vectors["activation/x"].shape)
    return layer


def results(quantize, scale, x, dy):
    """Returns y and the gradients for x and for all rows of the step sizes."""
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = quantize(x)
    return y, *tape.gradient(y, [x, scale.value], dy)


def check(layer, ours, vectors, case, bits):
    y, dx, dstep_size = (np.asarray(tensor) for tensor in ours)
    row = bits - 2
    expected = {name: vectors[f"{case}/{bits}/{name}"] for name in
                ("y", "dx", "dstep_size", "step_size_init")}  # fmt: skip
    scale = layer.learned_scale.numpy()
    received = {"y": y, "dx": dx, "dstep_size": dstep_size[row], "step_size_init": scale[row]}
    for name, theirs in expected.items():
        assert received[name].dtype == np.float64
        assert np.max(np.abs(received[name].reshape(theirs.shape) - theirs)) < TOLERANCE, name
    assert not np.any(np.delete(dstep_size, row, axis=0))


@pytest.mark.parametrize("wrap", [lambda f: f, tf.function], ids=["eager", "graph"])
@pytest.mark.parametrize("bits", BITS)
def test_weights_match_reference(convolution, vectors, bits, wrap):
    @wrap
    def run(x, dy, bits):
        return results(
            lambda x: convolution.weight_quantizer(
                x, bits, convolution.kernel_axes, learned=convolution.learned_scale
            ),
            convolution.learned_scale,
            x,
            dy,
        )

    ours = run(tf.constant(vectors["weight/x"]), tf.constant(vectors["weight/dy"]), bits)
    check(convolution, ours, vectors, "weight/lsq_per_channel", bits)


@pytest.mark.parametrize("wrap", [lambda f: f, tf.function], ids=["eager", "graph"])
@pytest.mark.parametrize("bits", BITS)
def test_activations_match_reference(activation, vectors, bits, wrap):
    @wrap
    def run(x, dy, bits):
        return results(
            lambda x: activation(x, precision=Precision(8, bits)), activation.learned_scale, x, dy
        )

    ours = run(tf.constant(vectors["activation/x"]), tf.constant(vectors["activation/dy"]), bits)
    check(activation, ours, vectors, "activation/lsq_per_tensor", bits)


def test_one_trace_matches_reference_at_every_bits_of_a_variable(activation, vectors):
    bits, traces = tf.Variable(0, dtype=tf.int32), []

    @tf.function
    def run(x, dy):
        traces.append(1)
        precision = Precision(8, bits.read_value())
        return results(
            lambda x: activation(x, precision=precision), activation.learned_scale, x, dy
        )

    x, dy = (tf.constant(vectors[f"activation/{name}"]) for name in ("x", "dy"))
    for drawn in [*BITS, *BITS]:
        bits.assign(drawn)
        check(activation, run(x, dy), vectors, "activation/lsq_per_tensor", drawn)
    assert len(traces) == 1
    unused = np.delete(activation.learned_scale.numpy(), np.array(BITS) - 2)
    assert unused.shape == (11,)
    assert not unused.any()
