"""Mask R-CNN with a feature pyramid (R50-FPN): boxes, and a mask in each."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import keras
import tensorflow as tf
from keras import layers

from tfcq.detection.box_head import Regions, box_losses, detections, with_box_outputs
from tfcq.detection.detector import Batch, Detector
from tfcq.detection.faster_rcnn import FasterRCNNSettings, with_asked
from tfcq.detection.mask_head import mask_head, mask_loss, of_class
from tfcq.detection.parts import any_size, stage_outputs
from tfcq.detection.pyramid import LEVEL_STRIDES, feature_pyramid
from tfcq.detection.region_proposals import (
    ProposalSettings,
    Proposed,
    proposal_head,
    proposal_losses,
    proposals,
    proposed,
)
from tfcq.detection.roi_align import pyramid_align
from tfcq.detection.suppression import Kept
from tfcq.errors import UserError
from tfcq.nn.quantizable import QuantizableModel, quantizable
from tfcq.settings.detection import DetectionConfig
from tfcq.settings.detection_groups import LARGE_IMAGE
from tfcq.settings.policies import ALL_FLOAT, Policy

# Heights and widths of images are multiples of this; regions are read from levels up to here.
_STRIDE = 32
_READ = LEVEL_STRIDES.index(_STRIDE) + 1


@dataclasses.dataclass(frozen=True)
class MaskRCNNSettings(FasterRCNNSettings):
    """Settings of the detector; detectron2's by default. Beside those of Faster R-CNN:

    Args:
        anchor_sizes: square root of the anchors' areas on each level, in pixels.
        proposals_before: proposals of each level that go into non-maximum suppression.
        channels: of the feature pyramid.
        box_width: of the two dense layers of the box head.
        mask_width: of the mask head's convolutions.
        mask_cells: cells a side at which the mask head reads regions.
    """

    proposals_before: tuple[int, int] = (2000, 1000)
    proposals: tuple[int, int] = (1000, 1000)
    cells: int = 7
    channels: int = 256
    box_width: int = 1024
    mask_width: int = 256
    mask_cells: int = 14

    @property
    def of_proposals(self) -> ProposalSettings:
        """Those of the region proposals."""
        return ProposalSettings(
            tuple((size,) for size in self.anchor_sizes),
            LEVEL_STRIDES,
            before=self.proposals_before,
            kept=self.proposals,
            sampled=self.sampled_anchors,
        )


class MaskRCNN(Detector):
    """Mask R-CNN on a feature pyramid.

    Args:
        parts: `trunk`, `proposals`, `box_head` and `mask_head`, from `mask_rcnn_parts`.
        class_count: number of classes.
        settings: the settings.
        seed: draws what a step learns from.
    """

    LOSSES = ("objectness", "proposal_boxes", "classes", "boxes", "masks")
    HEADS = ("pyramid*", "proposals*", "box_*", "mask_*")
    READ_REGIONS = ("box_head", "mask_head")

    def __init__(
        self,
        parts: Mapping[str, QuantizableModel],
        class_count: int,
        settings: MaskRCNNSettings = MaskRCNNSettings(),
        seed: int = 0,
    ) -> None:
        super().__init__(parts, class_count, _STRIDE, seed, "mask_rcnn")
        self.settings = settings

    def find(self, images: tf.Tensor, sizes: tf.Tensor, precision: Any = None) -> Kept:
        """Returns the objects in images, and their masks; see `Detector`."""
        levels, made = self._proposed(images, precision, training=False)
        kept = proposals(made, sizes, self.settings.of_proposals, training=False)
        outputs = self._box_outputs(levels, kept.boxes, precision, training=False)
        found = detections(kept, outputs, sizes)
        there = _one_at_least(found.classes >= 0)
        classes = tf.maximum(tf.boolean_mask(found.classes, there), 0)
        logits = self._mask_logits(levels, found.boxes, there, classes, precision, training=False)
        shape = tf.concat([tf.shape(found.classes), tf.shape(logits)[1:]], 0)
        places = tf.cast(tf.where(there), tf.int32)
        return found._replace(masks=tf.scatter_nd(places, tf.sigmoid(logits), shape))

    def losses_of(self, batch: Batch, precision: Any, seed: tf.Tensor) -> dict[str, tf.Tensor]:
        """Returns the losses of a training batch, which has masks; see `Detector`."""
        boxes, classes = batch["boxes"], batch["classes"]
        levels, made = self._proposed(batch["images"], precision, training=True)
        of_proposals = self.settings.of_proposals
        losses = proposal_losses(made, boxes, classes, of_proposals, seed)
        kept = proposals(made, batch["sizes"], of_proposals, training=True)
        regions = Regions(
            kept, boxes, classes, self.class_count, self.settings.sampled_regions, seed + 1
        )
        outputs = self._box_outputs(levels, regions.boxes, precision, training=True)
        masks = self._mask_loss(levels, regions, batch, precision)
        return {**losses, **box_losses(regions, outputs, boxes), "masks": masks}

    def with_parts(self, parts: Mapping[str, QuantizableModel]) -> "MaskRCNN":
        """Returns a detector of other networks; see `Detector`."""
        return MaskRCNN(parts, self.class_count, self.settings, self.seed)

    def _proposed(
        self, images: tf.Tensor, precision: Any, training: bool
    ) -> tuple[list[tf.Tensor], Proposed]:
        levels = self.run("trunk", images, precision, training)
        outputs = [self.run("proposals", level, precision, training) for level in levels]
        return levels[:_READ], proposed(outputs, self.settings.of_proposals)

    def _box_outputs(
        self, levels: list[tf.Tensor], boxes: tf.Tensor, precision: Any, training: bool
    ) -> Any:
        regions = pyramid_align(levels, boxes, self.settings.cells, LEVEL_STRIDES[:_READ])
        flat = tf.reshape(regions, [-1, *regions.shape[2:]])
        return self.run("box_head", flat, precision, training)

    def _mask_logits(
        self, levels: list[tf.Tensor], boxes: tf.Tensor, there: tf.Tensor, classes: tf.Tensor,
        precision: Any, training: bool,
    ) -> tf.Tensor:  # fmt: skip
        """Returns masks of those regions that are there, each of its class."""
        regions = pyramid_align(levels, boxes, self.settings.mask_cells, LEVEL_STRIDES[:_READ])
        read = tf.boolean_mask(regions, there)
        return of_class(self.run("mask_head", read, precision, training), classes)

    def _mask_loss(
        self, levels: list[tf.Tensor], regions: Regions, batch: Batch, precision: Any
    ) -> tf.Tensor:
        most = regions.most_positive
        positive, of_box, boxes, classes = (
            column[:, :most]
            for column in (regions.positive, regions.of_box, regions.boxes, regions.classes)
        )
        there = _one_at_least(positive)
        own, masks = (tf.gather(batch[name], of_box, batch_dims=1) for name in ("boxes", "masks"))
        positive, own, masks, classes, flat = (
            tf.boolean_mask(column, there) for column in (positive, own, masks, classes, boxes)
        )
        classes = tf.where(positive, classes, 0)
        logits = self._mask_logits(levels, boxes, there, classes, precision, training=True)
        return mask_loss(logits, masks, own, flat, positive)


def _one_at_least(there: tf.Tensor) -> tf.Tensor:
    """Returns which regions a network reads: all where none is there, since none has no range."""
    return there | ~tf.reduce_any(there)


def mask_rcnn(
    config: DetectionConfig, backbone: keras.Model, class_count: int, shorter: int
) -> MaskRCNN:
    """Returns a Mask R-CNN; see `tfcq.detection.kinds.detector_from`."""
    settings = _settings(config, shorter)
    parts = mask_rcnn_parts(
        backbone, class_count, config.policy, settings, config.head_policy is not None
    )
    return MaskRCNN(parts, class_count, settings, config.measurement.seed)


def _settings(config: DetectionConfig, shorter: int) -> MaskRCNNSettings:
    usual, levels = MaskRCNNSettings(), len(LEVEL_STRIDES)
    if shorter < LARGE_IMAGE:
        # From an eighth of the image's side on.
        sizes = tuple(shorter / 8 * 2**level for level in range(levels))
        usual = MaskRCNNSettings(
            sizes, proposals_before=(128, 64), proposals=(128, 64), sampled_anchors=64,
            sampled_regions=32, channels=32, box_width=128, mask_width=32,
        )  # fmt: skip
    if config.anchor_sizes and len(config.anchor_sizes) != levels:
        raise UserError(
            f"--anchor_sizes={config.detector.anchor_sizes} are {len(config.anchor_sizes)} sizes; "
            f"allowed with mask_rcnn: {levels}, one for each level, such as 32,64,128,256,512."
        )
    return with_asked(usual, config)


def mask_rcnn_parts(
    backbone: keras.Model,
    class_count: int,
    policy: str | Policy,
    settings: MaskRCNNSettings = MaskRCNNSettings(),
    float_heads: bool = False,
) -> dict[str, QuantizableModel]:
    """Returns the networks of a Mask R-CNN, with a backbone's weights where it has them.

    Args:
        backbone: a ResNet with the stem for large images.
        class_count: number of classes.
        policy: how they are quantized.
        settings: the settings.
        float_heads: whether the backbone alone is quantized.

    Raises:
        UserError: on another backbone.
    """
    network = any_size(backbone)
    channels = settings.channels
    levels = feature_pyramid(stage_outputs(network), channels)
    trunk = keras.Model(network.inputs[0], levels, name="trunk")
    heads = {
        "proposals": proposal_head(channels, len(settings.of_proposals.ratios), joins_levels=True),
        "box_head": with_box_outputs(
            _dense_body(settings.cells, channels, settings.box_width), class_count
        ),
        "mask_head": mask_head(channels, settings.mask_width, class_count, settings.mask_cells),
    }
    of_heads = ALL_FLOAT if float_heads else policy
    return {
        "trunk": quantizable(trunk, policy, {"pyramid*": "fp"} if float_heads else None),
        **{name: quantizable(head, of_heads, reads_images=False) for name, head in heads.items()},
    }


def _dense_body(cells: int, channels: int, width: int) -> keras.Model:
    """Returns detectron2's FastRCNNConvFCHead of two dense layers."""
    inputs = keras.Input((cells, cells, channels), name="regions")
    # Behind it regions are quantized.
    x = layers.Activation("linear", name="box_regions")(inputs)
    x = layers.Flatten(name="box_flat")(x)
    for number in (1, 2):
        x = layers.Dense(width, kernel_initializer="lecun_uniform", name=f"box_dense{number}")(x)
        x = layers.ReLU(name=f"box_dense{number}_relu")(x)
    return keras.Model(inputs, x)
