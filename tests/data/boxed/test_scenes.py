"""Scenes composed of labelled images."""

import numpy as np
import pytest
import tensorflow as tf

from tfcq.data.boxed.box_sources import open_boxes
from tfcq.data.boxed.scenes import OUTLINE, ScenesSource
from tfcq.data.digits import DigitsSource
from tfcq.data.sources import open_source
from tfcq.errors import UserError


@pytest.fixture(scope="module")
def digits():
    return DigitsSource()


def scenes(digits, name="train", count=30, **options):
    split = ScenesSource(digits, "scenes", counts={"train": count, "test": count}, **options).split(
        name
    )
    return split, list(split.records.map(split.decode).as_numpy_iterator())


def test_scene_is_a_function_of_seed_split_and_index(digits):
    _, found = scenes(digits, count=10)
    _, again = scenes(digits, count=12)
    for one, other in zip(found, again[:10], strict=True):
        for name, value in one.items():
            np.testing.assert_array_equal(value, other[name])
    for other in (scenes(digits, count=6, seed=1)[1], scenes(digits, "test", 6)[1]):
        assert not any(np.array_equal(a["image"], b["image"]) for a in found for b in other)


def test_boxes_are_around_masks_and_masks_are_what_is_bright(digits):
    split, found = scenes(digits)
    assert (split.image_shape, split.masks, len(split.class_names)) == ((96, 96, 1), True, 10)
    for scene in found:
        count = len(scene["boxes"])
        assert 1 <= count <= split.most_boxes
        assert len(scene["classes"]) == count and not scene["crowd"].any()
        bright = scene["image"][..., 0] > OUTLINE
        np.testing.assert_array_equal(scene["masks"].sum(axis=0), bright)
        for mask, (y1, x1, y2, x2) in zip(scene["masks"], scene["boxes"].astype(int), strict=True):
            rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
            assert (rows[0], columns[0], rows[-1] + 1, columns[-1] + 1) == (y1, x1, y2, x2)
        np.testing.assert_array_equal(scene["area"], scene["masks"].sum(axis=(1, 2)))
    assert {len(scene["boxes"]) for scene in found} >= {1, 2, 3, 4, 5}
    assert set(np.concatenate([scene["classes"] for scene in found])) == set(range(10))


def test_scenes_are_opened_by_name_and_sides_and_items_are_checked(tmp_path, digits):
    split = open_boxes("scenes").split("test")
    assert (split.size, split.class_names[3]) == (500, "3")
    assert open_boxes("scenes:digits", masks=True).splits == ("train", "test")
    with pytest.raises(UserError, match="no split 'val'; allowed: train, test"):
        open_boxes("scenes").split("val")
    with pytest.raises(UserError, match="Scenes of 8 pixels; allowed: 16 and more"):
        ScenesSource(digits, "scenes", side=8)
    (tmp_path / "a.png").write_bytes(tf.io.encode_png(np.zeros((9, 9, 1), np.uint8)).numpy())
    with pytest.raises(UserError, match="its images have no labels; allowed: labelled images"):
        ScenesSource(open_source(f"folder:{tmp_path}"), "scenes").split("train")
