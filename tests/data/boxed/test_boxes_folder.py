"""Folders with a COCO JSON."""

import json
import sys

import numpy as np
import pytest
import tensorflow as tf

from tfcq.data.boxed.annotated_folder import AnnotatedFolder
from tfcq.data.boxed.box_sources import open_boxes
from tfcq.data.boxed.boxes_folder import BoxesFolderSource
from tfcq.detection.truths import truths_of
from tfcq.errors import UserError

SQUARE = {"segmentation": [[2, 3, 6, 3, 6, 8, 2, 8]]}
# Of an image of 4 x 3: the middle column, counted down the columns from the first.
RUNS = {"segmentation": {"counts": [4, 4, 4], "size": [4, 3]}, "iscrowd": 1}


def refused(path, **options):
    """Returns what is said when a folder is opened and read, in one line."""
    with pytest.raises(UserError) as caught:
        source = BoxesFolderSource(AnnotatedFolder(str(path), **options))
        for name in source.splits:
            source.split(name)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_boxes_are_those_of_the_file_in_our_order(tmp_path, write_split, records):
    boxes = [(0, 1, 2, 3, 4, 5, {}), (1, 0, 0, 0, 3, 4, {"iscrowd": 1}), (0, 0, 1, 1, 2, 2, {})]
    write_split(tmp_path, [(12, 10), (4, 3)], boxes)
    source = open_boxes(f"boxes:{tmp_path}")
    split = source.split("train")
    assert (source.splits, split.class_names, split.masks) == (("train",), ("cat", "dog"), False)
    # The second image has a crowd alone.
    assert (split.size, split.most_boxes, split.names) == (1, 2, ("0.png",))
    (found,) = records(split)
    np.testing.assert_array_equal(found["boxes"], [[3, 2, 8, 6], [1, 1, 3, 3]])
    np.testing.assert_array_equal(found["classes"], [1, 0])
    np.testing.assert_array_equal(found["area"], [10, 2])
    pixels = tf.io.decode_png((tmp_path / "0.png").read_bytes())
    np.testing.assert_array_equal(found["image"], pixels)
    assert not found["difficult"].any() and not found["crowd"].any()


def test_splits_by_folder_and_in_cocos_layout(tmp_path, write_split, records):
    box = [(0, 0, 1, 1, 2, 2, {})]
    write_split(tmp_path / "a" / "train", [(5, 6), (5, 6)], box)
    write_split(tmp_path / "a" / "val", [(5, 6), (7, 6)], [(1, 1, 1, 1, 2, 2, {})] + box)
    coco = tmp_path / "b"
    write_split(coco / "train2017", [(5, 6)], box, "../annotations.json")
    write_split(coco / "val2017", [(5, 6), (5, 6)], box, "../instances_val2017.json")
    (coco / "annotations").mkdir()
    (coco / "annotations.json").rename(coco / "annotations" / "instances_train2017.json")
    found = json.loads((coco / "instances_val2017.json").read_text())
    for image in found["images"]:  # Some tools name images from the root of the folder.
        image["file_name"] = f"val2017/{image['file_name']}"
    (coco / "annotations" / "instances_val2017.json").write_text(json.dumps(found))
    (coco / "instances_val2017.json").unlink()
    by_name = open_boxes(f"boxes:{coco}")
    assert by_name.splits == ("train", "test")
    # Of the test split all images are there, of the training split those with boxes.
    assert [by_name.split(s).size for s in by_name.splits] == [1, 2]
    assert [len(r["boxes"]) for r in records(by_name.split("test"))] == [1, 0]
    assert by_name.split("train").image_shape == (5, 6, 3)
    assert "'dog' of the test split" in refused(tmp_path / "a")


def test_images_without_boxes_are_counted_and_not_trained_on(tmp_path, write_split, caplog):
    write_split(tmp_path, [(5, 6)] * 3, [(1, 0, 1, 1, 2, 2, {})])
    with caplog.at_level("WARNING", "absl"):
        split = open_boxes(f"boxes:{tmp_path}").split("train")
    assert split.size == 1 and "2 of 3 training images have no box" in caplog.text
    write_split(tmp_path, [(5, 6)], [(0, 0, 1, 1, 2, 2, {"iscrowd": 1})])
    assert "None of the 1 training images" in refused(tmp_path)


@pytest.mark.parametrize("box", [(1, 1, 0, 2), (1, 1, 3, -2), (10, 1, 3, 3), (-4, 0, 4, 2)])
def test_box_without_area_is_named_or_left_out(tmp_path, write_split, caplog, box):
    write_split(tmp_path, [(5, 6)], [(0, 0, 1, 1, 2, 2, {}), (0, 1, *box, {})])
    message = refused(tmp_path)
    assert "Annotation 101 of" in message and "(image '0.png')" in message
    assert f"{box[2]} x {box[3]} pixels (1 such)" in message
    with caplog.at_level("WARNING", "absl"):
        split = open_boxes(f"boxes:{tmp_path}", strict=False).split("train")
    assert split.most_boxes == 1 and "Annotation 101" in caplog.text


