"""Each kind of operation in a file computes what the integer form computes."""

import keras
import numpy as np
import pytest
from keras import layers, ops

from tests.integer.conftest import randomize_norms, share_of_equal_steps
from tfcq.integer.folded import folded
from tfcq.integer.form import deployable
from tfcq.integer.writers import integers
from tfcq.integer.writing import written
from tfcq.nn.calibration import calibrate
from tfcq.nn.layers import QUANTIZED_COUNTERPARTS
from tfcq.quantization.precision import Precision
from tfcq.settings.bitwidths import BitWidth

FUNCTIONS = [
    "elu", "gelu", "silu", "hard_silu", "hard_sigmoid", "sigmoid", "tanh", "softmax", "relu",
    "relu6", "leaky_relu",
]  # fmt: skip
OPERATIONS = {
    **{name: layers.Activation(name) for name in FUNCTIONS},
    "gelu of a tangent": ops.gelu,
    "a slope above one": layers.LeakyReLU(1.5),
    "no slope": layers.LeakyReLU(0.0),
    "leaky operation": lambda x: ops.leaky_relu(x, 0.1),
    "slopes of channels": layers.PReLU(shared_axes=(1, 2), alpha_initializer="uniform"),
    "a sum with its own ReLU": lambda x: x + ops.relu(x),
    "parts on several grids": lambda x: ops.concatenate([x, ops.relu(x), ops.tanh(x)], axis=-1),
    "a part that ends at one": lambda x: ops.concatenate([layers.ReLU(1.0)(x), x], axis=-1),
    "a difference": lambda x: layers.Subtract()([x, layers.Conv2D(6, 1)(x)]),
    "a mean with axes": lambda x: ops.squeeze(ops.expand_dims(ops.mean(x, (1, 2)), 1), 1),
    "axes from behind": lambda x: ops.transpose(layers.Reshape((36, 6))(x), (0, -1, 1)),
    "dense layers of maps": layers.Dense(5, activation="gelu"),
    "a squeeze and an excitation": lambda x: x * layers.Conv2D(6, 1, activation="hard_sigmoid")(
        layers.GlobalAveragePooling2D(keepdims=True)(x)
    ),
    "a sequence, cropped": lambda x: layers.Cropping1D((1, 2))(layers.Reshape((36, 6))(x)),
}  # fmt: skip


def network_with(operation):
    keras.utils.set_random_seed(0)
    inputs = keras.Input((8, 8, 1))
    x = layers.Conv2D(6, 3, bias_initializer="normal")(inputs)
    return keras.Model(inputs, operation(x))


@pytest.mark.parametrize("name", OPERATIONS)
def test_an_operation_computes_the_same_in_form_and_file(name, images):
    model = network_with(OPERATIONS[name])
    np.testing.assert_allclose(folded(model).model(images), model(images), rtol=1e-4, atol=1e-5)
    assert share_of_equal_steps(model, images) >= 0.98


def test_a_network_of_hard_swishes_and_squeezes_is_its_file():
    keras.utils.set_random_seed(0)
    inputs = keras.Input((16, 16, 3))
    x = inputs
    for width in (8, 12, 12):
        x = layers.Conv2D(width, 3, strides=2, padding="same", use_bias=False)(x)
        x = layers.Activation("hard_silu")(layers.BatchNormalization()(x))
        gate = layers.GlobalAveragePooling2D(keepdims=True)(x)
        x = x * layers.Conv2D(width, 1, activation="hard_sigmoid")(gate)
    model = keras.Model(inputs, layers.GlobalAveragePooling2D()(x))
    randomize_norms(model)
    images = np.random.default_rng(0).integers(0, 256, (64, 16, 16, 3)).astype(np.float32) / 255
    assert share_of_equal_steps(model, images) >= 0.98


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_integers_of_a_file_are_those_of_the_quantized_pass(network, images, bits):
    form = deployable(network)
    calibrate(form, images)
    tensors = {one.name: one for one in written(form, BitWidth(bits, 8)).file.tensors}
    kernels = [one for one in form.layers if type(one) in QUANTIZED_COUNTERPARTS.values()]
    assert len(kernels) > 8
    for layer in kernels:
        levels, scales, bias = integers(layer, Precision(bits, 8))
        held = tensors[f"{layer.name}/kernel"]
        np.testing.assert_array_equal(np.moveaxis(held.data, 0, -1), levels)
        np.testing.assert_allclose(
            levels * scales, layer.quantized_kernel(Precision(bits, 8)), rtol=1e-5, atol=1e-7
        )
        np.testing.assert_array_equal(tensors[f"{layer.name}/bias"].data, bias)
