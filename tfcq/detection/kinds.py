"""Detectors by name, from settings and a backbone."""

from collections.abc import Callable

import keras

from tfcq.detection.detector import Detector
from tfcq.detection.faster_rcnn import faster_rcnn
from tfcq.detection.mask_rcnn import mask_rcnn
from tfcq.detection.yolo import yolov4
from tfcq.settings.detection import DetectionConfig

_DETECTORS: dict[str, Callable[[DetectionConfig, keras.Model, int, int], Detector]] = {
    "faster_rcnn": faster_rcnn,
    "mask_rcnn": mask_rcnn,
    "yolov4": yolov4,
}


def detector_from(
    config: DetectionConfig, backbone: keras.Model, class_count: int, shorter: int
) -> Detector:
    """Returns a float detector with quantizable networks.

    Args:
        config: the settings.
        backbone: its backbone.
        class_count: number of classes.
        shorter: length of the shorter side of scored images, in pixels; small images get a smaller
            detector.

    Raises:
        UserError: on a backbone that cannot detect.
    """
    return _DETECTORS[config.detector.detector](config, backbone, class_count, shorter)
