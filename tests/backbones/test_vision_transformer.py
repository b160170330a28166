"""Sizes and arithmetic of our Vision Transformers."""

import math

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfcq.backbones.vision_transformer import vision_transformer
from tfcq.errors import UserError
from tfcq.nn.attention import (
    AttendedValues,
    AttentionProbabilities,
    TokenEmbedding,
    sine_cosine_positions,
)


def build(*arguments, **settings):
    with keras.StatelessScope():
        return vision_transformer(*arguments, **settings)


def tiny(**settings):
    defaults = {"patch_size": 2, "input_shape": (4, 6, 3), "heads": 2, "width": 8, "depth": 2}
    return vision_transformer(**{**defaults, **settings})


# DeiT's models have 5,717,416 and 22,050,664 parameters with a classifier of 1000 classes. They
# count position embeddings, 197 tokens, which are no weights here.
@pytest.mark.parametrize(
    ("size", "width", "heads", "with_classifier"),
    [("tiny", 192, 3, 5_717_416), ("small", 384, 12, 22_050_664)],
)
def test_parameters_are_those_of_the_papers(size, width, heads, with_classifier):
    model = build(size)
    published = with_classifier - (width * 1000 + 1000)
    assert model.count_params() + 197 * width == published
    assert model.output_shape == (None, width)
    assert model.get_layer("block12_attention_probabilities").output.shape == (
        None, heads, 197, 197,
    )  # fmt: skip


def test_frozen_patch_projection_is_no_trainable_weight():
    model, frozen = tiny(), tiny(frozen_patch_projection=True)
    assert frozen.count_params() == model.count_params()
    assert len(model.trainable_weights) - len(frozen.trainable_weights) == 2
    assert [w.path for w in frozen.non_trainable_weights] == [
        "patch_projection/kernel",
        "patch_projection/bias",
    ]


@pytest.mark.parametrize(
    ("size", "patch_size"),
    [(384, 16), (224, 16), (112, 16), (96, 8), (64, 8), (32, 4), (28, 4), (8, 1), (4, 1)],
)
def test_patch_size_follows_the_image_size(size, patch_size):
    model = build(input_shape=(size, 2 * size, 1), width=4, heads=1, depth=1)
    assert model.get_layer("patch_projection").kernel_size == (patch_size, patch_size)


def test_positions_are_sines_and_cosines_of_column_and_row():
    rows, columns, width = 2, 3, 8
    positions = sine_cosine_positions(rows, columns, width)
    assert positions.shape == (rows * columns, width)
    for y in range(rows):
        for x in range(columns):
            slow = 10000 ** (-1 / 2)
            expected = [
                math.sin(x), math.sin(x * slow), math.cos(x), math.cos(x * slow),
                math.sin(y), math.sin(y * slow), math.cos(y), math.cos(y * slow),
            ]  # fmt: skip
            np.testing.assert_allclose(positions[y * columns + x], expected, rtol=1e-12)


def test_tokens_are_the_class_token_and_the_patches_in_reading_order_with_positions():
    patches = np.random.default_rng(0).normal(size=(2, 2, 3, 4)).astype(np.float32)
    layer = TokenEmbedding()
    layer.build(patches.shape)
    layer.class_token.assign([1.0, 2.0, 3.0, 4.0])
    tokens = layer(patches).numpy()
    assert tokens.shape == layer.compute_output_shape(patches.shape) == (2, 7, 4)
    assert tokens[:, 0].tolist() == [[1, 2, 3, 4]] * 2
    positions = sine_cosine_positions(2, 3, 4)
    for y in range(2):
        for x in range(3):
            index = 3 * y + x
            expected = patches[:, y, x] + positions[index]
            np.testing.assert_allclose(tokens[:, 1 + index], expected, rtol=1e-6)


def test_attention_is_that_of_a_loop_over_heads_and_tokens():
    queries, keys, values = np.random.default_rng(0).normal(size=(3, 2, 5, 6)).astype(np.float32)
    probabilities = AttentionProbabilities(3)(queries, keys)
    results = AttendedValues(3)(probabilities, values)
    for image in range(2):
        for head in range(3):
            part = slice(2 * head, 2 * head + 2)
            for token in range(5):
                scores = [
                    math.exp(queries[image, token, part] @ keys[image, other, part] / math.sqrt(2))
                    for other in range(5)
                ]
                weights = np.array(scores) / sum(scores)
                np.testing.assert_allclose(
                    probabilities[image, head, token], weights, rtol=1e-5, atol=1e-7
                )
                expected = sum(w * values[image, i, part] for i, w in enumerate(weights))
                np.testing.assert_allclose(
                    results[image, token, part], expected, rtol=1e-4, atol=1e-6
                )


def normalized(x, gamma, beta):
    centred = x - x.mean(-1, keepdims=True)
    return centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-6) * gamma + beta


