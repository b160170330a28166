"""Views against naive computations, one image at a time."""

import dataclasses
import math

import numpy as np
import pytest
import tensorflow as tf

from tfcq.data.augmentation import DRAWS, Augmentation, augmentation_for, augmentation_from
from tfcq.errors import UserError
from tfcq.settings.training_groups import ViewSettings

NOTHING = Augmentation(
    crop_area=(1.0, 1.0),
    crop_aspect=(1.0, 1.0),
    flip=0.0,
    jitter_probability=0.0,
    grayscale=0.0,
    blur=0.0,
)
LUMA = np.array([0.2989, 0.587, 0.114], np.float32)


def images_of(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).random(shape, np.float32)


def draws_of(batch: int, **fixed: float) -> np.ndarray:
    draws = np.random.default_rng(1).random((batch, len(DRAWS)), np.float32)
    for name, value in fixed.items():
        draws[:, DRAWS.index(name)] = value
    return draws


@pytest.mark.parametrize("channels", [1, 3])
def test_identity_draws_give_identical_images(channels):
    images = images_of(5, 9, 9, channels)
    views = NOTHING.for_channels(channels).augment(images, draws_of(5), 9)
    np.testing.assert_array_equal(views, images)


def test_flip_mirrors_left_to_right():
    images = images_of(2, 8, 8, 3)
    views = dataclasses.replace(NOTHING, flip=0.5).augment(images, draws_of(2, flip=0.1), 8)
    np.testing.assert_array_equal(views, images[:, :, ::-1])


@pytest.mark.parametrize("name", ["brightness", "contrast", "saturation"])
def test_factors_match_a_loop_over_images(name):
    images, draws = images_of(7, 6, 6, 3), draws_of(7, jitter=0.0)
    only = dataclasses.replace(
        NOTHING, jitter_probability=0.8, brightness=0, contrast=0, saturation=0, hue=0
    )
    views = dataclasses.replace(only, **{name: 0.4}).augment(images, draws, 6)
    for image, draw, view in zip(images, draws[:, DRAWS.index(name)], views, strict=True):
        factor = 0.6 + draw * 0.8
        grey = image @ LUMA
        base = {"brightness": 0.0, "contrast": grey.mean(), "saturation": grey[..., None]}[name]
        expected = np.clip(factor * image + (1 - factor) * base, 0, 1)
        np.testing.assert_allclose(view, expected, atol=1e-6)


def test_hue_matches_tensorflow_image_by_image():
    images, draws = images_of(4, 6, 6, 3), draws_of(4, jitter=0.0)
    only = dataclasses.replace(
        NOTHING, jitter_probability=1.0, brightness=0, contrast=0, saturation=0, hue=0.1
    )
    views = only.augment(images, draws, 6)
    for image, draw, view in zip(images, draws[:, DRAWS.index("hue")], views, strict=True):
        expected = tf.image.adjust_hue(image, 0.2 * draw - 0.1)
        np.testing.assert_allclose(view, expected, atol=1e-5)


@pytest.mark.parametrize("step", ["flip", "jitter", "grayscale", "blur"])
def test_exactly_the_images_whose_draw_is_below_its_probability_have_a_step(step):
    setting = {"jitter": "jitter_probability"}.get(step, step)
    images, draws = images_of(4, 40, 40, 3), draws_of(4)
    draws[:, DRAWS.index(step)] = [0.0, 0.29, 0.3, 0.9]
    views = dataclasses.replace(NOTHING, **{setting: 0.3}).augment(images, draws, 40)
    assert [np.array_equal(*pair) for pair in zip(views, images, strict=True)] == [
        False, False, True, True,
    ]  # fmt: skip


def test_steps_are_crop_brightness_contrast_saturation_hue_grey_and_blur_in_this_order():
    images, draws = images_of(3, 50, 44, 3), draws_of(3, jitter=0.0, blur=0.0)
    # Of images without colour hardly any order would show.
    draws[:, DRAWS.index("grayscale")] = [0.9, 0.1, 0.9]
    settings = dataclasses.asdict(Augmentation(brightness=0.8, contrast=0.8))
    crop = {name: settings[name] for name in ("crop_area", "crop_aspect", "flip")}
    views = dataclasses.replace(NOTHING, **crop).augment(images, draws, 40)
    no_jitter = dict.fromkeys(("brightness", "contrast", "saturation", "hue"), 0.0)
    for name in (*no_jitter, "grayscale", "blur"):
        only = no_jitter | {"jitter_probability": 1.0, name: settings[name]}
        views = dataclasses.replace(NOTHING, **only).augment(views, draws, 40)
    found = Augmentation(**settings).augment(images, draws, 40)
    np.testing.assert_allclose(found, views, atol=1e-5)


