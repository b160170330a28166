"""The features of eight bit-widths, calibration included, beside eight float passes."""

import argparse
from typing import Any

from benchmarks.alone import alone


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Adds sizes and rounds."""
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--image_size", type=int, default=28)
    parser.add_argument("--width", type=int, default=16, help="of a ResNet-18")
    parser.add_argument("--rounds", type=int, default=5)


def figures(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """Returns a row for each kind of passes."""
    return alone(
        "sweep:measured", arguments.images, arguments.image_size, arguments.width, arguments.rounds
    )


def measured(count: int, size: int, width: int, rounds: int) -> list[dict[str, Any]]:
    """Returns a row for each kind of passes, which take turns.

    Args:
        count: images.
        size: height and width of an image.
        width: of the ResNet-18.
        rounds: measured turns.
    """
    import tensorflow as tf

    from tfcq.backbones.resnet import resnet
    from tfcq.deployment.check import median_seconds
    from tfcq.evaluation.features import FeatureExtractor
    from tfcq.nn.calibration import Calibrator
    from tfcq.nn.quantizable import quantizable
    from tfcq.settings.bitwidths import FLOAT, parse_bit_widths
    from tfcq.settings.evaluation_groups import ALL_BITS
    from tfcq.settings.training import CALIBRATION_IMAGES

    widths = parse_bit_widths(ALL_BITS)
    model = quantizable(resnet(18, width=width, input_shape=(size, size, 1)))
    images = tf.random.stateless_uniform((count, size, size, 1), (0, 0), alg="philox").numpy()
    calibrate, features = Calibrator(model), FeatureExtractor(model)

    def sweep() -> None:
        calibrate(images[:CALIBRATION_IMAGES])
        for bits in widths:
            features(images, bits)

    def floats() -> None:
        for _ in widths:
            features(images, FLOAT)

    names = {f"{len(widths)} float": floats, f"{len(widths)} bit-widths, calibrated": sweep}
    # The first round traces.
    seconds = median_seconds(names, rounds, warm_up=1)
    least = next(iter(seconds.values()))
    return [
        {"passes": name, "s": taken, "over float": taken / least, "traces": features.traces}
        for name, taken in seconds.items()
    ]
