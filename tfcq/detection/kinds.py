"""Detectors by name, from settings and a backbone."""

import keras

from tfcq.detection.detector import Detector
from tfcq.detection.faster_rcnn import FasterRCNN, FasterRCNNSettings, faster_rcnn_parts
from tfcq.settings.detection import DetectionConfig

# Images with a shorter side below this get a smaller detector.
_LARGE = 320


def detector_from(
    config: DetectionConfig, backbone: keras.Model, class_count: int, shorter: int
) -> Detector:
    """Returns a float detector with quantizable networks.

    Args:
        config: the settings.
        backbone: its backbone.
        class_count: number of classes.
        shorter: length of the shorter side of scored images, in pixels.

    Raises:
        UserError: on a backbone that cannot detect.
    """
    settings = _settings(config, shorter)
    parts = faster_rcnn_parts(
        backbone, class_count, config.detector.policy, settings, config.head_policy
    )
    return FasterRCNN(parts, class_count, settings, config.measurement.seed)


def _settings(config: DetectionConfig, shorter: int) -> FasterRCNNSettings:
    usual, asked = FasterRCNNSettings(), config.detector
    if shorter < _LARGE:
        sizes = tuple(float(size) for size in (8, 16, 32, 64, 128) if 12 <= size <= shorter)
        usual = FasterRCNNSettings(
            sizes, proposals_before=(256, 128), proposals=(128, 64), sampled_anchors=64,
            sampled_regions=32, cells=8,
        )  # fmt: skip
    kept = (asked.proposals, asked.proposals) if asked.proposals else usual.proposals
    return FasterRCNNSettings(
        config.anchor_sizes or usual.anchor_sizes,
        tuple(max(pair) for pair in zip(usual.proposals_before, kept, strict=True)),
        kept,
        usual.sampled_anchors,
        asked.sampled_regions or usual.sampled_regions,
        usual.cells,
    )