def test_grayscale_gives_equal_channels_of_the_luma():
    images = images_of(3, 6, 6, 3)
    grey = dataclasses.replace(NOTHING, grayscale=0.2).augment(
        images, draws_of(3, grayscale=0.1), 6
    )
    np.testing.assert_allclose(grey, np.repeat((images @ LUMA)[..., None], 3, -1), atol=1e-6)


@pytest.mark.parametrize("size", [4, 12, 31])
def test_crops_equal_resizing_each_slice_on_its_own(size):
    images, draws = images_of(32, 20, 14, 3), draws_of(32)
    # Just under 1 is the last place, not one beyond it.
    draws[16:, 2:4] = np.nextafter(np.float32(1), 0)
    crops = dataclasses.replace(NOTHING, crop_area=(0.2, 1.0), crop_aspect=(3 / 4, 4 / 3))
    views = crops.augment(images, draws, size)
    for image, draw, view in zip(images, draws, views, strict=True):
        area = (0.2 + draw[0] * 0.8) * 20 * 14
        aspect = math.exp(math.log(3 / 4) + draw[1] * (math.log(4 / 3) - math.log(3 / 4)))
        height = min(round(math.sqrt(area / aspect)), 20)
        width = min(round(math.sqrt(area * aspect)), 14)
        top, left = int(float(draw[2]) * (21 - height)), int(float(draw[3]) * (15 - width))
        piece = image[top : top + height, left : left + width]
        expected = tf.image.resize(piece, [size, size], antialias=True)
        np.testing.assert_allclose(view, expected, atol=5e-6)


@pytest.mark.parametrize(("size", "radius"), [(12, 1), (45, 2)])
def test_blur_matches_a_direct_sum_with_mirrored_borders(size, radius):
    images, draws = images_of(3, size, size, 3), draws_of(3, blur=0.0)
    blurred = dataclasses.replace(NOTHING, blur=0.5).augment(images, draws, size)
    sigmas = 0.1 + 1.9 * draws[:, DRAWS.index("blur_sigma")]
    for image, sigma, result in zip(images, sigmas, blurred, strict=True):
        kernel = np.exp(-0.5 * (np.arange(-radius, radius + 1) / sigma) ** 2)
        kernel = np.outer(kernel, kernel) / kernel.sum() ** 2
        padded = np.pad(image, [(radius, radius), (radius, radius), (0, 0)], "reflect")
        expected = sum(
            kernel[i, j] * padded[i : i + size, j : j + size] for i, j in np.ndindex(kernel.shape)
        )
        np.testing.assert_allclose(result, expected, atol=1e-6)


@pytest.mark.parametrize(("size", "channels"), [(8, 1), (32, 3), (72, 3)])
def test_recipes_keep_values_between_0_and_1_and_repeat_exactly(size, channels):
    images, draws = images_of(4, size, size + 4, channels), draws_of(4)
    recipe = augmentation_for(size, channels)
    views = recipe.augment(images, draws, size).numpy()
    assert views.shape == (4, size, size, channels)
    assert views.min() >= 0 and views.max() <= 1
    np.testing.assert_array_equal(recipe.augment(images, draws, size), views)


def test_a_view_does_not_depend_on_its_batch():
    images, draws = images_of(6, 16, 16, 3), draws_of(6)
    recipe = augmentation_for(16, 3)
    alone = [recipe.augment(images[i : i + 1], draws[i : i + 1], 16)[0] for i in range(6)]
    np.testing.assert_allclose(recipe.augment(images, draws, 16), np.stack(alone), atol=1e-6)


