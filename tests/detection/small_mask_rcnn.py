"""A small Mask R-CNN."""

import keras
import numpy as np

from tfcq.backbones.resnet import resnet
from tfcq.detection.mask_rcnn import MaskRCNN, MaskRCNNSettings, mask_rcnn_parts

CLASSES = 3
SETTINGS = MaskRCNNSettings(
    (8.0, 16.0, 32.0, 64.0, 128.0), proposals_before=(32, 16), proposals=(16, 8),
    sampled_anchors=16, sampled_regions=8, cells=3, channels=6, box_width=8, mask_width=4,
    mask_cells=4,
)  # fmt: skip


def backbone(channels=1):
    """Returns a ResNet whose norms do something."""
    keras.utils.set_random_seed(0)
    model = resnet(18, "imagenet", 4, (32, 32, channels), blocks=(1, 1, 1, 1))
    generator = np.random.default_rng(0)
    for weight in model.weights:
        if weight.path.endswith(("gamma", "moving_variance")):
            weight.assign(generator.uniform(0.5, 1.5, weight.shape))
    return model


def mask_rcnn(policy="paper", float_heads=False):
    """Returns one whose masks differ."""
    parts = mask_rcnn_parts(backbone(), CLASSES, policy, SETTINGS, float_heads)
    logits = parts["mask_head"].get_layer("mask_logits")
    logits.kernel.assign(np.random.default_rng(1).normal(size=logits.kernel.shape))
    return MaskRCNN(parts, CLASSES, SETTINGS)
