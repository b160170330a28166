#!/usr/bin/env python
"""Writes tests/vectors/detection.npz: what torchvision, detectron2 and pycocotools give.

None of them is a dependency; run it where torch, torchvision and pycocotools are installed, with a
checkout of detectron2 (commit 02b5c4e2), of which single functions are read and nothing is built:

    python tools/detection_vectors.py --detectron2=DIR

Boxes are turned from their order (x1, y1, x2, y2) to ours, features from channels first to last.
"""

import argparse
import ast
import contextlib
import functools
import io
import math
import pathlib
import tempfile
import xml.etree.ElementTree as ET
from types import SimpleNamespace

import numpy as np

ROOT = pathlib.Path(__file__).parents[1]
TARGET = ROOT / "tests" / "vectors" / "detection.npz"
TURNED = [1, 0, 3, 2]


def read(folder: pathlib.Path, file: str, names: list[str], known: dict) -> SimpleNamespace:
    """Returns functions and classes of a file of detectron2, alone."""
    body = list(ast.walk(ast.parse((folder / "detectron2" / file).read_text())))
    space = dict(known)
    for name in names:
        node = next(node for node in body if getattr(node, "name", None) == name)
        node.decorator_list = []
        exec(compile(ast.Module([node], []), file, "exec"), space)
    return SimpleNamespace(**{name: space[name] for name in names})


def random_boxes(rng: np.random.Generator, count: int, side: float = 60.0) -> np.ndarray:
    """Returns boxes (x1, y1, x2, y2), some beyond an image of this side."""
    corner = rng.uniform(-5, side - 5, (count, 2))
    return np.concatenate([corner, corner + rng.uniform(2, side / 2, (count, 2))], 1).astype("f4")


def overlap_vectors(folder: pathlib.Path) -> dict:
    """Returns overlaps, complete IoU with its gradient, coded and decoded boxes."""
    import torch
    from torchvision.ops import box_iou, complete_box_iou_loss

    rng = np.random.default_rng(0)
    boxes, others = random_boxes(rng, 12), random_boxes(rng, 12)
    others[0], others[1] = boxes[0], boxes[1] + 100
    given = torch.tensor(boxes, requires_grad=True)
    loss = complete_box_iou_loss(given, torch.tensor(others))
    loss.sum().backward()
    coding = read(
        folder, "modeling/box_regression.py", ["Box2BoxTransform"],
        {"math": math, "torch": torch, "Tuple": tuple, "_DEFAULT_SCALE_CLAMP": math.log(1000 / 16)},
    ).Box2BoxTransform((10.0, 10.0, 5.0, 5.0))  # fmt: skip
    changes = rng.normal(0, 4, (12, 4)).astype("f4")
    changes[0, 2:] = 40.0
    anchors = torch.tensor(others)
    return {
        "boxes": boxes[:, TURNED], "others": others[:, TURNED],
        "iou": box_iou(torch.tensor(boxes), torch.tensor(others)).numpy(),
        "complete_iou": 1 - loss.detach().numpy(),
        "complete_iou_gradient": -given.grad.numpy()[:, TURNED],
        "coded": coding.get_deltas(anchors, torch.tensor(boxes)).numpy()[:, TURNED],
        "changes": changes[:, TURNED],
        "decoded": coding.apply_deltas(torch.tensor(changes), anchors).numpy()[:, TURNED],
    }  # fmt: skip


def suppression_vectors() -> dict:
    """Returns what non-maximum suppression leaves of an image, each class by itself."""
    import torch
    from torchvision.ops import batched_nms

    rng = np.random.default_rng(1)
    boxes, scores = random_boxes(rng, 60, 40.0), rng.uniform(size=(60, 3)).astype("f4")
    box, class_ = np.nonzero(scores > 0.2)
    flat = torch.tensor(boxes[box]), torch.tensor(scores[box, class_])
    kept = batched_nms(*flat, torch.tensor(class_), 0.5).numpy()[:20]
    return {
        "nms_boxes": boxes[:, TURNED], "nms_scores": scores,
        "nms_kept_boxes": boxes[box[kept]][:, TURNED],
        "nms_kept_scores": scores[box[kept], class_[kept]],
        "nms_kept_classes": class_[kept],
    }  # fmt: skip


