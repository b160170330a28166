"""Detections as COCO's results, scored by pycocotools itself against the user's own JSON."""

import contextlib
import io
import json

import numpy as np
import pytest

from tests.data.boxed.conftest import write_png
from tests.detection import small
from tests.detection.scored import detections_of, truths_of
from tfcq.data.boxed.box_sources import open_boxes
from tfcq.detection.average_precision import Detections
from tfcq.detection.coco_results import coco_results
from tfcq.detection.truths import truths_of as truths_in

SIDE = 64
# By class number in training; the test split lists others, and has no box of the last.
TRAIN = {"cat": 1, "dog": 2, "emu": 3, "yak": 4}
TEST = {"emu": 30, "cat": 20, "dog": 4}


def written(folder, truths, ids):
    """Writes images and their JSON; returns the file."""
    images, annotations = [], []
    for number, truth in enumerate(truths):
        write_png(folder / f"{number}.png", SIDE, SIDE)
        # Ids in no order.
        image = 100 - number
        size = {"height": SIDE, "width": SIDE}
        images.append({"id": image, "file_name": f"{number}.png", **size})
        for box, place, crowd, area, mask in zip(
            truth.boxes.tolist(), truth.classes, truth.crowd, truth.area, truth.masks, strict=True
        ):
            y1, x1, y2, x2 = box
            annotations.append(
                {
                    "id": len(annotations) + 1, "image_id": image,
                    "category_id": ids[list(TRAIN)[place]], "bbox": [x1, y1, x2 - x1, y2 - y1],
                    "iscrowd": int(crowd), "area": float(area),
                    "segmentation": {**mask, "counts": mask["counts"].decode()},
                }
            )  # fmt: skip
    categories = [{"id": number, "name": name} for name, number in ids.items()]
    made = {"images": images, "categories": categories, "annotations": annotations}
    file = folder / "annotations.json"
    file.write_text(json.dumps(made))
    return file


def test_pycocotools_gives_the_same_figures_of_the_users_own_json(vectors, tmp_path):
    pytest.importorskip("pycocotools", reason="pycocotools is not installed")
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    from tfcq.detection.coco_precision import coco_figures, encoded_masks

    truths = truths_of(vectors, difficult=False, encode=encoded_masks)
    found = detections_of(vectors, encoded_masks)
    # What the test split does not list counts nowhere.
    found[0] = Detections(
        *(np.concatenate([column, column[:1]]) for column in (found[0].boxes, found[0].scores)),
        np.append(found[0].classes, 3), [*found[0].masks, found[0].masks[0]],
    )  # fmt: skip
    written(tmp_path / "train", truths, TRAIN)
    truth = written(tmp_path / "test", truths, TEST)
    split = open_boxes(f"boxes:{tmp_path}", masks=True).split("test")
    results = json.loads(json.dumps(coco_results(split, found)))
    assert len(results) == sum(len(one.boxes) for one in found)
    assert not {one["category_id"] for one in results} <= set(TEST.values())
    with contextlib.redirect_stdout(io.StringIO()):
        known = COCO(str(truth))
        # As detectron2 does: beside a box its area counts, not the mask's.
        of_masks = [{k: v for k, v in one.items() if k != "bbox"} for one in results]
        for kind, rows in (("bbox", results), ("segm", of_masks)):
            rule = COCOeval(known, known.loadRes(rows), kind)
            rule.evaluate()
            rule.accumulate()
            rule.summarize()
            own = coco_figures(truths_in(split, masks=True), found, 4, masks=kind == "segm")
            expected = [None if value < 0 else 100 * value for value in rule.stats[:6]]
            assert list(own.values()) == pytest.approx(expected, abs=1e-9)
            assert 5 < own["AP"] < 95


def test_images_without_ids_of_their_own_are_told_by_their_place():
    split = small.scenes().split("test")
    one = Detections(np.float32([[1, 2, 3, 5]]), np.array([0.5]), np.array([7]))
    nothing = Detections(np.zeros((0, 4)), np.zeros(0), np.zeros(0, int))
    found = [nothing] * (split.size - 1) + [one]
    expected = {"image_id": 5, "category_id": 7, "bbox": [2, 1, 3, 2], "score": 0.5}
    assert coco_results(split, found) == [expected]
    # A part of the images keeps its places.
    assert coco_results(split.subset([3, 5]), found[-2:]) == [expected]
