"""Backbones from their settings."""

import keras
import numpy as np
import pytest
from keras import layers

from tfcq.backbones.build import backbone_from
from tfcq.errors import UserError
from tfcq.settings.training import config_from_flat

SHAPE = (8, 8, 1)


def backbone(shape=SHAPE, **values):
    return backbone_from(config_from_flat(values).network, shape)


@pytest.mark.parametrize(
    ("values", "features", "kernels"),
    [
        ({"backbone": "resnet18", "width": 2}, 16, 20),
        ({"backbone": "resnet34", "width": 2}, 16, 36),
        ({"backbone": "resnet50", "width": 2, "stem": "imagenet"}, 64, 53),
        ({"backbone": "cifar_resnet8", "width": 2}, 8, 7),
        ({"backbone": "cifar_resnet14", "width": 2, "shortcut": "projection"}, 8, 15),
        ({"backbone": "mobilenet_v2", "width": 8}, 1280, 52),
        ({"backbone": "vit_tiny", "patch_size": 4, "frozen_patch_projection": True}, 192, 73),
        ({"backbone": "vit_small", "width": 12}, 12, 73),
    ],
)
def test_backbone_by_name_takes_its_settings(values, features, kernels):
    with keras.StatelessScope():
        model = backbone(**values)
    assert model.output_shape == (None, features)
    names = ("Conv2D", "DepthwiseConv2D", "Dense")
    assert sum(type(layer).__name__ in names for layer in model.layers) == kernels
    known = {layer.name: layer for layer in model.layers}
    assert ("stem_pool" in known) == (values.get("stem") == "imagenet")
    patches = known.get("patch_projection")
    if patches:
        assert patches.kernel_size == (values.get("patch_size", 1),) * 2
        assert patches.trainable is not values.get("frozen_patch_projection", False)


def test_backbone_from_a_file_keeps_its_weights(tmp_path):
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [keras.Input(SHAPE), layers.Conv2D(3, 3), layers.GlobalAveragePooling2D()]
    )
    path = tmp_path / "mine.keras"
    model.save(path)
    loaded = backbone(backbone=f"file:{path}")
    for ours, theirs in zip(loaded.get_weights(), model.get_weights(), strict=True):
        assert (ours == theirs).all()
    with pytest.raises(UserError, match=r"takes images of shape \(8, 8, 1\); the run's have"):
        backbone((9, 9, 1), backbone=f"file:{path}")


def test_backbone_from_a_file_is_given_the_pixels_that_it_takes(tmp_path, capsys):
    model = keras.Sequential(
        [keras.Input(SHAPE), layers.Rescaling(1 / 127.5, -1), layers.Conv2D(3, 3), layers.Flatten()]
    )
    path = tmp_path / "mine.keras"
    model.save(path)
    loaded = backbone(backbone=f"file:{path}")
    images = np.random.default_rng(0).random((2, *SHAPE), np.float32)
    np.testing.assert_allclose(loaded(images), model(255 * images), rtol=1e-4, atol=1e-5)
    assert f"file:{path} takes pixels in 0-255, which a layer in front" in capsys.readouterr().out


def test_application_that_does_not_exist_names_the_nearest():
    with pytest.raises(UserError, match="Did you mean 'MobileNetV2'"):
        backbone((32, 32, 3), backbone="applications:MobilNetV2")


def test_application_that_cannot_take_the_images_says_why():
    with pytest.raises(UserError, match=r"cannot take images of shape \(8, 8, 1\)"):
        backbone(backbone="applications:MobileNetV2")


def test_missing_file_is_told_in_one_line():
    with pytest.raises(UserError, match="nowhere.keras"):
        backbone(backbone="file:nowhere.keras")
