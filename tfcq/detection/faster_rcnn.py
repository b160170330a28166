"""Faster R-CNN with the first three stages of a ResNet as its trunk (R18-C4, R50-C4)."""

import dataclasses
from collections.abc import Mapping
from typing import Any, TypeVar

import keras
import tensorflow as tf
from keras import layers

from tfcq.backbones.convolution import batch_norm
from tfcq.detection.box_head import Regions, box_losses, detections, with_box_outputs
from tfcq.detection.detector import Batch, Detector
from tfcq.detection.parts import STRIDES, any_size, part_policy, trunk_and_last_stage
from tfcq.detection.region_proposals import (
    ProposalSettings,
    Proposed,
    proposal_head,
    proposal_losses,
    proposals,
    proposed,
)
from tfcq.detection.roi_align import roi_align
from tfcq.detection.suppression import Kept
from tfcq.nn.quantizable import QuantizableModel, quantizable
from tfcq.settings.detection import DetectionConfig
from tfcq.settings.detection_groups import LARGE_IMAGE
from tfcq.settings.policies import Policy, policy_named

_STRIDE = STRIDES[3]
# detectron2's: of regions, cells a side that the last stage reads.
_CELLS = 14


@dataclasses.dataclass(frozen=True)
class FasterRCNNSettings:
    """Settings of the detector; detectron2's by default.

    Args:
        anchor_sizes: square roots of the anchors' areas, in pixels.
        proposals_before: proposals that go into non-maximum suppression, in training and else.
        proposals: proposals that are kept, in training and else.
        sampled_anchors: anchors of an image that a step learns from.
        sampled_regions: regions of an image that a step learns from.
        cells: cells a side at which regions are read.
    """

    anchor_sizes: tuple[float, ...] = (32, 64, 128, 256, 512)
    proposals_before: tuple[int, int] = (12000, 6000)
    proposals: tuple[int, int] = (2000, 1000)
    sampled_anchors: int = 256
    sampled_regions: int = 512
    cells: int = _CELLS

    @property
    def of_proposals(self) -> ProposalSettings:
        """Those of the region proposals."""
        return ProposalSettings(
            (self.anchor_sizes,),
            (_STRIDE,),
            before=self.proposals_before,
            kept=self.proposals,
            sampled=self.sampled_anchors,
        )


_Settings = TypeVar("_Settings", bound=FasterRCNNSettings)


class FasterRCNN(Detector):
    """Faster R-CNN on one feature map.

    Args:
        parts: `trunk`, `proposals` and `box_head`, from `faster_rcnn_parts`.
        class_count: number of classes.
        settings: the settings.
        seed: draws what a step learns from.
    """

    LOSSES = ("objectness", "proposal_boxes", "classes", "boxes")
    HEADS = ("proposals*", "box_*")
    READ_REGIONS = ("box_head",)

    def __init__(
        self,
        parts: Mapping[str, QuantizableModel],
        class_count: int,
        settings: FasterRCNNSettings = FasterRCNNSettings(),
        seed: int = 0,
    ) -> None:
        super().__init__(parts, class_count, _STRIDE, seed, "faster_rcnn")
        self.settings = settings

    def find(self, images: tf.Tensor, sizes: tf.Tensor, precision: Any = None) -> Kept:
        """Returns the objects in images; see `Detector`."""
        features, made = self._proposed(images, precision, training=False)
        kept = proposals(made, sizes, self.settings.of_proposals, training=False)
        outputs = self._outputs(features, kept.boxes, precision, training=False)
        return detections(kept, outputs, sizes)

    def losses_of(self, batch: Batch, precision: Any, seed: tf.Tensor) -> dict[str, tf.Tensor]:
        """Returns the losses of a training batch; see `Detector`."""
        boxes, classes = batch["boxes"], batch["classes"]
        features, made = self._proposed(batch["images"], precision, training=True)
        of_proposals = self.settings.of_proposals
        losses = proposal_losses(made, boxes, classes, of_proposals, seed)
        kept = proposals(made, batch["sizes"], of_proposals, training=True)
        regions = Regions(
            kept, boxes, classes, self.class_count, self.settings.sampled_regions, seed + 1
        )
        outputs = self._outputs(features, regions.boxes, precision, training=True)
        return {**losses, **box_losses(regions, outputs, boxes)}

    def with_parts(self, parts: Mapping[str, QuantizableModel]) -> "FasterRCNN":
        """Returns a detector of other networks; see `Detector`."""
        return FasterRCNN(parts, self.class_count, self.settings, self.seed)

    def _proposed(
        self, images: tf.Tensor, precision: Any, training: bool
    ) -> tuple[tf.Tensor, Proposed]:
        features = self.run("trunk", images, precision, training)
        outputs = self.run("proposals", features, precision, training)
        return features, proposed([outputs], self.settings.of_proposals)

    def _outputs(
        self, features: tf.Tensor, boxes: tf.Tensor, precision: Any, training: bool
    ) -> Any:
        regions = roi_align(features, boxes, self.settings.cells, _STRIDE)
        flat = tf.reshape(regions, [-1, *regions.shape[2:]])
        return self.run("box_head", flat, precision, training)