def anchor_vectors(folder: pathlib.Path) -> dict:
    """Returns anchors of a map of 3 x 4 cells, and how they match with three boxes."""
    import torch

    made = read(
        folder, "modeling/anchor_generator.py", ["generate_cell_anchors", "_create_grid_offsets"],
        {"torch": torch, "math": math, "List": list, "move_device_like": lambda new, _: new},
    )  # fmt: skip
    cell = made.generate_cell_anchors(None, (8, 20), (0.5, 1.0, 2.0))
    x, y = made._create_grid_offsets([3, 4], 8, 0.0, cell)
    grid = torch.stack((x, y, x, y), 1)
    anchors = (grid.view(-1, 1, 4) + cell.view(1, -1, 4)).reshape(-1, 4)
    from torchvision.ops import box_iou

    boxes = torch.tensor([[2.0, 2, 20, 19], [17, 9, 23, 16], [0, 0, 3, 3]])
    iou = box_iou(boxes, anchors)
    known = {"torch": torch, "List": list, "nonzero_tuple": lambda x: x.nonzero().unbind(1)}
    matcher = read(folder, "modeling/matcher.py", ["Matcher"], known).Matcher
    found = {"anchors": anchors.numpy()[:, TURNED], "matched_boxes": boxes.numpy()[:, TURNED]}
    for name, rule in {
        "proposals": matcher([0.3, 0.7], [0, -1, 1], allow_low_quality_matches=True),
        "head": matcher([0.5], [0, 1]),
    }.items():
        matches, labels = rule(iou)
        found |= {f"{name}_matches": matches.numpy(), f"{name}_labels": labels.numpy()}
    return found


def region_vectors(folder: pathlib.Path) -> dict:
    """Returns RoIAlign of two small maps, with its gradient, and levels of a pyramid."""
    import torch
    from torchvision.ops import roi_align

    rng = np.random.default_rng(2)
    features = rng.normal(size=(2, 3, 7, 9)).astype("f4")
    boxes = [random_boxes(rng, 6, 70.0) for _ in range(2)]
    boxes[0][0], boxes[0][1] = [-30, -30, 20, 20], [60, 40, 90, 80]
    boxes[1][0] = [0, 0, 72, 56]
    given = torch.tensor(features, requires_grad=True)
    pooled = roi_align(given, [torch.tensor(b) for b in boxes], 3, 1 / 8, 2, aligned=True)
    upstream = rng.normal(size=pooled.shape).astype("f4")
    (pooled * torch.tensor(upstream)).sum().backward()
    sides = np.array([20, 27.9, 28, 56, 112, 223, 224, 300, 448, 900], "f4")
    level_boxes = np.stack([sides * 0, sides * 0, sides, sides], 1)
    known = {"torch": torch, "List": list, "Boxes": object, "cat": torch.cat}
    levels = read(folder, "modeling/poolers.py", ["assign_boxes_to_levels"], known)
    areas = SimpleNamespace(area=lambda: torch.tensor(sides) ** 2)
    last = [0, 2, 3, 1]
    return {
        "features": features.transpose(last), "regions": np.stack(boxes)[..., TURNED],
        "pooled": pooled.detach().numpy().transpose(last).reshape(2, 6, 3, 3, 3),
        "pooled_upstream": upstream.transpose(last).reshape(2, 6, 3, 3, 3),
        "features_gradient": given.grad.numpy().transpose(last),
        "level_boxes": level_boxes,
        "levels": levels.assign_boxes_to_levels([areas], 2, 5, 224, 4).numpy(),
    }  # fmt: skip


def mask_vectors(folder: pathlib.Path) -> dict:
    """Returns masks of 6 x 6 pasted into an image of 20 x 24."""
    import torch

    rng = np.random.default_rng(4)
    masks = rng.uniform(size=(5, 6, 6)).astype("f4")
    boxes = random_boxes(rng, 5, 26.0)
    rule = read(
        folder, "layers/mask_ops.py", ["_do_paste_mask"],
        {"torch": torch, "F": torch.nn.functional},
    )  # fmt: skip
    given = torch.tensor(masks)[:, None], torch.tensor(boxes)
    pasted = rule._do_paste_mask(*given, 20, 24, skip_empty=False)[0].numpy()
    return {"masks": masks, "mask_boxes": boxes[:, TURNED], "pasted": pasted}


def scored_scenes() -> dict:
    """Returns boxes of 12 images and detections, near ones, wrong ones and doubled ones.

    All are whole pixels, as VOC's files have them, and scores have three digits, so that
    detectron2's text files lose nothing. Of a mask the upper part of the box is filled.
    """
    rng = np.random.default_rng(3)
    truth, found = [], []
    for image in range(12):
        for _ in range(rng.integers(1, 7)):
            y, x = rng.integers(0, 40, 2)
            height, width = rng.integers(4, 24, 2)
            class_ = rng.integers(3)
            difficult, crowd = rng.uniform() < 0.2, rng.uniform() < 0.15
            truth.append([image, y, x, y + height, x + width, class_, difficult, crowd])
            for _ in range(rng.integers(0, 4)):
                moved = np.array([y, x, y + height, x + width]) + rng.integers(-2, 3, 4)
                moved = np.clip(moved, 0, 64)
                guessed = class_ if rng.uniform() < 0.85 else rng.integers(3)
                found.append([image, *moved, guessed, 0])
        for _ in range(rng.integers(0, 3)):
            y, x = rng.integers(0, 50, 2)
            found.append([image, y, x, y + 9, x + 11, rng.integers(3), 0])
    truth, found = np.array(truth, float), np.array(found, float)
    # No score stands twice: how ties are broken is nobody's rule.
    found[:, 6] = rng.permutation(np.arange(1, 1000))[: len(found)] / 1000
    return {"truth": truth, "found": found}


