"""A block of each convolutional network is what its paper draws; batch norms are PyTorch's."""

import keras
import numpy as np
import pytest

from tests.integer.conftest import randomize_norms
from tfcq.backbones.cifar_resnet import cifar_resnet
from tfcq.backbones.mobilenet_v2 import mobilenet_v2
from tfcq.backbones.resnet import resnet

SHAPE = (6, 6, 1)
# For each network: what its block gets; kernel and stride of the convolutions of its branch, ReLU
# behind all but the last; what is beside the branch; whether a ReLU follows the sum.
BLOCKS = {
    "basic": (
        lambda: resnet(18, width=3, input_shape=SHAPE, blocks=(1, 1)),
        "stage2_block1", "stage1_block1_relu", {"conv1": (3, 2), "conv2": (3, 1)},
        ["shortcut", "shortcut_norm"], np.inf, True,
    ),
    "bottleneck": (
        lambda: resnet(50, width=3, input_shape=SHAPE, blocks=(1, 1)),
        "stage2_block1", "stage1_block1_relu", {"conv1": (1, 1), "conv2": (3, 2), "conv3": (1, 1)},
        ["shortcut", "shortcut_norm"], np.inf, True,
    ),
    "within a stage": (
        lambda: resnet(18, width=3, input_shape=SHAPE, blocks=(2,)),
        "stage1_block2", "stage1_block1_relu", {"conv1": (3, 1), "conv2": (3, 1)}, [], np.inf, True,
    ),
    "cifar": (
        lambda: cifar_resnet(8, 3, SHAPE),
        "stage2_block1", "stage1_block1_relu", {"conv1": (3, 2), "conv2": (3, 1)},
        ["shortcut_pool", "shortcut_pad"], np.inf, True,
    ),
    "cifar projection": (
        lambda: cifar_resnet(8, 3, SHAPE, "projection"),
        "stage2_block1", "stage1_block1_relu", {"conv1": (3, 2), "conv2": (3, 1)},
        ["shortcut", "shortcut_norm"], np.inf, True,
    ),
    "inverted": (
        lambda: mobilenet_v2("imagenet", 8, (32, 32, 1)),
        "stage3_block2", "stage3_block1_project_norm",
        {"expand": (1, 1), "depthwise": (3, 1), "project": (1, 1)}, [], 6, False,
    ),
    "inverted, smaller": (
        lambda: mobilenet_v2("imagenet", 8, (32, 32, 1)),
        "stage3_block1", "stage2_block2_add",
        {"expand": (1, 1), "depthwise": (3, 2), "project": (1, 1)}, None, 6, False,
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", BLOCKS)
def test_block_is_its_branch_beside_its_shortcut(case):
    network, prefix, inputs, branch, shortcut, highest, activated = BLOCKS[case]
    keras.utils.set_random_seed(0)
    model = network()
    randomize_norms(model)
    names = {layer.name for layer in model.layers}
    last = list(branch)[-1]
    end = "relu" if activated else "add" if shortcut is not None else f"{last}_norm"
    both = [model.get_layer(name).output for name in (inputs, f"{prefix}_{end}")]
    images = np.random.default_rng(0).normal(size=(4, *model.input_shape[1:]))
    x, found = map(np.asarray, keras.Model(model.input, both)(images.astype(np.float32)))

    def through(x, *parts):
        for part in parts:
            x = model.get_layer(f"{prefix}_{part}")(x)
        return np.asarray(x)

    y = x
    for part, (kernel, stride) in branch.items():
        layer = model.get_layer(f"{prefix}_{part}")
        assert (layer.kernel_size, layer.strides) == ((kernel, kernel), (stride, stride))
        padded = [f"{part}_pad"] if f"{prefix}_{part}_pad" in names else []
        y = through(y, *padded, part, f"{part}_norm")
        if part != last:
            y = np.clip(y, 0, highest)
    expected = y if shortcut is None else y + through(x, *shortcut)
    expected = np.maximum(expected, 0) if activated else expected
    assert np.ptp(expected) > 0.1
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("case", ["bottleneck", "cifar projection", "inverted"])
def test_batch_norms_keep_nine_tenths_and_add_a_hundred_thousandth_as_pytorchs(case):
    with keras.StatelessScope():
        model = BLOCKS[case][0]()
    norms = [x for x in model.layers if isinstance(x, keras.layers.BatchNormalization)]
    convolutions = [x for x in model.layers if "Conv2D" in type(x).__name__]
    assert {(norm.momentum, norm.epsilon) for norm in norms} == {(0.9, 1e-5)}
    assert len(norms) == len(convolutions)
    assert not any(layer.use_bias for layer in convolutions)


@pytest.mark.parametrize("make", [
    BLOCKS["basic"][0], BLOCKS["cifar"][0], lambda: mobilenet_v2("cifar", 8, (16, 16, 1)),
])  # fmt: skip
def test_features_are_means_over_the_last_map(make):
    model = make()
    maps, features = keras.Model(model.input, [model.layers[-1].input, model.output])(
        np.random.default_rng(0).normal(size=(2, *model.input_shape[1:])).astype(np.float32)
    )
    assert maps.shape[1] > 1
    np.testing.assert_allclose(features, np.mean(maps, axis=(1, 2)), rtol=1e-4, atol=1e-30)


def test_stem_for_large_images_is_seven_wide_and_keeps_the_greatest_of_three_by_three():
    keras.utils.set_random_seed(0)
    model = resnet(18, "imagenet", 2, (13, 13, 1), (1,))
    randomize_norms(model)
    stem = model.get_layer("stem")
    assert (stem.kernel_size, stem.strides) == ((7, 7), (2, 2))
    both = [model.get_layer(name).output for name in ("stem_relu", "stem_pool")]
    images = np.random.default_rng(0).normal(size=(2, 13, 13, 1)).astype(np.float32)
    before, after = map(np.asarray, keras.Model(model.input, both)(images))
    assert before.shape == (2, 7, 7, 2) and after.shape == (2, 4, 4, 2)
    for row, column in np.ndindex(4, 4):
        rows, columns = (slice(max(0, 2 * i - 1), 2 * i + 2) for i in (row, column))
        expected = before[:, rows, columns].max(axis=(1, 2))
        np.testing.assert_array_equal(after[:, row, column], expected)
