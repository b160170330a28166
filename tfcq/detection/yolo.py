"""YOLOv4 on a ResNet (Bochkovskiy et al., 2020): one network finds objects at three strides."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import keras
import tensorflow as tf

from tfcq.detection.boxes import clip
from tfcq.detection.detector import Batch, Detector
from tfcq.detection.parts import any_size, stage_outputs
from tfcq.detection.suppression import Kept, suppressed
from tfcq.detection.yolo_neck import PREFIX, with_yolo_outputs
from tfcq.detection.yolo_targets import STRIDES, Shapes, cells, decoded, yolo_losses
from tfcq.errors import UserError
from tfcq.nn.quantizable import QuantizableModel, quantizable
from tfcq.settings.detection import DetectionConfig
from tfcq.settings.detection_groups import LARGE_IMAGE
from tfcq.settings.policies import ALL_FLOAT, Policy

# Those of the authors' yolov4.cfg, height first. They go with the strides, not with the images:
# scaled to scenes of 96 pixels, the finest level learned from no box, and the coarsest, of 3 x 3
# cells, from every one.
_SHAPES = (
    (16, 12), (36, 19), (28, 40), (75, 36), (55, 76), (146, 72), (110, 142), (243, 192), (401, 459),
)  # fmt: skip
# The authors', with which they score.
_SCORE, _IOU, _MOST = 0.005, 0.45, 100


@dataclasses.dataclass(frozen=True)
class YoloSettings:
    """Settings of the detector; the authors' by default.

    Args:
        shapes: heights and widths of the anchors in pixels, three of each level, finest first.
        depth: convolutions of the neck where levels join.
        class_weight: weight of the classes' loss.
    """

    shapes: Shapes = _SHAPES
    depth: int = 5
    class_weight: float = 1.0


class Yolo(Detector):
    """YOLOv4 on a ResNet.

    Args:
        parts: `network`, from `yolo_parts`.
        class_count: number of classes.
        settings: the settings.
        seed: unused, since a step draws nothing but what its quantizers do.
    """

    LOSSES = ("objectness", "boxes", "classes")
    # Patterns of layers that are not the backbone's.
    HEADS = (f"{PREFIX}*",)

    def __init__(
        self,
        parts: Mapping[str, QuantizableModel],
        class_count: int,
        settings: YoloSettings = YoloSettings(),
        seed: int = 0,
    ) -> None:
        super().__init__(parts, class_count, STRIDES[-1], seed, "yolov4")
        self.settings = settings

    def find(self, images: tf.Tensor, sizes: tf.Tensor, precision: Any = None) -> Kept:
        """Returns the objects in images; see `Detector`."""
        outputs = self.run("network", images, precision, training=False)
        of = cells(tf.shape(images)[1:3], self.settings.shapes)
        boxes = clip(decoded(outputs[..., :4], of), sizes)
        scores = tf.sigmoid(outputs[..., 4:5]) * tf.sigmoid(outputs[..., 5:])
        return suppressed(boxes, scores, _MOST, _IOU, _SCORE)

    def losses_of(self, batch: Batch, precision: Any, seed: tf.Tensor) -> dict[str, tf.Tensor]:
        """Returns the losses of a training batch; see `Detector`."""
        images = batch["images"]
        outputs = self.run("network", images, precision, training=True)
        size = tf.shape(images)[1:3]
        losses = yolo_losses(outputs, batch["boxes"], batch["classes"], size, self.settings.shapes)
        return {**losses, "classes": self.settings.class_weight * losses["classes"]}

    def with_parts(self, parts: Mapping[str, QuantizableModel]) -> "Yolo":
        """Returns a detector of other networks; see `Detector`."""
        return Yolo(parts, self.class_count, self.settings, self.seed)


def yolov4(config: DetectionConfig, backbone: keras.Model, class_count: int, shorter: int) -> Yolo:
    """Returns a YOLOv4; see `tfcq.detection.kinds.detector_from`."""
    settings = YoloSettings()
    if shorter < LARGE_IMAGE:
        # Trained for few steps, in which a deep neck was seen to learn classes last.
        settings = YoloSettings(depth=1, class_weight=3.0)
    parts = yolo_parts(backbone, class_count, config.policy, settings, config.head_policy)
    return Yolo(parts, class_count, settings, config.measurement.seed)


def yolo_parts(
    backbone: keras.Model,
    class_count: int,
    policy: str | Policy,
    settings: YoloSettings = YoloSettings(),
    head_policy: Policy | None = None,
) -> dict[str, QuantizableModel]:
    """Returns the network of a YOLOv4, with a backbone's weights where it has them.

    It is a single one of one output, so that every step after training can be taken on it.

    Args:
        backbone: a ResNet with the stem for large images.
        class_count: number of classes.
        policy: how it is quantized.
        settings: the settings.
        head_policy: None where neck and outputs are quantized like the backbone; `ALL_FLOAT` where
            they stay in float.

    Raises:
        UserError: on another backbone, or another policy of neck and outputs.
    """
    if head_policy not in (None, ALL_FLOAT):
        raise UserError(
            f"Policy {head_policy.name!r} of neck and outputs; allowed: that of the backbone, or "
            f"{ALL_FLOAT.name!r}."
        )
    network = yolo_network(backbone, class_count, settings)
    kept = dict.fromkeys(Yolo.HEADS, "fp") if head_policy else None
    return {"network": quantizable(network, policy, overrides=kept)}


def yolo_network(
    backbone: keras.Model, class_count: int, settings: YoloSettings = YoloSettings()
) -> keras.Model:
    """Returns the float network, from images of any size to what `with_yolo_outputs` says.

    Args:
        backbone: a ResNet with the stem for large images.
        class_count: number of classes.
        settings: the settings.

    Raises:
        UserError: on another backbone.
    """
    whole = any_size(backbone)
    stages = stage_outputs(whole)
    anchors = len(settings.shapes) // len(STRIDES)
    return with_yolo_outputs(
        whole.inputs[0], [stages[stage] for stage in (2, 3, 4)], class_count, anchors,
        settings.depth,
    )  # fmt: skip
