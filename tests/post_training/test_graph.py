"""Parts follow each other and compute what the model does."""

import keras
import numpy as np
import pytest
from keras import layers

from tests.post_training.networks import quantizable_network, small_images
from tfcq.backbones.resnet import resnet
from tfcq.backbones.vision_transformer import vision_transformer
from tfcq.errors import UserError
from tfcq.nn.calibration import calibrate
from tfcq.nn.quantizable import quantizable
from tfcq.post_training.graph import paired_parts, parts_of, run
from tfcq.quantization.precision import Precision


def kernels(model):
    return [[layer.name for layer in part.kernels] for part in parts_of(model)]


def through_parts(model, images, precision):
    for part in parts_of(model):
        images = run(part.until(), images, precision, 16)
    return images


@pytest.mark.parametrize("precision", [None, Precision(3, 4)])
def test_parts_one_after_the_other_are_the_model_with_a_nested_one(precision):
    model, images = quantizable_network(), small_images(20)
    calibrate(model, images)
    assert kernels(model) == [["stem"], ["first", "second"], ["classifier"]]
    np.testing.assert_allclose(
        through_parts(model, images, precision), model(images, precision=precision), atol=1e-5
    )


def test_residual_blocks_are_parts():
    model = quantizable(resnet(18, "cifar", 2, (8, 8, 1), blocks=(1, 1)))
    found = kernels(model)
    assert [len(names) for names in found] == [1, 2, 3]
    assert all(name.startswith("stage2_block1") for name in found[2])


def test_attention_and_perceptron_are_parts():
    model = quantizable(vision_transformer("tiny", 4, (8, 8, 1), heads=2, width=16, depth=2))
    images = small_images(4)
    calibrate(model, images)
    assert sum(map(len, kernels(model))) == len(
        [layer for layer in model.layers if hasattr(layer, "weight_quantizer")]
    )
    assert len(kernels(model)) >= 4
    np.testing.assert_allclose(
        through_parts(model, images, Precision(4, 4)),
        model(images, precision=Precision(4, 4)),
        atol=1e-4,
    )


def test_shared_layers_several_outputs_and_side_models_are_refused():
    inputs = keras.Input((4,))
    dense = layers.Dense(4, name="shared")
    shared = keras.Model(inputs, dense(dense(inputs)))
    with pytest.raises(UserError, match="'shared'.*called 2 times"):
        parts_of(quantizable(shared))
    two = keras.Model(inputs, [layers.Dense(2)(inputs), layers.Dense(3)(inputs)])
    with pytest.raises(UserError, match="1 inputs and 2 outputs"):
        parts_of(quantizable(two))
    inner = keras.Sequential([keras.Input((4,)), layers.Dense(4)], name="inner")
    beside = keras.Model(inputs, layers.Add()([inner(inputs), inputs]))
    with pytest.raises(UserError, match="'inner' beside another path"):
        parts_of(quantizable(beside))


def test_models_that_differ_are_not_paired():
    other = quantizable(resnet(18, "cifar", 2, (8, 8, 1), blocks=(1,)))
    with pytest.raises(UserError, match="differ at layer 'stem'"):
        paired_parts(quantizable_network(), other)
