"""A source whose images are all grey, or all colour."""

import dataclasses

import tensorflow as tf

from tfcq.data.split import Record, Source, Split
from tfcq.errors import UserError


class ChannelsSource:
    """A source with its images turned to grey or to colour.

    Args:
        source: gives the images.
        channels: 1 for grey, with the weights of ITU-R BT.601; 3 for colour.
    """

    def __init__(self, source: Source, channels: int) -> None:
        self.name, self.splits = source.name, source.splits
        self._source, self._channels = source, channels

    def split(self, name: str) -> Split:
        """Returns a split.

        Raises:
            UserError: there is none of that name, or its images are neither grey nor colour.
        """
        split, channels = self._source.split(name), self._channels
        height, width, given = split.image_shape
        if given == channels:
            return split
        if given not in (1, 3):
            raise UserError(
                f"--channels={channels} with images of {given} channels; allowed: 1 or 3."
            )
        turn = tf.image.grayscale_to_rgb if channels == 3 else tf.image.rgb_to_grayscale

        def decode(record: Record) -> Record:
            record = split.decode(record)
            image = tf.ensure_shape(record["image"], split.image_shape)
            return {**record, "image": turn(image)}

        return dataclasses.replace(
            split,
            image_shape=(height, width, channels),
            decode=decode,
            keeping=None,
        )
