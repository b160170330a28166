"""Quantizers against float64 vectors of the SSQL authors' code."""

import numpy as np
import pytest
import tensorflow as tf

from tfcq.quantization import ops
from tfcq.quantization.minmax import MinMaxActivationQuantizer, MinMaxWeightQuantizer

TOLERANCE = 1e-9
CHANNEL_AXES = [0, 1, 2]
WEIGHT_BITS = range(2, 9)
ACTIVATION_BITS = range(2, 17)


@pytest.fixture
def vectors(reference):
    return reference("quantizer_vectors")


def quantized_weights(x, dy, bits):
    """Returns y, dx, scale; the vectors hold the scale constant."""
    quantizer = MinMaxWeightQuantizer(detach_scale=True)
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = quantizer(x, bits, CHANNEL_AXES)
    return y, tape.gradient(y, x, dy), ops.symmetric_scale(x, bits, CHANNEL_AXES)


def quantized_activations(x, dy, bits):
    """Returns y, dx, scale, zero point."""
    quantizer = MinMaxActivationQuantizer()
    with tf.GradientTape() as tape:
        tape.watch(x)
        ends = tf.reduce_min(x), tf.reduce_max(x)
        y = quantizer(x, bits, ends=ends)
    return y, tape.gradient(y, x, dy), *quantizer.parameters(bits, *ends)[:2]


def assert_matches(ours, theirs):
    ours = np.asarray(ours)
    assert ours.dtype == np.float64
    assert np.max(np.abs(ours.reshape(theirs.shape) - theirs)) < TOLERANCE


def check_weights(results, vectors, bits):
    case = f"weight/symmetric_per_channel/{bits}"
    for ours, name in zip(results, ("y", "dx", "scale"), strict=True):
        assert_matches(ours, vectors[f"{case}/{name}"])
    assert not np.any(vectors[f"{case}/zero_point"])


def check_activations(results, vectors, kind, bits):
    case = f"{kind}/asymmetric_per_tensor/{bits}"
    for ours, name in zip(results, ("y", "dx", "scale", "zero_point"), strict=True):
        assert_matches(ours, vectors[f"{case}/{name}"])


@pytest.mark.parametrize("bits", WEIGHT_BITS)
def test_weights_match_authors_code(vectors, bits):
    x, dy = tf.constant(vectors["weight/x"]), vectors["weight/dy"]
    check_weights(quantized_weights(x, dy, bits), vectors, bits)


@pytest.mark.parametrize("kind", ["activation_relu", "activation_signed"])
@pytest.mark.parametrize("bits", ACTIVATION_BITS)
def test_activations_match_authors_code(vectors, kind, bits):
    x, dy = tf.constant(vectors[f"{kind}/x"]), vectors[f"{kind}/dy"]
    check_activations(quantized_activations(x, dy, bits), vectors, kind, bits)


def test_graph_mode_matches_authors_code_at_fixed_bits(vectors):
    # Bits that are Python numbers tempt graph optimization to fold the scale's division.
    @tf.function
    def weights(x, dy):
        return [quantized_weights(x, dy, bits) for bits in WEIGHT_BITS]

    @tf.function
    def activations(x, dy):
        return [quantized_activations(x, dy, bits) for bits in WEIGHT_BITS]

    weight = [tf.constant(vectors[f"weight/{name}"]) for name in ("x", "dy")]
    for bits, results in zip(WEIGHT_BITS, weights(*weight), strict=True):
        check_weights(results, vectors, bits)
    signed = [tf.constant(vectors[f"activation_signed/{name}"]) for name in ("x", "dy")]
    for bits, results in zip(WEIGHT_BITS, activations(*signed), strict=True):
        check_activations(results, vectors, "activation_signed", bits)


def test_one_trace_matches_authors_code_at_every_bits_of_a_variable(vectors):
    bits, traces = tf.Variable(0, dtype=tf.int32), []

    @tf.function
    def run(weight, weight_dy, signed, signed_dy):
        traces.append(1)
        value = bits.read_value()
        return quantized_weights(weight, weight_dy, value), quantized_activations(
            signed, signed_dy, value
        )

    names = ("weight/x", "weight/dy", "activation_signed/x", "activation_signed/dy")
    inputs = [tf.constant(vectors[name]) for name in names]
    for drawn in WEIGHT_BITS:
        bits.assign(drawn)
        weights, activations = run(*inputs)
        check_weights(weights, vectors, drawn)
        check_activations(activations, vectors, "activation_signed", drawn)
    assert len(traces) == 1