def test_a_folder_of_grey_images_is_grey_to_what_looks_at_grey_ones(
    tmp_path, write_split, records, caplog
):
    for split in ("train", "test"):
        write_split(tmp_path / split, [(5, 6)], [(0, 0, 1, 1, 2, 2, {})])
    colour = (tmp_path / "test" / "0.png").read_bytes()
    for split in ("train", "test"):
        image = tf.io.encode_png(np.full((5, 6, 1), 9, np.uint8)).numpy()
        (tmp_path / split / "0.png").write_bytes(image)

    def shapes(channels):
        source = BoxesFolderSource(AnnotatedFolder(str(tmp_path)), channels)
        splits = [source.split(name) for name in source.splits]
        assert [records(s)[0]["image"].shape for s in splits] == [s.image_shape for s in splits]
        return [s.image_shape[2] for s in splits]

    assert shapes(1) == [1, 1] and not caplog.text
    with caplog.at_level("WARNING", "absl"):
        assert shapes(3) == [3, 3]
    assert "1 of 1 images of the test split are grey and read as colour" in caplog.text
    (tmp_path / "test" / "0.png").write_bytes(colour)
    assert shapes(1) == [3, 3]


def test_a_held_out_share_is_tested_and_leaves_each_class_to_training(
    tmp_path, write_split, records
):
    # One image alone has a dog; a crowd of dogs teaches none.
    boxes = [(i, i == 3, 1, 1, 2, 2, {}) for i in range(10)]
    write_split(tmp_path, [(5, 6)] * 10, [*boxes, (5, 1, 0, 0, 3, 3, {"iscrowd": 1})])

    def places(share, seed):
        source = open_boxes(f"boxes:{tmp_path}", holdout=share, holdout_seed=seed)
        train, test = source.split("train"), source.split("test")
        np.testing.assert_array_equal(
            records(test)[0]["image"], tf.io.decode_png((tmp_path / test.names[0]).read_bytes())
        )
        return set(train.names), set(test.names)

    everything = {f"{n}.png" for n in range(10)}
    train, test = places(0.5, 0)
    assert len(test) == 5 and train | test == everything and "3.png" in train
    assert places(0.5, 0) == (train, test) != places(0.5, 1)
    # Nine are asked for; a cat and the dog stay.
    train, test = places(0.9, 0)
    assert len(test) == 8 and train | test == everything and "3.png" in train
    write_split(tmp_path, [(5, 6)], boxes[:1])
    message = refused(tmp_path, holdout=0.2)
    assert "--holdout=0.2 with 1 images, each the only one of some class" in message


def test_images_of_16_bits_and_of_grey_are_read_in_colour(tmp_path, write_split, records):
    write_split(tmp_path, [(5, 6), (5, 6)], [(i, 0, 1, 1, 2, 2, {}) for i in (0, 1)])
    deep = np.full((5, 6, 1), 40000, np.uint16)
    for number, image in enumerate((deep, np.full((5, 6, 1), 9, np.uint8))):
        (tmp_path / f"{number}.png").write_bytes(tf.io.encode_png(image).numpy())
    found = records(open_boxes(f"boxes:{tmp_path}").split("train"))
    for one, value in zip(found, (40000 * 255 / 65535, 9), strict=True):
        np.testing.assert_allclose(one["image"], np.full((5, 6, 3), value), atol=0.5)


def test_boxes_are_cut_at_the_image_and_told(tmp_path, write_split, records, caplog):
    write_split(tmp_path, [(5, 6)], [(0, 0, -3, 2, 20, 2, {}), (0, 0, 0, 0, 6.5, 5.5, {})])
    with caplog.at_level("WARNING", "absl"):
        (found,) = records(open_boxes(f"boxes:{tmp_path}").split("train"))
    np.testing.assert_array_equal(found["boxes"], [[2, 0, 4, 6], [0, 0, 5, 6]])
    assert (
        "1 of 2 boxes of" in caplog.text and "reach beyond their image and are cut" in caplog.text
    )
    assert "COCO's boxes are x, y, width, height" in caplog.text


def test_boxes_of_images_are_known_without_reading_one(tmp_path, write_split, records):
    write_split(tmp_path, [(5, 6), (9, 9)], [(0, 1, 1, 1, 2, 2, {}), (1, 0, 3, 3, 4, 5, {})])
    split = open_boxes(f"boxes:{tmp_path}").split("train")
    for path in tmp_path.glob("*.png"):
        path.unlink()
    found = truths_of(split)
    np.testing.assert_array_equal([t.boxes[0] for t in found], [[1, 1, 3, 3], [3, 3, 8, 7]])
    with pytest.raises(tf.errors.OpError, match="can be read no more"):
        records(split)


