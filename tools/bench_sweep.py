#!/usr/bin/env python3
"""Measures the features of eight bit-widths relative to eight float passes, in one process.

    .venv/bin/python tools/bench_sweep.py

Passes alternate, so that a change of the machine's pace meets both kinds alike. Calibration is part
of the sweep.
"""

import argparse
import json
import statistics
import time

from tfcq import command_line


def main() -> None:
    """Measures and prints; `--output` also writes JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--image_size", type=int, default=28)
    parser.add_argument("--width", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--output", help="also write the figures to this JSON file")
    arguments = parser.parse_args()
    command_line.quiet_start_up(0)

    import tensorflow as tf

    from tfcq.backbones.resnet import resnet
    from tfcq.evaluation.features import FeatureExtractor
    from tfcq.files import write_text
    from tfcq.nn.calibration import Calibrator
    from tfcq.nn.quantizable import quantizable
    from tfcq.settings.bitwidths import FLOAT, parse_bit_widths
    from tfcq.settings.evaluation_groups import ALL_BITS
    from tfcq.settings.training import CALIBRATION_IMAGES

    size, widths = arguments.image_size, parse_bit_widths(ALL_BITS)
    model = quantizable(resnet(18, width=arguments.width, input_shape=(size, size, 1)))
    images = tf.random.stateless_uniform((arguments.images, size, size, 1), (0, 0)).numpy()
    calibrate, features = Calibrator(model), FeatureExtractor(model)

    def sweep() -> None:
        calibrate(images[:CALIBRATION_IMAGES])
        for bits in widths:
            features(images, bits)

    def floats() -> None:
        for _ in widths:
            features(images, FLOAT)

    seconds = {sweep: [], floats: []}
    for _ in range(arguments.rounds + 1):
        for run, times in seconds.items():
            start = time.perf_counter()
            run()
            times.append(time.perf_counter() - start)
    # The first round traces.
    medians = [statistics.median(times[1:]) for times in seconds.values()]
    figures = {
        "bit_widths": len(widths),
        "sweep_seconds": medians[0],
        "float_seconds": medians[1],
        "ratio": medians[0] / medians[1],
        "traces": features.traces,
    }
    print(
        f"{len(widths)} bit-widths {medians[0]:.2f} s, as many float passes {medians[1]:.2f} s, "
        f"ratio {figures['ratio']:.2f}, {features.traces} trace"
    )
    if arguments.output:
        settings = {k: v for k, v in vars(arguments).items() if k != "output"}
        write_text(arguments.output, json.dumps({**settings, **figures}, indent=2) + "\n")


if __name__ == "__main__":
    main()
