"""A feature pyramid (Lin et al., 2017) on the four stages of a ResNet, as detectron2 builds it."""

from collections.abc import Mapping

import keras
from keras import layers

from tfcq.backbones.convolution import conv_norm

# Pixels of the image to a cell of levels 2 to 6.
LEVEL_STRIDES = (4, 8, 16, 32, 64)


def feature_pyramid(
    stages: Mapping[int, keras.KerasTensor], channels: int
) -> list[keras.KerasTensor]:
    """Returns levels 2 to 6 of a feature pyramid, with batch norms as in MoCo's detectors.

        sum_5 = lateral(stage_4)        sum_l = lateral(stage_(l-1)) + upsampled(sum_(l+1))
        level_l = convolution(sum_l)    level_6 = every second cell of level_5

    Args:
        stages: features of each stage by its number, from `tfcq.detection.parts.stage_outputs`, of
            images whose height and width are multiples of 32.
        channels: of each level.

    Returns:
        Features [batch, height, width, channels], finest first. They leave the network as they are:
        what reads them quantizes them.
    """
    levels: list[keras.KerasTensor] = []
    above = None
    for stage in sorted(stages, reverse=True):
        name = f"pyramid{stage + 1}"
        x = conv_norm(stages[stage], channels, 1, 1, f"{name}_lateral")
        if above is not None:
            nearest = layers.UpSampling2D(2, name=f"{name}_upsampled")(above)
            x = layers.Add(name=f"{name}_sum")([x, nearest])
        above = x
        levels.insert(0, conv_norm(x, channels, 3, 1, name))
    return [*levels, layers.MaxPooling2D(1, 2, name="pyramid6")(levels[-1])]
