"""Layer norms and attention in integers: the float pass is the model's, the form is the file's."""

import keras
import numpy as np
import pytest

from tests.integer.conftest import share_of_equal_steps
from tfcq.backbones.vision_transformer import vision_transformer
from tfcq.integer.folded import folded
from tfcq.integer.form import deployable
from tfcq.integer.layers import ConstantSum, Rsqrt
from tfcq.integer.writing import written
from tfcq.nn.calibration import calibrate
from tfcq.nn.layers import QUANTIZED_COUNTERPARTS
from tfcq.quantization.precision import Precision
from tfcq.settings.bitwidths import BitWidth


def with_random_weights(model):
    rng = np.random.default_rng(0)
    for layer in model.layers:
        if isinstance(layer, keras.layers.LayerNormalization):
            layer.set_weights([rng.uniform(0.5, 1.5, w.shape) for w in layer.get_weights()])
    return model


@pytest.fixture(scope="module")
def transformer():
    keras.utils.set_random_seed(0)
    model = vision_transformer("tiny", 2, (8, 8, 1), heads=2, width=16, depth=1)
    return with_random_weights(model)


def test_the_float_pass_of_a_transformers_form_is_the_models(transformer, images):
    form = deployable(transformer)
    np.testing.assert_allclose(form(images), transformer(images), rtol=1e-4, atol=1e-5)


def test_a_transformers_form_is_its_file(transformer, images):
    assert share_of_equal_steps(transformer, images) >= 0.98


def test_a_transformer_keeps_its_features_in_integers(transformer, images):
    form = deployable(transformer)
    calibrate(form, images)
    found = np.asarray(form(images, precision=Precision(8, 8)))
    expected = np.asarray(transformer(images))
    products = np.sum(found * expected, axis=1)
    cosine = products / np.linalg.norm(found, axis=1) / np.linalg.norm(expected, axis=1)
    assert cosine.min() > 0.99


@pytest.mark.parametrize("epsilon", [1e-6, 1e-3, 1.0])
@pytest.mark.parametrize("center", [True, False])
@pytest.mark.parametrize("shape", [(8, 8, 1), (8, 8)])
def test_a_layer_norm_of_maps_and_of_tokens(shape, center, epsilon, images):
    images = images.reshape(-1, *shape)
    inputs = keras.Input(shape)
    kernel = keras.layers.Conv2D(6, 3) if len(shape) == 3 else keras.layers.Dense(6)
    x = kernel(inputs)
    x = keras.layers.LayerNormalization(epsilon=epsilon, center=center)(x)
    model = with_random_weights(keras.Model(inputs, x))
    np.testing.assert_allclose(folded(model).model(images), model(images), rtol=1e-4, atol=1e-5)
    assert share_of_equal_steps(model, images) >= 0.98


def test_a_vector_that_does_not_vary_is_normalized_to_its_shift(images):
    inputs = keras.Input((8, 8, 1))
    x = keras.layers.Conv2D(4, 1, use_bias=False)(inputs)
    x = keras.layers.LayerNormalization(epsilon=1e-6)(x)
    model = keras.Model(inputs, x)
    images = images * (images > 0.5)
    form = deployable(model)
    calibrate(form, images)
    black = np.asarray(images)[..., 0] == 0
    assert np.all(np.asarray(form(images, precision=Precision(8, 8)))[black] == 0)
    assert share_of_equal_steps(model, images) >= 0.98


def test_epsilon_in_integers_is_a_whole_number_of_steps():
    layer = Rsqrt(0.26)
    layer.input_scale = lambda precision: np.float32(0.1)
    values = np.array([0.1, 0.5, 25.4], np.float32)
    found = layer(values, precision=Precision(8, 8))
    np.testing.assert_allclose(found, 1 / np.sqrt([0.4, 0.8, 25.5]), rtol=1e-6)
    np.testing.assert_allclose(layer(values), 1 / np.sqrt(values + 0.26), rtol=1e-6)
    assert layer.steps(np.float32(0.1)) == 3


def test_constants_are_on_a_grid_of_eight_bits_in_quantized_passes():
    layer = ConstantSum()
    layer.build((None, 3))
    layer.constant.assign([1.27, 0.014, -0.5])
    zeros = np.zeros((1, 3), np.float32)
    np.testing.assert_allclose(layer(zeros), [[1.27, 0.014, -0.5]])
    np.testing.assert_allclose(layer(zeros, precision=Precision(2, 8)), [[1.27, 0.01, -0.5]])
    levels, scale = layer.levels()
    assert levels.tolist() == [127, 1, -50] and scale == pytest.approx(0.01)


def test_second_factors_of_products_have_no_zero_point(transformer, images):
    form = deployable(transformer)
    calibrate(form, images)
    file = written(form, BitWidth(8, 8))
    products = [one for one in file.operations if one.kind == "BATCH_MATMUL"]
    assert len(products) == 2 + 3
    assert all(file.tensors[one.inputs[1]].zero_point == 0 for one in products)


def test_every_bias_behind_a_norm_or_attention_is_a_whole_number(transformer):
    form = deployable(transformer)
    kernels = [one for one in form.layers if type(one) in QUANTIZED_COUNTERPARTS.values()]
    assert len(kernels) > 6 and all(one.input_scale is not None for one in kernels)