def test_masks_are_polygons_and_run_lengths(tmp_path, write_split, records):
    coder = pytest.importorskip("pycocotools.mask", reason="pycocotools is not installed")
    packed = coder.encode(np.asfortranarray([[0, 1, 0]] * 4, np.uint8))
    packed = {"segmentation": {**packed, "counts": packed["counts"].decode()}}
    column = (1, 0, 1, 0, 1, 4)
    boxes = [(0, 1, 2, 3, 4, 5, SQUARE), (*column, RUNS), (*column, packed)]
    write_split(tmp_path, [(12, 10), (4, 3)], boxes)
    found = records(open_boxes(f"boxes:{tmp_path}", masks=True).split("train"))
    square = np.zeros((12, 10))
    square[3:8, 2:6] = 1
    np.testing.assert_array_equal(found[0]["masks"], square[None])
    np.testing.assert_array_equal(found[1]["masks"], [[[0, 1, 0]] * 4] * 2)
    write_split(tmp_path, [(12, 10)], [(0, 1, 2, 3, 4, 5, {})])
    assert "boxes without a segmentation" in refused(tmp_path, masks=True)


@pytest.mark.parametrize(
    "segmentation",
    [RUNS["segmentation"], [[1, 1, 2, 2]], [1, 1, 2, 2, 3, 3], {"counts": 3}],
)
def test_what_is_no_segmentation_of_its_image_is_told_in_one_line(
    tmp_path, write_split, segmentation
):
    pytest.importorskip("pycocotools", reason="pycocotools is not installed")
    write_split(tmp_path, [(5, 6)], [(0, 0, 1, 1, 2, 2, {"segmentation": segmentation})])
    split = open_boxes(f"boxes:{tmp_path}", masks=True).split("train")
    with pytest.raises(UserError, match="A segmentation begins with .*; allowed: polygons"):
        truths_of(split, masks=True)


def test_masks_without_their_library_have_a_hint(tmp_path, write_split, monkeypatch):
    write_split(tmp_path, [(12, 10)], [(0, 1, 2, 3, 4, 5, SQUARE)])
    monkeypatch.setitem(sys.modules, "pycocotools", None)
    with pytest.raises(UserError, match="install it with `pip install pycocotools`"):
        open_boxes(f"boxes:{tmp_path}", masks=True)
    assert open_boxes(f"boxes:{tmp_path}").split("train").size == 1


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"annotations": []}, "holds no boxes"),
        ({"categories": []}, "holds no categories"),
        ({"images": 3}, "'images' is '3'; allowed: a list"),
        ({"annotations": [{"image_id": 10, "category_id": 7}]}, "'annotations', 1 has no 'bbox'"),
        (
            {"annotations": [{"image_id": 4, "category_id": 7, "bbox": [1, 1, 2, 2]}]},
            "Annotation in place 1 of",
        ),
        (
            {"annotations": [{"image_id": 10, "category_id": 7, "bbox": [1, 1, 2]}]},
            "a box of 3 numbers; allowed: 4",
        ),
        ({"categories": [{"id": 7, "name": "a"}] * 2}, "lists id 7 twice in 'categories'"),
        (
            {"categories": [{"id": 7, "name": "a"}, {"id": 14, "name": "a"}]},
            "lists name 'a' twice in 'categories'",
        ),
        (
            {"images": [{"id": 10, "file_name": "0.png", "width": 5, "height": 6}]},
            "it is 5 x 6 pixels; allowed: an image of 6 x 5 pixels",
        ),
        (
            {"images": [{"id": 10, "file_name": "9.png", "width": 6, "height": 5}]},
            "Image '9.png' of",
        ),
    ],
)
def test_what_is_no_coco_json_of_these_images_is_refused(tmp_path, write_split, change, told):
    found = write_split(tmp_path, [(5, 6)], [(0, 0, 1, 1, 2, 2, {})])
    (tmp_path / "annotations.json").write_text(json.dumps({**found, **change}))
    assert told in refused(tmp_path)


def test_folders_without_a_json_are_refused(tmp_path):
    assert "has no boxes to train on; allowed: annotations.json" in refused(tmp_path)
    assert "does not exist" in refused(tmp_path / "no")
    (tmp_path / "annotations.json").write_text("{")
    assert "is not JSON" in refused(tmp_path)


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("digits", "'digits' has no boxes; .* Did you mean 'scenes:digits'"),
        ("cocoo", "Did you mean 'coco'"),
        ("VOC/2007", "Did you mean 'voc'"),
        ("folder:/", "Did you mean 'boxes:/'"),
        ("", "Did you mean 'scenes:digits'"),
        ("boxes:", "'boxes:' names no folder"),
        ("box:some/Folder", "Did you mean 'boxes:some/Folder'"),
        ("box", "Did you mean 'boxes:PATH'"),
        ("scenes:no such", "Unknown data set 'no such'"),
    ],
)
def test_data_without_boxes_are_refused(name, told):
    with pytest.raises(UserError, match=told):
        open_boxes(name)
    with pytest.raises(UserError, match="has no masks; allowed: scenes, or boxes:PATH"):
        open_boxes("voc", masks=True)
