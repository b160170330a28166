"""Sizes, strides and arithmetic of our MobileNetV2."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfcq.backbones.mobilenet_v2 import mobilenet_v2
from tfcq.errors import UserError


def build(*arguments, **settings):
    with keras.StatelessScope():
        return mobilenet_v2(*arguments, **settings)


def parameters(model):
    return sum(int(np.prod(v.shape)) for v in model.trainable_variables)


@pytest.fixture(scope="module")
def smallest():
    return mobilenet_v2("cifar", 8, (None, None, 1))


# torchvision's model has 3,504,872 of them with a classifier of 1280 * 1000 + 1000.
def test_trainable_parameters_are_those_of_the_paper():
    model = build("imagenet", input_shape=(224, 224, 3))
    assert parameters(model) == 3_504_872 - 1_281_000
    assert model.output_shape == (None, 1280)


def test_width_multiplier_scales_all_layers_but_the_last_as_the_authors_do():
    with keras.StatelessScope():
        half = keras.applications.MobileNetV2(
            (96, 96, 3), alpha=0.5, include_top=False, weights=None
        )
    assert parameters(build(width=16)) == parameters(half)


@pytest.mark.parametrize(
    ("width", "channels", "features"),
    [
        (8, [8, 8, 8, 16, 24, 40, 80], 1280),
        (48, [24, 40, 48, 96, 144, 240, 480], 1920),
        # 16 * 88 / 32 is 44: up to 48, though 40 is over 90% of it.
        (88, [48, 64, 88, 176, 264, 440, 880], 3520),
    ],
)
def test_channels_are_multiples_of_8(width, channels, features):
    model = build(width=width)
    stages = [model.get_layer(f"stage{i}_block1_project").filters for i in range(1, 8)]
    assert stages == channels
    assert model.get_layer("stem").filters == width
    assert model.output_shape == (None, features)


@pytest.mark.parametrize(
    ("stem", "size", "sizes"),
    [
        ("cifar", 32, [32, 32, 32, 16, 8, 8, 4, 4, 4]),
        ("imagenet", 224, [112, 112, 56, 28, 14, 14, 7, 7, 7]),
    ],
)
def test_resolution_of_each_stage(stem, size, sizes):
    model = build(stem, 8, (size, size, 3))
    names = ["stem", *(f"stage{i}_block1_project" for i in range(1, 8)), "last"]
    assert [model.get_layer(name).output.shape[1] for name in names] == sizes


def test_blocks_add_a_shortcut_where_shapes_allow_it_and_end_linearly(smallest):
    names = {layer.name for layer in smallest.layers}
    # Blocks of each stage; with 8 channels in the first three, the second has one more shortcut.
    counts = (1, 2, 3, 4, 3, 3, 1)
    added = {f"stage{i}_block{j}_add" for i, n in enumerate(counts, 1) for j in range(2, n + 1)} | {
        "stage1_block1_add",
        "stage2_block1_add",
    }
    assert {name for name in names if name.endswith("_add")} == added
    smallest.get_layer("stage3_block2_project_norm").gamma.assign(tf.zeros([8]))
    before, after = (
        smallest.get_layer(name).output
        for name in ("stage3_block1_project_norm", "stage3_block2_add")
    )
    both = keras.Model(smallest.input, [before, after])(tf.ones([1, 8, 8, 1]))
    np.testing.assert_array_equal(*both)
    # Values below zero pass: no activation function behind the projection.
    assert np.min(both[0]) < 0


def test_images_of_any_size(smallest):
    for size in (8, 13):
        assert smallest(tf.ones([2, size, size, 1])).shape == (2, 1280)


def test_activations_end_at_6(smallest):
    relus = [layer for layer in smallest.layers if isinstance(layer, keras.layers.ReLU)]
    # Stem, last, 17 depthwise convolutions and the expansions of all blocks but the first.
    assert len(relus) == 1 + 1 + 17 + 16
    assert {layer.max_value for layer in relus} == {6}


def test_strided_depthwise_convolution_pads_on_both_sides_as_pytorch_does(smallest):
    pad, convolution = (
        smallest.get_layer(f"stage3_block1_depthwise{part}") for part in ("_pad", "")
    )
    convolution.kernel.assign(tf.ones(convolution.kernel.shape))
    channels = convolution.kernel.shape[2]
    image = tf.reshape(tf.range(16.0), [1, 4, 4, 1]) * tf.ones([channels])
    # Windows centred on rows and columns 0 and 2; TensorFlow's `same` would centre on 1 and 3.
    by_hand = [
        [0 + 1 + 4 + 5, 1 + 2 + 3 + 5 + 6 + 7],
        [4 + 5 + 8 + 9 + 12 + 13, 5 + 6 + 7 + 9 + 10 + 11 + 13 + 14 + 15],
    ]
    assert convolution(pad(image)).numpy()[0, :, :, -1].tolist() == by_hand


def test_initial_kernels_are_uniform_within_one_over_root_of_what_an_output_reads():
    keras.utils.set_random_seed(0)
    model = mobilenet_v2(width=16)
    names = ("stage4_block2_expand", "stage4_block2_depthwise", "stage4_block3_depthwise")
    kernels = [model.get_layer(name).kernel.numpy() for name in names]
    for kernel, inputs in zip(kernels, (32, 9, 9), strict=True):
        bound = 1 / np.sqrt(inputs)
        assert 0.95 * bound < np.abs(kernel).max() <= bound
        np.testing.assert_allclose(kernel.std(), bound / np.sqrt(3), rtol=0.05)
    assert kernels[1].shape == kernels[2].shape and np.all(kernels[1] != kernels[2])


def test_kernels_with_the_imagenet_stem_are_normal_of_variance_two_over_fan_out():
    keras.utils.set_random_seed(0)
    model = mobilenet_v2("imagenet", width=16)
    # (kernel^2 * channels of the output); torchvision counts those of a depthwise one so too.
    fans = {"stem": 9 * 16, "stage4_block2_expand": 192, "stage4_block2_depthwise": 9 * 192}
    for name, fan in fans.items():
        kernel = model.get_layer(name).kernel.numpy()
        np.testing.assert_allclose(kernel.std(), np.sqrt(2 / fan), rtol=0.1)
        assert np.abs(kernel).max() > 2.5 * np.sqrt(2 / fan)
    norms = [x for x in model.layers if isinstance(x, keras.layers.BatchNormalization)]
    assert all(np.all(x.gamma.numpy() == 1) for x in norms)


@pytest.mark.parametrize(("width", "nearest"), [(1, 8), (20, 16), (45, 48), (0, 8), (-8, 8)])
def test_other_widths_name_the_nearest(width, nearest):
    with pytest.raises(
        UserError, match=f"Width {width} .*multiples of 8. The nearest is {nearest}"
    ):
        mobilenet_v2(width=width)


def test_unknown_stem_names_the_nearest():
    with pytest.raises(UserError, match="Did you mean 'cifar'"):
        mobilenet_v2("cifr")
