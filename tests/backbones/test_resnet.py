"""Shapes, sizes and arithmetic of our ResNets."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfcq.backbones.resnet import resnet
from tfcq.errors import UserError


# torchvision's models without `fc`: 11,689,512, 21,797,672 and 25,557,032 minus the classifier.
@pytest.mark.parametrize(
    ("depth", "parameters"),
    [(18, 11_689_512 - 513_000), (34, 21_797_672 - 513_000), (50, 25_557_032 - 2_049_000)],
)
def test_trainable_parameters_are_those_of_the_paper(depth, parameters):
    with keras.StatelessScope():
        model = resnet(depth, "imagenet", input_shape=(None, None, 3))
    assert sum(int(np.prod(v.shape)) for v in model.trainable_variables) == parameters


# Public CIFAR models with this stem have 11,173,962, a classifier of 512 * 10 + 10 among them.
def test_trainable_parameters_with_the_stem_for_small_images():
    with keras.StatelessScope():
        model = resnet(18, "cifar")
    assert sum(int(np.prod(v.shape)) for v in model.trainable_variables) == 11_173_962 - 5_130


@pytest.mark.parametrize(("depth", "features"), [(18, 8 * 4), (50, 32 * 4)])
def test_features_are_pooled_vectors_of_any_image_size(depth, features):
    model = resnet(depth, width=4, input_shape=(None, None, 1), blocks=(1, 1, 1, 1))
    assert model.output_shape == (None, features)
    for size in (8, 13):
        assert model(tf.ones([2, size, size, 1])).shape == (2, features)


@pytest.mark.parametrize(
    ("stem", "sizes"), [("cifar", [32, 32, 16, 8, 4]), ("imagenet", [8, 8, 4, 2, 1])]
)
def test_resolution_of_each_stage(stem, sizes):
    model = resnet(18, stem, 2)
    stages = [model.get_layer(f"stage{i}_block2_relu").output.shape[1] for i in (1, 2, 3, 4)]
    first = model.get_layer("stem_relu" if stem == "cifar" else "stem_pool").output.shape[1]
    assert [first, *stages] == sizes


def test_strided_convolution_pads_on_both_sides_as_pytorch_does():
    model = resnet(18, width=1, input_shape=(4, 4, 1), blocks=(1, 1))
    # Names of the layers that pad, and the convolution behind each is `valid`.
    padded = [layer.name for layer in model.layers if type(layer).__name__ == "ZeroPadding2D"]
    assert padded == ["stage2_block1_conv1_pad"]
    convolution = model.get_layer("stage2_block1_conv1")
    convolution.kernel.assign(tf.ones(convolution.kernel.shape))
    upto = keras.Model(model.get_layer(padded[0]).input, convolution.output)
    image = tf.reshape(tf.range(16.0), [1, 4, 4, 1])
    # Windows centred on rows and columns 0 and 2; TensorFlow's `same` would centre on 1 and 3.
    by_hand = [
        [0 + 1 + 4 + 5, 1 + 2 + 3 + 5 + 6 + 7],
        [4 + 5 + 8 + 9 + 12 + 13, 5 + 6 + 7 + 9 + 10 + 11 + 13 + 14 + 15],
    ]
    assert upto(image).numpy()[0, :, :, 0].tolist() == by_hand


def test_block_adds_its_shortcut():
    model = resnet(18, width=2, input_shape=(4, 4, 1), blocks=(1,))
    model.get_layer("stage1_block1_conv2_norm").gamma.assign([0, 0])
    stem, block = (model.get_layer(n).output for n in ("stem_relu", "stage1_block1_relu"))
    both = keras.Model(model.input, [stem, block])
    before, after = both(tf.random.stateless_normal([2, 4, 4, 1], [1, 1]))
    np.testing.assert_array_equal(before, after)


def test_initial_kernels_are_uniform_within_one_over_root_fan_in():
    keras.utils.set_random_seed(0)
    kernel = resnet(18, width=8, blocks=(1, 1)).get_layer("stage2_block1_conv2").kernel.numpy()
    bound = 1 / np.sqrt(3 * 3 * 16)
    assert np.abs(kernel).max() <= bound
    assert np.abs(kernel).max() > 0.95 * bound
    np.testing.assert_allclose(kernel.std(), bound / np.sqrt(3), rtol=0.05)


@pytest.mark.parametrize("depth", [18, 50])
def test_kernels_with_the_imagenet_stem_are_normal_of_variance_two_over_fan_out(depth):
    keras.utils.set_random_seed(0)
    model = resnet(depth, "imagenet", width=16, blocks=(1, 1))
    kernels = [x.kernel.numpy() for x in model.layers if isinstance(x, keras.layers.Conv2D)]
    for kernel in kernels:
        height, width, _, outputs = kernel.shape
        whitened = kernel * np.sqrt(height * width * outputs / 2)
        assert abs(whitened.std() - 1) < 6 / np.sqrt(2 * whitened.size)
        assert abs(whitened.mean()) < 5 / np.sqrt(whitened.size)
    # A normal, which no bound holds: a uniform of this variance ends at sqrt(3).
    assert np.max(np.abs(whitened)) > 3


def norms_at_zero(model):
    norms = (x for x in model.layers if isinstance(x, keras.layers.BatchNormalization))
    return {x.name for x in norms if not np.any(x.gamma.numpy())}


@pytest.mark.parametrize(("depth", "last"), [(18, "conv2"), (50, "conv3")])
def test_residual_branches_start_at_zero_with_the_imagenet_stem_alone_unless_said(depth, last):
    small = {"width": 2, "input_shape": (32, 32, 1), "blocks": (1, 2)}
    of_the_branches = {f"stage{s}_block{b}_{last}_norm" for s, b in ((1, 1), (2, 1), (2, 2))}
    assert norms_at_zero(resnet(depth, "imagenet", **small)) == of_the_branches
    assert norms_at_zero(resnet(depth, "cifar", **small)) == set()
    assert norms_at_zero(resnet(depth, "cifar", zero_init_residual=True, **small)) == (
        of_the_branches
    )
    assert norms_at_zero(resnet(depth, "imagenet", zero_init_residual=False, **small)) == set()


def test_start_of_kernels_is_free_of_the_stem():
    small = {"width": 4, "input_shape": (32, 32, 1), "blocks": (1,)}
    name = "stage1_block1_conv2"
    by_hand = {"uniform_fan_in": 1 / 6, "normal_fan_out": np.sqrt(2 / 36)}
    for stem in ("cifar", "imagenet"):
        keras.utils.set_random_seed(0)
        uniform = resnet(18, stem, kernel_initializer="uniform_fan_in", **small).get_layer(name)
        normal = resnet(18, stem, kernel_initializer="normal_fan_out", **small).get_layer(name)
        assert np.abs(uniform.kernel).max() <= by_hand["uniform_fan_in"]
        assert np.abs(normal.kernel).max() > 2 * by_hand["normal_fan_out"]


def test_bad_arguments_name_what_is_allowed():
    with pytest.raises(UserError, match="depth 20; allowed: 18, 34, 50"):
        resnet(20)
    with pytest.raises(UserError, match="Did you mean 'imagenet'"):
        resnet(18, "imagnet")
    with pytest.raises(UserError, match="Width 0 cannot be used"):
        resnet(18, width=0)
    with pytest.raises(UserError, match="Did you mean 'normal_fan_out'"):
        resnet(18, kernel_initializer="normal_fanout")