def faster_rcnn(
    config: DetectionConfig, backbone: keras.Model, class_count: int, shorter: int
) -> FasterRCNN:
    """Returns a Faster R-CNN; see `tfcq.detection.kinds.detector_from`."""
    settings = _settings(config, shorter)
    parts = faster_rcnn_parts(backbone, class_count, config.policy, settings, config.head_policy)
    return FasterRCNN(parts, class_count, settings, config.measurement.seed)


def _settings(config: DetectionConfig, shorter: int) -> FasterRCNNSettings:
    usual = FasterRCNNSettings()
    if shorter < LARGE_IMAGE:
        sizes = tuple(float(size) for size in (16, 32, 64, 128) if size <= shorter)
        usual = FasterRCNNSettings(
            sizes, proposals_before=(256, 128), proposals=(128, 64), sampled_anchors=64,
            sampled_regions=32, cells=8,
        )  # fmt: skip
    return with_asked(usual, config)


def with_asked(usual: _Settings, config: DetectionConfig) -> _Settings:
    """Returns a detector's settings with what a user asks for in their place.

    Args:
        usual: the settings.
        config: what is asked for.
    """
    asked = config.detector
    kept = (asked.proposals, asked.proposals) if asked.proposals else usual.proposals
    before = usual.proposals_before
    before = (max(before[0], kept[0]), max(before[1], kept[1]))
    return dataclasses.replace(
        usual,
        anchor_sizes=config.anchor_sizes or usual.anchor_sizes,
        proposals_before=before,
        proposals=kept,
        sampled_regions=asked.sampled_regions or usual.sampled_regions,
    )


def faster_rcnn_parts(
    backbone: keras.Model,
    class_count: int,
    policy: str | Policy,
    settings: FasterRCNNSettings = FasterRCNNSettings(),
    head_policy: str | Policy | None = None,
) -> dict[str, QuantizableModel]:
    """Returns the networks of a Faster R-CNN, with a backbone's weights where it has them.

    As in MoCo's detectors a batch norm stands behind the last stage.

    Args:
        backbone: a ResNet with the stem for large images.
        class_count: number of classes.
        policy: how the backbone is quantized.
        settings: the settings.
        head_policy: how what is not the backbone is quantized; None for `policy`.

    Raises:
        UserError: on another backbone.
    """
    trunk, stage = trunk_and_last_stage(any_size(backbone))
    anchors = len(settings.anchor_sizes) * len(settings.of_proposals.ratios)
    x = batch_norm(stage.output, "box")
    x = layers.GlobalAveragePooling2D(name="box_pool")(x)
    head = with_box_outputs(keras.Model(stage.input, x), class_count)
    policy = policy_named(policy)
    of_stage = part_policy(head, policy, FasterRCNN.HEADS if head_policy else ())
    return {
        "trunk": quantizable(trunk, policy),
        "proposals": quantizable(
            proposal_head(trunk.output_shape[-1], anchors), head_policy or policy,
            reads_images=False,
        ),
        "box_head": quantizable(head, of_stage, reads_images=False),
    }  # fmt: skip
