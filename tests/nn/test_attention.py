"""Where policies put quantizers in a Vision Transformer, and in attention made of operations."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers, ops

from tfcq.backbones.vision_transformer import vision_transformer
from tfcq.errors import UserError
from tfcq.nn.attention import AttendedValues, AttentionProbabilities
from tfcq.nn.layers import QuantizedDense
from tfcq.nn.placement import place, read_graph
from tfcq.nn.quantizable import QuantizableModel, quantizable
from tfcq.quantization.precision import Precision
from tfcq.settings.policies import DRAWN, INT8, PAPER, UNIFORM

SHAPE = (4, 6, 3)
BLOCKS = (1, 2)
KERNELS = {"patch_projection"} | {
    f"block{block}_{part}"
    for block in BLOCKS
    for part in (
        "attention_queries", "attention_keys", "attention_values", "attention_projection",
        "mlp_dense1", "mlp_dense2",
    )
}  # fmt: skip
# What matrix products read: queries, keys and values read the norm's output, then each is read
# itself, as are the probabilities and what the heads make of the values; the perceptron's dense
# layers read a norm and a GELU. Scores go into the softmax as they are.
OPERANDS = {
    f"block{block}_{part}"
    for block in BLOCKS
    for part in (
        "attention_norm", "attention_queries", "attention_keys", "attention_values",
        "attention_probabilities", "attention_heads", "mlp_norm", "mlp_dense1",
    )
}  # fmt: skip
# Patches plus positions are a sum as much as a residual one is.
SUMS = {"tokens"} | {
    f"block{block}_{part}_add" for block in BLOCKS for part in ("attention", "mlp")
}
BEFORE_SUMS = {"patch_projection"} | {
    f"block{block}_{part}" for block in BLOCKS for part in ("attention_projection", "mlp_dense2")
}


@pytest.fixture(scope="module")
def transformer():
    keras.utils.set_random_seed(0)
    model = vision_transformer(patch_size=2, input_shape=SHAPE, heads=2, width=8, depth=2)
    # The class token starts at zero nearly, and attention even.
    rng = np.random.default_rng(0)
    model.set_weights([2 * w + 0.5 * rng.normal(size=w.shape) for w in model.get_weights()])
    return model


@pytest.fixture(scope="module")
def images():
    return tf.random.stateless_uniform([3, *SHAPE], [1, 2])


def placed(model, policy):
    return place(read_graph(model.get_config()), policy)


def test_paper_policy_quantizes_what_matrix_products_read_and_sums(transformer):
    placement = placed(transformer, PAPER)
    assert placement.kernels == dict.fromkeys(KERNELS, DRAWN) | {"patch_projection": 8}
    assert placement.outputs == dict.fromkeys(OPERANDS | SUMS, DRAWN)


def test_other_policies_also_quantize_what_goes_into_a_sum(transformer):
    placement = placed(transformer, UNIFORM)
    assert placement.kernels == dict.fromkeys(KERNELS, DRAWN)
    assert placement.outputs == dict.fromkeys(OPERANDS | SUMS | BEFORE_SUMS, DRAWN)
    first = {"patch_projection": 8}
    assert placed(transformer, INT8).outputs == placement.outputs | first


def test_each_matrix_product_reads_few_levels_in_a_quantized_pass(transformer, images):
    model = quantizable(transformer, "paper")
    products = [
        layer
        for layer in model.layers
        if isinstance(layer, (QuantizedDense, AttentionProbabilities, AttendedValues))
    ]
    # Per block six dense layers of one operand each, and two products of two.
    operands = [tensor for layer in products for tensor in keras.tree.flatten(layer.input)]
    assert len(operands) == 2 * (6 + 2 * 2)
    probe = QuantizableModel(model.inputs, [*operands, model.get_layer("features").output])
    *tensors, features = probe(images, precision=Precision(2, 2, ranges="tensor"))
    for tensor in tensors:
        assert 2 <= len(np.unique(tensor)) <= 4
    assert len(np.unique(features)) > 4


def test_weights_of_every_product_with_weights_are_quantized(transformer, images):
    overrides = dict.fromkeys(KERNELS - {"patch_projection"}, "2w") | {"*": "fp"}
    model = quantizable(transformer, overrides=overrides)
    quantized = model(images, precision=Precision(8, 8))
    rounded = keras.models.clone_model(transformer)
    rounded.set_weights(transformer.get_weights())
    for name in overrides.keys() - {"*"}:
        layer = model.get_layer(name)
        rounded.get_layer(name).kernel.assign(
            layer.weight_quantizer(layer.kernel.value, 8, layer.kernel_axes)
        )
    np.testing.assert_allclose(quantized, rounded(images), rtol=1e-5, atol=1e-6)
    assert np.abs(quantized - transformer(images)).max() > 0.1


def attention_of_operations(mask=None):
    inputs = keras.Input((5, 4))
    x = layers.Dense(4, name="embedding")(inputs)
    x = layers.LayerNormalization(name="norm")(x)
    qkv = layers.Dense(12, name="qkv")(x)
    qkv = ops.transpose(ops.reshape(qkv, (-1, 5, 3, 2, 2)), (2, 0, 3, 1, 4))
    queries, keys, values = qkv[0], qkv[1], qkv[2]
    scores = ops.matmul(queries, ops.swapaxes(keys, -1, -2)) / 2**0.5
    heads = ops.matmul(ops.softmax(scores if mask is None else scores + mask), values)
    heads = ops.reshape(ops.moveaxis(heads, 1, 2), (-1, 5, 4))
    return keras.Model(inputs, layers.Dense(3, name="last")(heads))


def kinds(model, names):
    by_name = {operation.name: type(operation).__name__ for operation in model.operations}
    return sorted(name if by_name[name] == "Dense" else by_name[name] for name in names)


def test_attention_of_operations_is_placed_like_that_of_layers():
    model = attention_of_operations()
    # One matrix product of two: the other's result are scores.
    expected = ["LayerNormalization", "Matmul", "Softmax", "embedding", "qkv"]
    assert kinds(model, placed(model, UNIFORM).outputs) == expected
    copy = quantizable(model, "uniform")
    inputs = tf.random.stateless_normal([2, 5, 4], [1, 2])
    np.testing.assert_array_equal(copy(inputs), model(inputs))
    exact, rough = (
        copy(inputs, precision=Precision(bits, bits, ranges="tensor")) for bits in (16, 2)
    )
    np.testing.assert_allclose(exact, model(inputs), atol=1e-2)
    assert np.abs(rough - model(inputs)).max() > 0.1


def test_product_of_two_tensors_before_a_softmax_is_no_scaling():
    inputs = keras.Input((4,))
    left, right = layers.Dense(4, name="left")(inputs), layers.Dense(4, name="right")(inputs)
    gated = layers.Softmax(name="softmax")(layers.Multiply(name="gate")([left, right]))
    halved = layers.Softmax()(layers.Rescaling(0.5, name="half")(layers.Dense(4, name="d")(inputs)))
    model = keras.Model(inputs, [gated, halved])
    assert set(placed(model, UNIFORM).outputs) == {"left", "right"}


def test_pieces_of_a_tensor_keep_its_grid():
    inputs = keras.Input((6, 4))
    x = layers.Dense(4, activation="relu", name="first")(inputs)
    left, right = ops.split(layers.Cropping1D(1)(x), 2, axis=-1)
    x = layers.Dense(2, name="second")(left) + layers.Dense(2, name="third")(right)
    outputs = placed(keras.Model(inputs, ops.unstack(x, axis=1)[0]), PAPER).outputs
    assert {name for name in outputs if not name.startswith("add")} == {"first"}
    assert len(outputs) == 2


def test_multi_head_attention_in_one_layer_is_refused_by_name():
    inputs = keras.Input((5, 4))
    x = layers.MultiHeadAttention(2, 2, name="mha")(inputs, inputs)
    with pytest.raises(UserError, match=r"'mha' \(MultiHeadAttention\) holds a kernel"):
        quantizable(keras.Model(inputs, x))
