"""Operations of a forward pass: closed forms, and the figures that networks are published with."""

import keras
import pytest
from keras import layers

import tfcq
from tfcq.backbones.resnet import resnet
from tfcq.backbones.vision_transformer import vision_transformer
from tfcq.nn.flops import forward_flops, uncounted


@pytest.mark.parametrize(("depth", "gmac"), [(18, 1.82), (50, 4.1)])
def test_operations_of_resnets_are_the_published_ones(depth, gmac):
    network = resnet(depth, width=64, stem="imagenet", input_shape=(224, 224, 3))
    assert forward_flops(network) / 2e9 == pytest.approx(gmac, rel=0.01)


def test_every_kind_of_kernel_counts_and_a_shared_or_nested_one_as_often_as_it_is_called():
    images = keras.Input((8, 6, 3))
    shared = layers.Conv2D(3, 3, padding="same", groups=3)
    x = shared(shared(images))
    x = keras.Sequential([layers.Conv2D(4, (3, 1), strides=2, padding="same"),
                          layers.DepthwiseConv2D(3, depth_multiplier=2)])(x)  # fmt: skip
    x = layers.Dense(7)(layers.Flatten()(layers.BatchNormalization()(x)))
    network = keras.Model(images, x)
    products = 2 * (8 * 6) * (9 * 3) + (4 * 3) * (3 * 3 * 4) + (2 * 1) * (9 * 8) + (2 * 8) * 7
    assert forward_flops(network) == 2 * products
    assert forward_flops(tfcq.quantizable(network)) == 2 * products


def test_attention_counts_with_its_two_products():
    tokens, width = 1 + 2 * 2, 12
    network = vision_transformer(width=width, depth=1, heads=3, patch_size=4, input_shape=(8, 8, 1))
    dense = 4 * (4 * 4) * width + tokens * (4 * width**2 + 2 * 4 * width**2)
    assert forward_flops(network) == 2 * (dense + 2 * tokens**2 * width)


def test_layers_with_other_matrices_are_named():
    network = keras.Sequential([keras.Input((8, 3)), layers.Conv1D(4, 3, name="other"),
                                layers.BatchNormalization(), layers.Dense(2)])  # fmt: skip
    assert uncounted(network) == ["other"]