def by_hand(model, image, patch_size, heads, depth):
    """Returns the features of one image, from the model's weights in NumPy."""
    rows, columns = (side // patch_size for side in image.shape[:2])
    w = {weight.path: weight.numpy() for weight in model.weights}

    def dense(x, name):
        return x @ w[f"{name}/kernel"] + w[f"{name}/bias"]

    def norm(x, name):
        return normalized(x, w[f"{name}/gamma"], w[f"{name}/beta"])

    kernel = w["patch_projection/kernel"]
    patches = image.reshape(rows, patch_size, columns, patch_size, -1)
    x = np.einsum("ypxqc,pqcw->yxw", patches, kernel).reshape(rows * columns, -1)
    x = x + w["patch_projection/bias"] + sine_cosine_positions(rows, columns, x.shape[-1])
    x = np.concatenate([w["tokens/class_token"][np.newaxis], x])
    for block in range(1, depth + 1):
        name = f"block{block}_attention"
        y = norm(x, f"{name}_norm")
        q, k, v = (
            np.split(dense(y, f"{name}_{part}"), heads, axis=1)
            for part in ("queries", "keys", "values")
        )
        scores = [np.exp(q[h] @ k[h].T / math.sqrt(q[h].shape[1])) for h in range(heads)]
        y = np.concatenate([s / s.sum(1, keepdims=True) @ v[h] for h, s in enumerate(scores)], 1)
        x = x + dense(y, f"{name}_projection")
        name = f"block{block}_mlp"
        y = dense(norm(x, f"{name}_norm"), f"{name}_dense1")
        y = y * 0.5 * (1 + np.vectorize(math.erf)(y / math.sqrt(2)))
        x = x + dense(y, f"{name}_dense2")
    return norm(x[0], "features")


def test_features_are_those_of_the_formulas(float64):
    model = tiny()
    rng = np.random.default_rng(0)
    model.set_weights([rng.normal(0, 0.5, w.shape) for w in model.weights])
    images = rng.random((3, 4, 6, 3))
    expected = [by_hand(model, image, 2, 2, 2) for image in images]
    # TensorFlow rounds the root of 2 in GELU to float32.
    np.testing.assert_allclose(model(images), expected, rtol=1e-6, atol=1e-8)


def test_mixed_precision_keeps_weights_in_float32(dtype_policy):
    dtype_policy("mixed_float16")
    model = tiny()
    assert model(tf.ones([1, 4, 6, 3])).dtype == tf.float16
    assert {weight.dtype for weight in model.weights} == {"float32"}


def test_initial_weights_are_those_of_moco_v3():
    keras.utils.set_random_seed(0)
    model = tiny(width=64, depth=1, patch_size=4, input_shape=(8, 8, 3))
    bounds = {
        "patch_projection": 6 / (3 * 4 * 4 + 64),
        "block1_attention_queries": 6 / (64 + 64),
        "block1_attention_keys": 6 / (64 + 64),
        "block1_mlp_dense1": 6 / (64 + 256),
    }
    for name, square in bounds.items():
        kernel, bias = model.get_layer(name).get_weights()
        assert 0.95 * math.sqrt(square) < np.abs(kernel).max() <= math.sqrt(square)
        np.testing.assert_allclose(kernel.std(), math.sqrt(square / 3), rtol=0.05)
        assert not bias.any()
    token = model.get_layer("tokens").class_token.numpy()
    assert 0 < np.abs(token).max() < 1e-5
    queries, keys = (model.get_layer(name).kernel for name in list(bounds)[1:3])
    assert np.all(queries.numpy() != keys.numpy())


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"size": "smal"}, "Did you mean 'small'"),
        ({"input_shape": (30, 33, 3), "patch_size": 4},
         "30 x 33 pixels .*multiples of 4. The nearest size is 32 x 32"),
        ({"input_shape": (None, None, 3)}, r"\(None, None, 3\) .*a fixed height and width"),
        ({"patch_size": 0}, "Patch size 0 .*The nearest is 1"),
        ({"width": 64}, "Width 64 .*12 heads .*multiples of 12. The nearest is 60"),
        ({"width": 6, "heads": 2}, "Width 6 .*multiples of 4. The nearest is 8"),
        ({"width": 0, "heads": 2}, "Width 0 .*The nearest is 4"),
        ({"heads": 0}, "0 heads .*The nearest is 1"),
        ({"depth": 0}, "Depth 0 .*The nearest is 1"),
    ],
)  # fmt: skip
def test_bad_arguments_name_the_nearest(settings, text):
    with pytest.raises(UserError, match=text):
        vision_transformer(**settings)


def test_positions_of_a_width_that_is_no_multiple_of_4_are_refused():
    with pytest.raises(UserError, match="width 6 .*multiples of 4. The nearest is 8"):
        sine_cosine_positions(2, 2, 6)
