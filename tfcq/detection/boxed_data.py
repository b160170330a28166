"""The images of a detection: both splits, and the lengths at which they are seen."""

import dataclasses
import math

import tensorflow as tf

from tfcq.data.boxed.annotated_folder import AnnotatedFolder
from tfcq.data.boxed.box_batches import (
    canvas_size,
    padded_together,
    plain_batches,
    training_batches,
)
from tfcq.data.boxed.box_sources import open_boxes
from tfcq.data.boxed.boxed_split import BoxedSource, BoxedSplit
from tfcq.data.boxed.boxes_folder import BoxesFolderSource
from tfcq.data.order import steps_per_epoch
from tfcq.data.split import Record
from tfcq.detection.beforehand import annotated_folder, check_tested
from tfcq.settings.detection import DetectionConfig
from tfcq.settings.detection_groups import several_sizes
from tfcq.settings.training import total_steps

# As many images at once are scored, and no more pixels than of two of COCO's at their largest.
_TOGETHER, _PIXELS = 16, 2**22


@dataclasses.dataclass(frozen=True)
class BoxedData:
    """Images with boxes, read once.

    Args:
        config: the settings.
        train: training images.
        test: test images.
        sides: lengths of the shorter side, of which training draws one.
    """

    config: DetectionConfig
    train: BoxedSplit
    test: BoxedSplit
    sides: tuple[int, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the classes."""
        return tuple(self.train.class_names or ())

    @property
    def scored_side(self) -> int:
        """Length of the shorter side of scored images."""
        return max(self.sides)

    @property
    def steps(self) -> int:
        """Steps of an epoch."""
        return steps_per_epoch(self.train, self.config.training.batch_size)

    @property
    def total_steps(self) -> int:
        """Steps of the whole training."""
        return total_steps(self.config.training, self.steps)

    @property
    def epochs(self) -> int:
        """Epochs of the whole training."""
        return math.ceil(self.total_steps / self.steps)

    def training(self, first_epoch: int, stride: int, first_step: int = 0) -> tf.data.Dataset:
        """Returns batches to train on, see `training_batches`.

        Args:
            first_epoch: number of the first epoch, from 0.
            stride: height and width are multiples of this.
            first_step: number of its first batch, from 0.
        """
        config = self.config
        return training_batches(
            self.train, config.training.batch_size, self.sides, config.data.longest_side,
            config.measurement.seed, first_epoch, config.data.flip, stride, config.data.mosaic,
            first_step,
        )  # fmt: skip

    def plain(self, split: BoxedSplit, stride: int) -> tf.data.Dataset:
        """Returns the images of a split as they are scored, see `plain_batches`.

        Args:
            split: the images.
            stride: height and width are multiples of this.
        """
        side, longest = self.scored_side, self.config.data.longest_side
        height, width = canvas_size(split, [side], longest, stride)
        together = max(1, min(_TOGETHER, _PIXELS // (height * width)))
        return plain_batches(split, together, side, longest, stride)

    def calibration(self, stride: int) -> tuple[list[Record], int]:
        """Returns the training images that set ranges, in batches of one shape, and their count.

        Args:
            stride: height and width are multiples of this.
        """
        count = min(self.config.measurement.calibration_images, self.train.size)
        return padded_together([*self.plain(self.train.first(count), stride)]), count


def boxed_data(
    config: DetectionConfig, channels: int, folder: AnnotatedFolder | None = None
) -> BoxedData:
    """Opens the images of a detection.

    Args:
        config: the settings.
        channels: those that the backbone takes.
        folder: that of `--dataset=boxes:PATH`, where it was opened already.

    Raises:
        UserError: when they cannot be had, are not tested on, or have several sizes and no length
            was given.
    """
    wanted = config.data
    folder = folder or annotated_folder(config)
    source: BoxedSource
    if folder:
        source = BoxesFolderSource(folder, channels)
    else:
        source = open_boxes(
            wanted.dataset, wanted.data_dir, wanted.download, config.masks,
            holdout=wanted.holdout, holdout_seed=wanted.holdout_seed,
        )  # fmt: skip
    check_tested(wanted.dataset, source.splits)
    train, test = source.split("train"), source.split("test")
    test = test.first(wanted.test_images) if wanted.test_images else test
    sides = wanted.shorter_sides
    if sides is None:
        height, width, _ = train.image_shape
        if height is None or width is None:
            raise several_sizes(wanted.dataset)
        sides = (min(height, width),)
    return BoxedData(config, train, test, sides)
