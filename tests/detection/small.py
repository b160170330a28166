"""A small Faster R-CNN, and scenes for it."""

import keras
import numpy as np

from tfcq.backbones.resnet import resnet
from tfcq.data.boxed.scenes import ScenesSource
from tfcq.data.sources import open_source
from tfcq.detection.faster_rcnn import FasterRCNN, FasterRCNNSettings, faster_rcnn_parts
from tfcq.nn.float_model import float_model
from tfcq.nn.quantizable import QuantizableModel

CLASSES = 10
SETTINGS = FasterRCNNSettings(
    (16.0, 32.0), proposals_before=(64, 32), proposals=(32, 16), sampled_anchors=16,
    sampled_regions=8, cells=4,
)  # fmt: skip


def scenes(train=16, test=6):
    """Scenes of digits, 64 pixels a side."""
    return ScenesSource(open_source("digits"), "scenes", 64, counts={"train": train, "test": test})


def backbone(channels=1, stem="imagenet"):
    keras.utils.set_random_seed(0)
    model = resnet(18, stem, 4, (32, 32, channels), blocks=(1, 1, 1, 1))
    # Norms that do something.
    generator = np.random.default_rng(0)
    for weight in model.weights:
        if weight.path.endswith(("gamma", "moving_variance")):
            weight.assign(generator.uniform(0.5, 1.5, weight.shape))
    return model


def faster_rcnn(policy="paper", head_policy=None):
    parts = faster_rcnn_parts(backbone(), CLASSES, policy, SETTINGS, head_policy)
    return FasterRCNN(parts, CLASSES, SETTINGS)


def in_float(part: QuantizableModel) -> keras.Model:
    """The float model, whose calls know no precision."""
    plain = float_model(part)
    # Detectors hand every part a precision.
    return lambda inputs, training, precision: plain(inputs, training=training)
