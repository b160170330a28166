"""Sizes, shortcuts and arithmetic of the ResNets of depth 6n + 2."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfcq.backbones.cifar_resnet import cifar_resnet
from tfcq.errors import UserError
from tfcq.nn.placement import place, read_graph
from tfcq.settings.policies import UNIFORM


def parameters(*arguments, **settings):
    with keras.StatelessScope():
        model = cifar_resnet(*arguments, **settings)
    return sum(int(np.prod(v.shape)) for v in model.trainable_variables)


# He et al., Table 6: 0.27, 0.46, 0.66, 0.85 and 1.7 million; the classifier has 64 * 10 + 10.
@pytest.mark.parametrize(
    ("depth", "published"),
    [(20, 269_722), (32, 464_154), (44, 658_586), (56, 853_018), (110, 1_727_962)],
)
def test_trainable_parameters_are_those_of_the_paper(depth, published):
    # Every six layers add one block to each stage, all of them alike.
    first, second = parameters(8), parameters(14)
    assert first + (depth - 8) // 6 * (second - first) == published - 650


@pytest.mark.parametrize("depth", [8, 20, 32])
def test_depth_counts_the_layers_with_weights_and_the_classifier(depth):
    with keras.StatelessScope():
        model = cifar_resnet(depth)
    kernels = [layer for layer in model.layers if isinstance(layer, keras.layers.Conv2D)]
    assert len(kernels) + 1 == depth
    blocks = (depth - 2) // 6
    assert model.get_layer(f"stage3_block{blocks}_relu").output is model.layers[-1].input


def test_projections_add_two_convolutions_and_their_norms():
    added = (16 * 32 + 2 * 32) + (32 * 64 + 2 * 64)
    assert parameters(8, shortcut="projection") - parameters(8) == added


def test_resolution_is_halved_twice_and_features_are_four_times_the_width():
    model = cifar_resnet(8, 5)
    stages = [model.get_layer(f"stage{stage}_block1_relu").output.shape for stage in (1, 2, 3)]
    assert stages == [(None, 32, 32, 5), (None, 16, 16, 10), (None, 8, 8, 20)]
    assert model.output_shape == (None, 20)


@pytest.mark.parametrize("shortcut", ["identity", "projection"])
def test_images_of_any_size_odd_ones_too(shortcut):
    model = cifar_resnet(8, 1, (None, None, 1), shortcut)
    for size in (4, 7):
        assert model(tf.ones([2, size, size, 1])).shape == (2, 4)


def test_start_is_pytorchs_unless_said():
    keras.utils.set_random_seed(0)
    plain = cifar_resnet(8, width=8)
    other = cifar_resnet(8, width=8, kernel_initializer="normal_fan_out", zero_init_residual=True)
    for model, least, at_zero in ((plain, 0, set()), (other, 1, {1, 2, 3})):
        norms = [x for x in model.layers if isinstance(x, keras.layers.BatchNormalization)]
        zero = {x.name for x in norms if not np.any(x.gamma.numpy())}
        assert zero == {f"stage{i}_block1_conv2_norm" for i in at_zero}
        kernel = np.abs(model.get_layer("stage2_block1_conv2").kernel.numpy())
        assert (kernel.max() > 3 * np.sqrt(2 / 144)) == bool(least)
        assert (kernel.max() <= 1 / np.sqrt(144)) != bool(least)


def test_identity_shortcut_is_every_second_pixel_between_channels_of_zeros():
    model = cifar_resnet(8, 3, (5, 6, 1))
    layers = [model.get_layer(f"stage2_block1_shortcut_{part}") for part in ("pool", "pad")]
    assert model.get_layer("stage2_block1_add").input[1] is layers[1].output
    x = np.random.default_rng(0).normal(size=(2, 5, 6, 3)).astype(np.float32)
    by_hand = np.zeros((2, 3, 3, 6), np.float32)
    for row in range(3):
        for column in range(3):
            by_hand[:, row, column, 1:4] = x[:, 2 * row, 2 * column]
    np.testing.assert_array_equal(layers[1](layers[0](x)), by_hand)


def test_identity_shortcut_keeps_the_grid_and_gets_no_quantizer():
    placed = place(read_graph(cifar_resnet(8, 2).get_config()), UNIFORM)
    blocks = [f"stage{stage}_block1" for stage in (1, 2, 3)]
    assert set(placed.outputs) == {"stem_relu"} | {
        f"{block}_{part}" for block in blocks for part in ("relu1", "conv2_norm", "relu")
    }


@pytest.mark.parametrize(
    ("depth", "nearest"), [(18, 20), (34, 32), (72, 74), (111, 110), (150, 152), (1, 8), (-7, 8)]
)
def test_other_depths_name_the_nearest(depth, nearest):
    with pytest.raises(UserError, match=rf"depth {depth} .*6n \+ 2.*The nearest is {nearest}\."):
        cifar_resnet(depth)


def test_bad_arguments_name_what_is_allowed():
    with pytest.raises(UserError, match="Did you mean 'identity'"):
        cifar_resnet(shortcut="identify")
    with pytest.raises(UserError, match="Width 0 cannot be used; allowed: 1 and above"):
        cifar_resnet(width=0)
