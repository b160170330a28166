"""Objects in a user's images: a trained detector, from pixels to boxes in them."""

import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from tfcq.data.boxed.box_batches import padded_together, plain_batches
from tfcq.data.boxed.boxed_split import BoxedSplit
from tfcq.detection.average_precision import Detections
from tfcq.detection.detector import Batch, Detector
from tfcq.detection.quantized import post_training
from tfcq.errors import UserError
from tfcq.nn.activation_ranges import activation_layers
from tfcq.post_training.plan import Plan
from tfcq.settings.bitwidths import FLOAT, BitWidth

_TOGETHER = 8


class ObjectDetector:
    """Finds objects in images of any size at a bit-width; `tfcq.load_detector` returns one.

    Args:
        detector: the detector.
        class_names: names of its classes.
        shorter_side: length that the shorter side of images gets, in pixels.
        longest_side: greatest length of their longer side.
        trained_at: the bit-width that it was trained at, and no other; None for float.
        at: gives the detector as it is run at a bit-width; None for itself.
    """

    def __init__(
        self,
        detector: Detector,
        class_names: Sequence[str],
        shorter_side: int,
        longest_side: int,
        trained_at: BitWidth | None = None,
        at: Callable[[BitWidth], Detector] | None = None,
    ) -> None:
        self.detector, self.class_names = detector, tuple(class_names)
        self.shorter_side, self.longest_side = shorter_side, longest_side
        self.trained_at = trained_at
        self._at = at or (lambda bits: detector)
        # Of the last bit-width, so that other images need not be traced again.
        self._last: tuple[BitWidth, Detector] | None = None

    def detect(self, images: Any, bits: BitWidth = FLOAT) -> list[Detections]:
        """Returns what is found in each image, best first, with boxes in its own pixels.

        Args:
            images: uint8 arrays [height, width, channels], each of any size, in a list or as one
                array.
            bits: bit-width of the pass.

        Returns:
            Of each image `boxes`, float [N, 4] as (y1, x1, y2, x2), `scores`, `classes`, places in
            `class_names`, and perhaps `masks`, run lengths that `pycocotools.mask.decode` reads.

        Raises:
            UserError: on other images, or a bit-width that nothing was calibrated or trained for.
        """
        images = list(images)
        groups = self._groups(images)
        chosen = self._chosen(bits)
        batches = itertools.chain.from_iterable(self._batches(images, group) for group in groups)
        places = itertools.chain.from_iterable(groups)
        found = dict(zip(places, chosen.found(batches, bits), strict=True))
        return [found[place] for place in range(len(found))]

    def quantized(self, images: Any, plan: Plan | None = None) -> "ObjectDetector":
        """Returns it quantized after training, at whatever bit-width `detect` is asked for.

        Args:
            images: unlabelled images for calibration, as for `detect`; some 64 of those it will
                see. The ranges of this detector's networks become theirs.
            plan: the steps after training; None for ranges alone.

        Raises:
            UserError: on other images, or a step that cannot be taken.
        """
        if plan is None:
            # As `tfcq.detect` does of what was trained at a bit-width.
            how = None if self.trained_at is None else "quantized"
            plan = Plan(keep_ranges=False, calibration_pass=how)
        images = list(images)
        batches = [b for group in self._groups(images) for b in self._batches(images, group)]
        sides = self.shorter_side, self.longest_side
        at = post_training(self.detector, padded_together(batches), plan)
        return ObjectDetector(self.detector, self.class_names, *sides, self.trained_at, at)

    def _chosen(self, bits: BitWidth) -> Detector:
        """Returns what is run at a bit-width."""
        if not isinstance(bits, BitWidth):
            raise UserError(f"bits={bits!r} was received; allowed: tfcq.BitWidth(4, 8).")
        if not bits.is_float and self.trained_at not in (None, bits):
            raise UserError(f"The detector was trained at {self.trained_at}; allowed: it or fp.")
        if self._last is None or self._last[0] != bits:
            chosen = self.detector if bits.is_float else self._at(bits)
            if not bits.is_float:
                _check_ranges(chosen, bits)
            self._last = bits, chosen
        return self._last[1]

    def _groups(self, images: Any) -> list[list[int]]:
        """Returns the places of the images of each size.

        Raises:
            UserError: naming the first image that cannot be used.
        """
        channels = next(iter(self.detector.parts.values())).input_shape[-1]
        groups: dict[tuple[int, ...], list[int]] = {}
        for place, image in enumerate(images):
            shape, kind = np.shape(image), getattr(image, "dtype", type(image).__name__)
            if kind != np.uint8 or len(shape) != 3 or shape[-1] != channels or not all(shape):
                raise UserError(
                    f"Image {place} has shape {shape} and type {kind}; allowed: uint8 of "
                    f"[height, width, {channels}], in a list."
                )
            groups.setdefault(shape, []).append(place)
        if not groups:
            raise UserError("No image was given; allowed: 1 and above.")
        return list(groups.values())

    def _batches(self, images: Any, places: list[int]) -> Iterator[Batch]:
        """Yields images of one size as they were seen in training."""
        shape = np.shape(images[places[0]])

        def records() -> Iterator[dict[str, Any]]:
            for place in places:
                yield {"index": place, "image": np.asarray(images[place])}

        spec = {"index": tf.TensorSpec((), tf.int64), "image": tf.TensorSpec(shape, tf.uint8)}
        split = BoxedSplit(
            name="images", size=len(places), image_shape=shape, class_names=self.class_names,
            records=tf.data.Dataset.from_generator(records, output_signature=spec),
            decode=lambda record: record, record_bytes=int(np.prod(shape)), most_boxes=0,
            masks=False,
        )  # fmt: skip
        sides = self.shorter_side, self.longest_side
        yield from plain_batches(split, _TOGETHER, *sides, self.detector.stride)


def _check_ranges(detector: Detector, bits: BitWidth) -> None:
    for name, part in detector.parts.items():
        for _, layer in activation_layers(part):
            if layer.quantizer.takes_range and not np.isfinite(layer.minimum.numpy()):
                raise UserError(
                    f"Network {name!r} has no activation ranges to run at {bits}; allowed: "
                    "detector.quantized(images).detect(images, bits), or fp."
                )