def voc_vectors(folder: pathlib.Path, truth: np.ndarray, found: np.ndarray) -> dict:
    """Returns detectron2's VOC precision [thresholds, classes] of 11 points and of areas."""
    names = ["voc_ap", "voc_eval", "parse_rec"]
    known = {"np": np, "ET": ET, "PathManager": SimpleNamespace(open=open), "lru_cache": None}
    rule = read(folder, "evaluation/pascal_voc_evaluation.py", names, known)
    results = {}
    with tempfile.TemporaryDirectory() as temporary:
        root = pathlib.Path(temporary)
        images = sorted(set(truth[:, 0].astype(int)))
        (root / "images.txt").write_text("\n".join(map(str, images)))
        for image in images:
            objects = [
                f"<object><name>{int(c)}</name><pose>-</pose><truncated>0</truncated>"
                f"<difficult>{int(d)}</difficult><bndbox><xmin>{int(x1) + 1}</xmin>"
                f"<ymin>{int(y1) + 1}</ymin><xmax>{int(x2)}</xmax><ymax>{int(y2)}</ymax></bndbox>"
                "</object>"
                for i, y1, x1, y2, x2, c, d, _ in truth
                if i == image
            ]
            (root / f"{image}.xml").write_text(f"<a>{''.join(objects)}</a>")
        for class_ in range(3):
            lines = [
                f"{int(i)} {score:.3f} {x1 + 1:.1f} {y1 + 1:.1f} {x2:.1f} {y2:.1f}"
                for i, y1, x1, y2, x2, c, score in found
                if c == class_
            ]
            (root / f"{class_}.txt").write_text("\n".join(lines))
        for name, eleven in (("voc_points", True), ("voc_area", False)):
            scored = functools.partial(
                rule.voc_eval, f"{root}/{{}}.txt", f"{root}/{{}}.xml", root / "images.txt"
            )
            results[name] = np.array(
                [[scored(str(c), t / 100, eleven)[2] for c in range(3)] for t in range(50, 100, 5)]
            )
    return results


def coco_vectors(truth: np.ndarray, found: np.ndarray) -> dict:
    """Returns the twelve figures of pycocotools, of boxes and of masks, with crowds."""
    from pycocotools import mask as masks
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    def rle(y1: float, x1: float, y2: float, x2: float) -> dict:
        mask = np.zeros((64, 64), np.uint8, order="F")
        mask[int(y1) : int(y1 + 0.7 * (y2 - y1)) + 1, int(x1) : int(x2)] = 1
        return masks.encode(mask)

    results = {}
    with contextlib.redirect_stdout(io.StringIO()):
        coco, images = COCO(), sorted(set(truth[:, 0].astype(int)))
        coco.dataset = {
            "images": [{"id": i, "height": 64, "width": 64} for i in images],
            "categories": [{"id": c} for c in range(3)],
            "annotations": [
                {
                    "id": n, "image_id": int(i), "category_id": int(c), "iscrowd": int(crowd),
                    "bbox": [x1, y1, x2 - x1, y2 - y1], "segmentation": (r := rle(y1, x1, y2, x2)),
                    "area": float(masks.area(r)),
                }
                for n, (i, y1, x1, y2, x2, c, _, crowd) in enumerate(truth, 1)
            ],
        }  # fmt: skip
        coco.createIndex()
        for kind in ("bbox", "segm"):
            results[f"coco_{kind}"] = _coco_figures(coco, found, kind, rle, COCOeval)
    return results


def _coco_figures(coco, found: np.ndarray, kind: str, rle, rule) -> np.ndarray:
    detections = [
        {"image_id": int(i), "category_id": int(c), "score": score}
        | ({"segmentation": rle(y1, x1, y2, x2)} if kind == "segm" else {})
        | ({"bbox": [x1, y1, x2 - x1, y2 - y1]} if kind == "bbox" else {})
        for i, y1, x1, y2, x2, c, score in found
    ]
    scored = rule(coco, coco.loadRes(detections), kind)
    scored.evaluate()
    scored.accumulate()
    scored.summarize()
    return scored.stats


def main() -> None:
    """Writes the file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--detectron2", type=pathlib.Path, required=True, help="its checkout")
    folder = parser.parse_args().detectron2
    vectors = {**overlap_vectors(folder), **suppression_vectors(), **anchor_vectors(folder)}
    scenes = scored_scenes()
    vectors |= {**region_vectors(folder), **mask_vectors(folder), **scenes}
    vectors |= {**voc_vectors(folder, **scenes), **coco_vectors(**scenes)}
    np.savez_compressed(TARGET, **vectors)
    print(f"{TARGET}: {TARGET.stat().st_size} bytes")


if __name__ == "__main__":
    main()
