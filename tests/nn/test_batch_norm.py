"""The fused batch norm against Keras's."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfcq.nn import batch_norm
from tfcq.nn.quantizable import quantizable

SHAPES = [(5, 4, 3, 6), (16, 6), (4, 7, 6), (9, 1, 1, 6)]


def pair(**settings):
    """Returns Keras's layer and ours with equal weights."""
    made = []
    for kind in (keras.layers.BatchNormalization, batch_norm.BatchNormalization):
        layer = kind(
            momentum=0.9,
            epsilon=1e-5,
            moving_mean_initializer=keras.initializers.RandomNormal(seed=1),
            moving_variance_initializer=keras.initializers.RandomUniform(0.5, 2, seed=2),
            **settings,
        )
        if layer.center:
            layer.beta_initializer = keras.initializers.RandomNormal(seed=3)
        if layer.scale:
            layer.gamma_initializer = keras.initializers.RandomUniform(0.5, 2, seed=4)
        made.append(layer)
    return made


def step(layer, inputs, **arguments):
    """Returns output, gradients and running statistics of a training pass."""
    upstream = tf.random.stateless_normal(inputs.shape, (0, 1), dtype=inputs.dtype)

    @tf.function
    def taken(inputs):
        with tf.GradientTape() as tape:
            tape.watch(inputs)
            outputs = layer(inputs, training=True, **arguments)
        watched = [inputs, *layer.trainable_variables]
        return outputs, tape.gradient(outputs, watched, upstream)

    outputs, gradients = taken(inputs)
    operations = [o.type for o in taken.get_concrete_function(inputs).graph.get_operations()]
    found = {"outputs": outputs, "inputs": gradients[0]}
    named = zip(layer.trainable_variables, gradients[1:], strict=True)
    found |= {f"to {variable.name}": gradient for variable, gradient in named}
    found |= {variable.name: variable.value for variable in layer.non_trainable_variables}
    return found, "FusedBatchNormV3" in operations


@pytest.mark.parametrize("settings", [{}, {"scale": False}, {"center": False}], ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_a_training_pass_is_that_of_keras_by_the_fused_operation(shape, settings):
    inputs = 3 + 2 * tf.random.stateless_normal(shape, (0, 0))
    (expected, plain), (found, fused) = (step(layer, inputs) for layer in pair(**settings))
    assert fused and not plain and found.keys() == expected.keys()
    for name, value in expected.items():
        scale = max(np.abs(value).max(), 1e-3)
        np.testing.assert_allclose(found[name] / scale, value / scale, atol=1e-5, err_msg=name)


@pytest.mark.parametrize(
    ("settings", "dtype"),
    [({"dtype": "float64"}, "float64"), ({"axis": 1}, "float32"), ({"renorm": True}, "float32"),
     ({"synchronized": True}, "float32"), ({"trainable": False}, "float32")],
    ids=str,
)  # fmt: skip
def test_what_the_operation_lacks_stays_with_keras(settings, dtype):
    inputs = 3 + 2 * tf.random.stateless_normal((5, 4, 3, 6), (0, 0), dtype=dtype)
    (expected, _), (found, fused) = (step(layer, inputs) for layer in pair(**settings))
    assert not fused
    for name, value in expected.items():
        np.testing.assert_array_equal(found[name], value, err_msg=name)


def test_masked_values_do_not_count():
    inputs, mask = tf.random.stateless_normal((3, 4, 6), (0, 0)), np.arange(12).reshape(3, 4) > 5
    (expected, _), (found, fused) = (step(layer, inputs, mask=mask) for layer in pair())
    assert not fused
    np.testing.assert_array_equal(found["outputs"], expected["outputs"])


def test_inference_is_that_of_keras_to_the_last_bit():
    inputs = tf.random.stateless_normal((5, 4, 3, 6), (0, 0))
    plain, fused = (layer(inputs) for layer in pair())
    np.testing.assert_array_equal(plain, fused)


def test_half_precision_keeps_statistics_in_single():
    inputs = 3 + tf.random.stateless_normal((64, 8, 8, 6), (0, 0))
    layer = pair(dtype="mixed_bfloat16")[1]
    found, fused = step(layer, tf.cast(inputs, tf.bfloat16))
    expected, _ = step(pair()[0], inputs)
    assert fused and found["outputs"].dtype == tf.bfloat16
    for name in ("moving_mean", "moving_variance"):
        assert found[name].dtype == tf.float32
        np.testing.assert_allclose(found[name], expected[name], rtol=1e-2)


def test_quantizable_models_train_by_it():
    inputs = keras.Input((8, 8, 1))
    x = keras.layers.Conv2D(2, 3, name="conv")(inputs)
    model = keras.Model(inputs, keras.layers.BatchNormalization(name="norm")(x))
    assert type(quantizable(model).get_layer("norm")) is batch_norm.BatchNormalization
