"""Images by mean and deviation of each channel, as the first layer of a network."""

from collections.abc import Sequence

import keras

from tfcq.errors import UserError
from tfcq.nn.cloning import with_first_layer

NAME = "input_normalization"


def with_normalized_input(
    model: keras.Model, mean: Sequence[float], deviation: Sequence[float]
) -> keras.Model:
    """Returns a copy of a model, weights included, that takes images in [0, 1] and first makes
    (image - mean) / deviation of them.

    As a layer it is part of what is saved, evaluated and converted. No policy quantizes what
    stands before the first kernel, so the normalized image stays in float like the image.

    Args:
        model: a functional model of layers, with one input of images.
        mean: mean of each channel, or one of all.
        deviation: standard deviation of each channel, or one of all; positive.

    Raises:
        UserError: when there are neither one nor as many numbers as channels.
    """
    channels = model.input_shape[-1]
    for name, values in (("input_mean", mean), ("input_std", deviation)):
        if len(values) not in (1, channels):
            raise UserError(
                f"{name} has {len(values)} numbers, the images {channels} channels; allowed: 1 or "
                f"{channels} numbers."
            )
    means, variances = (
        [float(value) for value in values] * (channels // len(values))
        for values in (mean, [value**2 for value in deviation])
    )
    return with_first_layer(
        model, keras.layers.Normalization(mean=means, variance=variances, name=NAME)
    )