@pytest.mark.parametrize(
    # A crop grows or shrinks, both ways or one; views above 64 pixels are compiled.
    ("shape", "size"),
    [((20, 14), 31), ((20, 14), 4), ((20, 12), 14), ((90, 120), 66)],
)
@pytest.mark.parametrize("channels", [1, 3])
def test_a_view_of_one_image_is_that_of_a_batch(shape, size, channels):
    pixels = np.round(255 * images_of(8, *shape, channels)).astype(np.uint8)
    images, draws = pixels / np.float32(255), draws_of(8)
    recipe = dataclasses.replace(augmentation_for(size, channels), blur=0.5)
    expected = recipe.augment(images, draws, size)
    for given in (tf.constant(pixels), tf.constant(images)):
        views = [recipe.augment_one(*one, size) for one in zip(given, draws, strict=True)]
        np.testing.assert_allclose(views, expected, atol=1e-4)
        again = recipe.augment_one(given[3], draws[3], size)
        np.testing.assert_array_equal(again, views[3])


def test_standard_views_are_those_of_the_papers():
    # MoCo v2's code and Chen and He 2021, Sec. 3, 4 and Appendix D.
    imagenet = {
        "crop_area": (0.2, 1), "crop_aspect": (3 / 4, 4 / 3), "flip": 0.5,
        "jitter_probability": 0.8, "brightness": 0.4, "contrast": 0.4, "saturation": 0.4,
        "hue": 0.1, "grayscale": 0.2, "blur": 0.5, "blur_sigma": (0.1, 2),
    }  # fmt: skip
    grey = {"saturation": 0, "hue": 0, "grayscale": 0}
    tiny = {"crop_area": (0.4, 1)}
    for size, channels, changes in (
        (224, 3, {}), (65, 3, {}), (64, 3, {"blur": 0}), (32, 3, {"blur": 0}),
        (28, 1, {"blur": 0, **grey}), (17, 3, {"blur": 0}), (16, 3, {"blur": 0, **tiny}),
        (8, 1, {"blur": 0, **grey, **tiny}),
    ):  # fmt: skip
        assert dataclasses.asdict(augmentation_for(size, channels)) == {**imagenet, **changes}


def test_colour_steps_on_grey_scale_images_are_refused():
    with pytest.raises(UserError, match=r"hue=0\.1.*allowed: 0"):
        Augmentation().augment(images_of(1, 8, 8, 1), draws_of(1), 8)
    with pytest.raises(UserError, match="4 channels"):
        Augmentation().augment(images_of(1, 8, 8, 4), draws_of(1), 8)


@pytest.mark.parametrize(
    "setting",
    [
        {"crop_area": (0.0, 1.0)},
        {"crop_area": (0.2, 1.1)},
        {"crop_aspect": (2.0, 1.0)},
        {"blur_sigma": (0.1,)},
        {"flip": 1.5},
        {"hue": 0.6},
        {"brightness": -0.1},
        {"contrast": math.nan},
    ],
)
def test_settings_out_of_range_are_refused_in_one_line(setting):
    with pytest.raises(UserError, match=next(iter(setting))) as caught:
        Augmentation(**setting)
    assert "allowed" in str(caught.value) and "\n" not in str(caught.value)


def test_settings_read_from_json_lists_compare_equal():
    assert Augmentation(crop_area=[0.2, 1.0]) == Augmentation()


def test_every_setting_of_the_views_reaches_them():
    values = {
        "crop_area": "0.5-0.75", "flip": 0.0, "jitter_probability": 0.25, "brightness": 0.7,
        "contrast": 0.6, "saturation": 0.3, "hue": 0.05, "grayscale": 0.4, "blur": 0.75,
    }  # fmt: skip
    found = augmentation_from(ViewSettings(**values), 32, 3)
    assert found == dataclasses.replace(
        augmentation_for(32, 3), **{**values, "crop_area": (0.5, 0.75)}
    )
    assert augmentation_from(ViewSettings(), 8, 1) == augmentation_for(8, 1)


def test_views_are_the_standard_of_their_size_but_for_what_is_given():
    usual = augmentation_for(32, 3)
    assert augmentation_from(ViewSettings(), 32, 3) == usual
    values = {"crop_area": "0.5-0.9", "flip": 0.1, "jitter_probability": 0.3, "hue": 0.2,
              "brightness": 0.1, "contrast": 0.6, "saturation": 0.7, "grayscale": 0.4,
              "blur": 0.9}  # fmt: skip
    expected = dataclasses.replace(usual, **{**values, "crop_area": (0.5, 0.9)})
    assert augmentation_from(ViewSettings(**values), 32, 3) == expected
