"""Published settings of a detection, by name."""

from typing import Any

# MoCo's detectors, whose settings SSQL follows.
_MOCO: dict[str, Any] = {
    "longest_side": 1333,
    "batch_size": 16,
    "learning_rate": 0.02,
    "learning_rate_schedule": "step",
    "weight_decay": 1e-4,
    "exclude": "gamma,beta",
    "clip_gradient": 0.0,
}
DETECTION_PRESETS: dict[str, dict[str, Any]] = {
    # SSQL, Table 6.
    "ssql_voc": {
        **_MOCO,
        "dataset": "voc",
        "detector": "faster_rcnn",
        "shorter_side": "480,512,544,576,608,640,672,704,736,768,800",
        "duration": "24000steps",
        "milestones": "18000steps,22000steps",
        "warmup": "100steps",
        "bits": "fp,8w8a,6w6a,5w5a,4w4a",
    },
    # SSQL, Table 7: MoCo's "1x". TFDS has no masks, which is told where no boxes:PATH is given.
    "ssql_coco": {
        **_MOCO,
        "dataset": "coco",
        "detector": "mask_rcnn",
        "shorter_side": "640,672,704,736,768,800",
        "duration": "90000steps",
        "milestones": "60000steps,80000steps",
        "warmup": "1000steps",
        "bits": "fp,6w6a,5w5a,4w4a",
    },
    # Contrastive Quant, Table 3; what its section 4.4 does not say is YOLOv4's.
    "cq_voc": {
        "dataset": "voc",
        "detector": "yolov4",
        "shorter_side": "416",
        "longest_side": 416,
        "mosaic": True,
        "epochs": 50,
        "batch_size": 8,
        "learning_rate": 1e-4,
        "learning_rate_schedule": "cosine",
        "momentum": 0.9,
        "weight_decay": 5e-4,
        "warmup": "0epochs",
        "clip_gradient": 0.0,
        "bits": "fp,6w6a,4w4a",
    },
}


def with_preset(values: dict[str, Any]) -> dict[str, Any]:
    """Returns what was asked for, and what its preset says of the rest.

    Args:
        values: value of each setting that was asked for.
    """
    preset = dict(DETECTION_PRESETS.get(values.get("preset") or "", {}))
    if "epochs" in values:
        # The length that was asked for, not the preset's in steps.
        preset.pop("duration", None)
    if values.get("learning_rate_schedule", "step") != "step":
        preset.pop("milestones", None)
    return {**preset, **values}
