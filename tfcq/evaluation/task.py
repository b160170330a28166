"""What a protocol is given: a backbone, labelled images, and how to train and quantize."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import keras

from tfcq.data.augmentation import Augmentation
from tfcq.data.sources import Split
from tfcq.evaluation.accuracy import LabelledImages
from tfcq.nn.quantizable import QuantizableModel
from tfcq.quantization.bitwidths import BitWidth

# Sets a model's ranges for a bit-width and tells whose they are.
SetRanges = Callable[[BitWidth], str]
Quantized = Callable[[BitWidth], QuantizableModel]


@dataclasses.dataclass(frozen=True)
class Training:
    """How a classifier is trained.

    Args:
        epochs: passes over the images.
        batch_size: images per step.
        optimizer: makes an optimizer for a number of steps per epoch.
        classifier_start: what the classifier starts at, see `classifier_at`.
    """

    epochs: int
    batch_size: int
    optimizer: Callable[[int], keras.optimizers.Optimizer]
    classifier_start: str = "zeros"


@dataclasses.dataclass(frozen=True)
class Task:
    """What a protocol is given.

    Args:
        backbone: quantizable model from images to features; no protocol changes it.
        split: the labelled training images.
        data: the same as arrays, and the test images.
        image_size: height and width of the images, in pixels.
        augmentation: how training images are augmented.
        bit_widths: the bit-widths, in the order of the results.
        calibrator: returns, for a model, a function that observes its activations on calibration
            images as its weights are then, and returns one that sets its ranges for a bit-width.
        seed: seed of subsets, order and augmentation.
        post_training: returns, for a trained model, a function from a bit-width to the model that
            is run at it; None where nothing but ranges changes between bit-widths.
        chosen: returns, for a bit-width, what post-training chose for it, by the names of
            `Accuracy`: whose activation ranges, and the weight bits of each layer.
        curve_images: how many test images, the first ones, score the epochs of a training of the
            whole network; None for all. Its last accuracy is always that of all.
    """

    backbone: QuantizableModel
    split: Split
    data: LabelledImages
    image_size: int
    augmentation: Augmentation
    bit_widths: tuple[BitWidth, ...]
    calibrator: Callable[[QuantizableModel], Callable[[], SetRanges]]
    seed: int = 0
    post_training: Callable[[QuantizableModel], Quantized] | None = None
    curve_images: int | None = None
    chosen: Callable[[BitWidth], Mapping[str, Any]] = lambda bits: {}

    def quantized(self, model: QuantizableModel) -> Quantized:
        """Returns a function from a bit-width to the model, quantized after training for it.

        Args:
            model: a trained model.
        """
        if self.post_training is not None:
            return self.post_training(model)
        set_ranges = self.calibrator(model)()

        def with_ranges(bits: BitWidth) -> QuantizableModel:
            set_ranges(bits)
            return model

        return with_ranges
