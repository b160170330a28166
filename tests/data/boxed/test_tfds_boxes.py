"""VOC and COCO of TensorFlow Datasets, from small folders that the tests write."""

import numpy as np
import pytest
import tensorflow_datasets as tfds

from tests.tfds_folders import write, write_voc
from tfcq.data.boxed.box_sources import open_boxes
from tfcq.data.order import shuffled_epochs
from tfcq.errors import UserError

# Of each example: height, width, and boxes as VOC's files have them, x and y from 1 to the last.
VOC = {
    "2007": {
        "train": [(50, 40, [(1, 1, 10, 20, "dog", False), (5, 6, 40, 50, "cat", True)])],
        "validation": [(30, 60, [(11, 3, 60, 30, "car", False)])],
        "test": [(20, 20, [(1, 1, 20, 20, "cat", True)]), (25, 20, [])],
    },
    "2012": {
        "train": [(45, 45, [(2, 2, 3, 3, "person", False)])],
        "validation": [(20, 30, [])],
        "test": [(20, 30, [])],
    },
}


def coco_example(number, example):
    height, width, boxes = example
    return {
        "image": np.zeros((height, width, 3), np.uint8), "image/filename": f"{number}.jpg",
        "image/id": number,
        "objects": [
            {
                "bbox": tfds.features.BBox(*box), "label": label, "is_crowd": crowd, "area": area,
                "id": place,
            }
            for place, (box, label, crowd, area) in enumerate(boxes)
        ],
    }  # fmt: skip


@pytest.fixture(scope="module")
def voc(tmp_path_factory):
    data_dir = str(tmp_path_factory.mktemp("tfds"))
    write_voc(data_dir, VOC)
    return data_dir


def test_voc_trains_on_both_years_and_tests_on_2007(voc, records, caplog):
    source = open_boxes("voc", voc)
    with caplog.at_level("WARNING", "absl"):
        train = source.split("train")
    assert "1 of 4 training images have no box" in caplog.text
    assert (train.size, train.most_boxes, len(train.class_names)) == (3, 2, 20)
    found = records(train)
    assert [one["image"].shape[:2] for one in found] == [(50, 40), (30, 60), (45, 45)]
    # The first pixel is 0, and boxes end behind their last one.
    expected = [[[0, 0, 20, 10], [5, 4, 50, 40]], [[2, 10, 30, 60]], [[1, 1, 3, 3]]]
    for one, boxes in zip(found, expected, strict=True):
        np.testing.assert_allclose(one["boxes"], boxes, atol=1e-4)
        np.testing.assert_allclose(
            one["area"], np.prod(one["boxes"][:, 2:] - one["boxes"][:, :2], axis=1)
        )
        assert not one["crowd"].any()
    names = [[train.class_names[c] for c in one["classes"]] for one in found]
    assert names == [["dog", "cat"], ["car"], ["person"]]
    assert found[0]["difficult"].tolist() == [False, True]
    test = source.split("test")
    assert [len(one["boxes"]) for one in records(test)] == [1, 0]
    assert test.image_ids == ("0.jpg", "1.jpg") and test.category_ids is None
    named = [train.image_ids[one["index"]] for one in found]
    assert named == [one["file"].decode() for one in train.records.as_numpy_iterator()]


def test_voc_is_streamed_in_any_order(voc):
    split = open_boxes("voc", voc).split("train")
    records = shuffled_epochs(split, seed=0).take(1).flat_map(lambda epoch: epoch)
    found = {int(one["index"]): split.decode(one) for _, one in records}
    assert [len(found[index]["boxes"]) for index in range(3)] == [2, 1, 1]
    assert [found[index]["image"].shape[0] for index in range(3)] == [50, 30, 45]
    spec = split.records.map(split.decode).element_spec
    assert spec["image"].shape.as_list() == [None, None, 3]
    assert spec["boxes"].shape.as_list() == [None, 4]


def test_coco_has_crowds_areas_boxes_without_area_and_classes_never_seen(tmp_path, records, caplog):
    whole, crowd, flat = (0.0, 0.0, 0.5, 1.0), (0.5, 0.0, 1.0, 1.0), (0.25, 0.5, 0.25, 1.0)
    train = [
        (20, 40, [(whole, 3, False, 77), (crowd, 3, True, 5), (flat, 4, False, 0)]),
        (20, 40, [(crowd, 3, True, 5)]),
        (20, 40, []),
    ]
    parts = {"train": train, "validation": [(20, 40, [(whole, 5, False, 6)])]}
    write("coco/2017", str(tmp_path), parts, coco_example)
    source = open_boxes("coco", str(tmp_path))
    with caplog.at_level("WARNING", "absl"):
        split = source.split("train")
    assert (
        "coco: 1 boxes of the train split have no area and are left out, the first of 0.jpg"
        in caplog.text
    )
    assert "2 of 3 training images have no box" in caplog.text
    (found,) = records(split)
    np.testing.assert_array_equal(found["boxes"], [[0, 0, 10, 40], [10, 0, 20, 40]])
    assert (found["classes"].tolist(), found["area"].tolist()) == ([3, 3], [77, 5])
    assert (found["crowd"].tolist(), found["difficult"].any()) == ([False, True], False)
    with pytest.raises(UserError, match="Class '5' of the test split of 'coco' has no box in"):
        source.split("test")


def test_what_is_not_prepared_is_refused(tmp_path):
    with pytest.raises(UserError, match="'voc/2007' is not prepared in"):
        open_boxes("voc", str(tmp_path))
