#!/usr/bin/env python3
"""Measures a training step of each recipe relative to `float`, the two in one process.

    .venv/bin/python tools/bench.py

Beside the ratio stands the least possible one, passes of the recipe over passes of `float`; a pass
that is trained counts three times one that only makes targets, which has no backward pass. Steps of
the two alternate, so that a change of the machine's pace meets both alike. Every further recipe is
measured in a process of its own, since what other recipes left of the memory was seen to matter.
"""

import argparse
import json
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

from tfcq import command_line


def main() -> None:
    """Measures and prints a table; `--output` also writes JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--recipes", default="float,ssql", help="recipes, `float` first")
    parser.add_argument("--framework", default="simsiam")
    parser.add_argument("--steps", type=int, default=10, help="timed steps of each recipe")
    parser.add_argument("--batch_size", type=int, default=64)
    parser.add_argument("--image_size", type=int, default=32)
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--xla", action="store_true", help="compile the step with XLA")
    parser.add_argument("--output", help="also write the figures to this JSON file")
    arguments = parser.parse_args()
    names = arguments.recipes.split(",")
    if len(names) < 2:
        parser.error("--recipes names one recipe; allowed: two and above, such as float,ssql")
    if len(names) == 2:
        figures = measured(arguments, *names)
    else:
        figures = [measured_apart(arguments, names[0], name) for name in names[1:]]
        figures = [figures[0][0], *(second for _, second in figures)]
    rows = [
        (f["recipe"], f"{f['median_seconds']:.3f}", f"{f['ratio']:.2f}", f"{f['least_ratio']:.2f}")
        for f in figures
    ]
    from tfcq.reporting.tables import table

    print(table(("recipe", "step (s)", f"over {names[0]}", "least possible"), rows))
    if arguments.output:
        from tfcq.files import write_text

        settings = {k: v for k, v in vars(arguments).items() if k != "output"}
        write_text(arguments.output, json.dumps({**settings, "figures": figures}, indent=2) + "\n")


def measured_apart(arguments: argparse.Namespace, first: str, second: str) -> list[dict]:
    """Returns the figures of two recipes, from a process of their own."""
    kept = {k: v for k, v in vars(arguments).items() if k not in ("recipes", "output", "xla")}
    flags = [f"--{name}={value}" for name, value in kept.items()]
    with tempfile.TemporaryDirectory() as folder:
        output = pathlib.Path(folder) / "figures.json"
        subprocess.run(
            [sys.executable, __file__, *flags, *["--xla"] * arguments.xla,
             f"--recipes={first},{second}", f"--output={output}"],
            check=True,
        )  # fmt: skip
        return json.loads(output.read_text())["figures"]


def measured(arguments: argparse.Namespace, *names: str) -> list[dict]:
    """Returns the figures of recipes whose steps alternate, relative to the first."""
    command_line.quiet_start_up(0)

    import tensorflow as tf

    from tfcq.backbones.resnet import resnet
    from tfcq.pretraining.pretrainer import Pretrainer

    size = arguments.image_size
    views = tf.random.stateless_uniform((2, arguments.batch_size, size, size, 3), (0, 0))
    steps, passes = {}, {}
    for name in names:
        model = Pretrainer(
            resnet(18, width=arguments.width, input_shape=(size, size, 3)),
            framework=arguments.framework,
            recipe=name,
        )
        model.set_run_length(1, 1000)
        model.compile()
        # As Keras compiles it.
        step = tf.function(model.train_step, jit_compile=arguments.xla, autograph=False)
        batch = tuple(views[index] for index in range(len(model.recipe.views)))
        steps[name] = lambda step=step, batch=batch: step(batch)["loss"].numpy()
        passes[name] = cost(model)
        for _ in range(2):
            steps[name]()
    seconds = {name: [] for name in names}
    for _ in range(arguments.steps):
        for name in names:
            start = time.perf_counter()
            steps[name]()
            seconds[name].append(time.perf_counter() - start)
    first = statistics.median(seconds[names[0]])
    return [
        {
            "recipe": name,
            "median_seconds": statistics.median(seconds[name]),
            "ratio": statistics.median(seconds[name]) / first,
            "least_ratio": passes[name] / passes[names[0]],
        }
        for name in names
    ]


def cost(model) -> int:
    """Returns the passes of a step in units of a forward pass; a backward pass costs two."""
    trained = {pair.prediction for pair in model.recipe.pairs}
    forward = len(model.online_passes)
    if model.momentum_network is not None:
        forward += len(model.target_passes)
    return forward + 2 * len(trained)


if __name__ == "__main__":
    main()
