#!/usr/bin/env python3
"""Trains every framework on two and four replicas over logical CPUs, and compares with one device.

    .venv/bin/python tools/replicas.py --output=results/replicas

All take the same global batches of unlike images, with synchronized batch norms and ranges.
Compared is how far weights are apart after 1 and after 10 steps, over the distance that those of
one device moved. Last bits differ with the order of sums, and move values that lie between two
levels of a quantizer; so one device is compared with itself too, every value of its images moved by
a last bit. Writes `.json` and `.md`, and leaves out what stands there.
"""

import argparse
import json
import os
import pathlib
import platform
import subprocess
import sys
from typing import Any

from provenance import commit_here

from tfcq import command_line
from tfcq.files import write_text
from tfcq.reporting.tables import table

FRAMEWORKS = ("simsiam", "simclr", "byol", "mocov2", "mocov3")
RECIPES = ("float", "ssql", "cq_c")
# Of so many replicas, in which arithmetic.
REPLICAS = {2: ("float64", "float32"), 4: ("float64", "float32")}
STEPS, BATCH, SEED, NUDGES = 10, 32, 3, 2
HEADS = {"projection_width": 8, "projection_hidden": 8, "predictor_width": 4, "queue_size": 256}


def build(framework: str, recipe: str) -> Any:
    """Returns a compiled model, always with the same weights.

    Args:
        framework: its name.
        recipe: one of `RECIPES`.
    """
    import keras
    from keras import layers

    from tfcq.pretraining.pretrainer import Pretrainer
    from tfcq.settings.frameworks import FRAMEWORK_SETTINGS
    from tfcq.training.distribution import synchronize

    keras.utils.set_random_seed(SEED)
    backbone = keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            layers.Conv2D(8, 3, strides=2, use_bias=False, name="stem"),
            layers.BatchNormalization(name="norm"),
            layers.ReLU(name="relu"),
            layers.Conv2D(16, 3, use_bias=False, name="second"),
            layers.BatchNormalization(name="second_norm"),
            layers.ReLU(name="second_relu"),
            layers.GlobalAveragePooling2D(name="features"),
        ],
        name="small",
    )
    heads = {name: HEADS[name] for name in HEADS if name in FRAMEWORK_SETTINGS[framework]}
    model = Pretrainer(backbone, framework, recipe, seed=SEED, **heads)
    model.set_run_length(STEPS, STEPS)
    for network in model.networks:
        synchronize(network)
    model.compile(keras.optimizers.SGD(0.05, momentum=0.9))
    return model


def weights_of(model: Any, views: tuple[Any, ...]) -> list[Any]:
    """Returns the weights before training and after 1 and 10 steps, and leaves all as they were."""
    import keras
    import numpy as np
    import tensorflow as tf

    def weights(*_: Any) -> None:
        found = [keras.ops.convert_to_numpy(one).ravel() for one in model.trainable_variables]
        kept.append(np.concatenate(found).astype(np.float64))

    kept: list[Any] = []
    everything = [*model.variables, *model.optimizer.variables]
    before = [keras.ops.convert_to_numpy(one) for one in everything]
    weights()
    batches = tf.data.Dataset.from_tensor_slices(views).batch(BATCH)
    note = keras.callbacks.LambdaCallback(on_epoch_end=weights)
    model.fit(batches, epochs=STEPS, steps_per_epoch=1, callbacks=[note], verbose=0)
    for variable, value in zip(everything, before, strict=True):
        variable.assign(value)
    return [kept[0], kept[1], kept[-1]]


def views_of_steps(dtype: str) -> tuple[Any, ...]:
    """Returns two views of the images of all steps, one batch after the other."""
    import numpy as np

    from tfcq.data.augmentation import augmentation_for
    from tfcq.data.sources import open_source
    from tfcq.data.views import view_batches

    split = open_source("digits").split("train").first(STEPS * BATCH)
    batches = view_batches(split, augmentation_for(8, 1), 8, BATCH, SEED, epochs=1)
    views = zip(*batches.as_numpy_iterator(), strict=True)
    return tuple(np.concatenate(one).astype(dtype) for one in views)


def nudged(views: tuple[Any, ...], seed: int) -> tuple[Any, ...]:
    """Returns views of which each value is moved by a last bit, up or down."""
    import numpy as np

    draw = np.random.default_rng(seed)
    return tuple(
        np.nextafter(one, draw.choice([-1, 2], one.shape).astype(one.dtype)) for one in views
    )


def measure(framework: str, recipe: str, dtype: str, strategy: Any) -> dict[str, Any]:
    """Returns how far replicas, and one device that is nudged, are from one device."""
    import keras
    import numpy as np

    keras.backend.clear_session()
    keras.config.set_floatx(dtype)
    keras.config.set_dtype_policy(dtype)
    views = views_of_steps(dtype)
    single = build(framework, recipe)
    begin, *reached = weights_of(single, views)

    def apart(others: list[Any]) -> list[float]:
        return [
            float(np.linalg.norm(other - own) / np.linalg.norm(own - begin))
            for own, other in zip(reached, others[1:], strict=True)
        ]

    moved = [apart(weights_of(single, nudged(views, seed))) for seed in range(NUDGES)]
    with strategy.scope():
        model = build(framework, recipe)
    return {
        "apart": apart(weights_of(model, views)),
        "nudged": [max(one) for one in zip(*moved, strict=True)],
    }


def page(about: dict[str, Any], rows: list[dict[str, Any]]) -> str:
    """Returns the figures as a Markdown page."""
    header = ["replicas", "arithmetic", "framework", "recipe"] + [
        f"{steps}{kind}" for steps in ("1 step", f"{STEPS} steps") for kind in ("", ", nudged")
    ]
    lines = [
        [str(row["replicas"]), row["dtype"], row["framework"], row["recipe"]]
        + [f"{row[kind][n]:.0e}" for n in (0, 1) for kind in ("apart", "nudged")]
        for row in rows
    ]
    commits = sorted({row["commit"] for row in rows})
    return "\n".join([
        "# Two and four replicas against one device", "",
        "The same global batches of unlike images, over logical CPUs, batch norms and ranges",
        "synchronized: the distance between the weights of the replicas and those of one device,",
        "over the distance that these moved. Nudged: one device against itself, each value of its",
        f"images moved by a last bit, the greatest of {NUDGES} draws.", "",
        table(header, lines), "",
        f"- Command: `{about['command']}`", f"- Commits: {', '.join(commits)}", f"- Seed {SEED}",
        f"- {about['machine']}", "",
    ])  # fmt: skip


def measure_all(replicas: int, dtype: str, framework: str) -> None:
    """Prints the figures of every recipe, line by line."""
    command_line.quiet_start_up(0)

    import tensorflow as tf

    cpu = tf.config.list_physical_devices("CPU")[0]
    devices = [tf.config.LogicalDeviceConfiguration()] * replicas
    tf.config.set_logical_device_configuration(cpu, devices)
    strategy = tf.distribute.MirroredStrategy([f"CPU:{number}" for number in range(replicas)])
    for recipe in RECIPES:
        print(json.dumps({"recipe": recipe, **measure(framework, recipe, dtype, strategy)}))


def main() -> None:
    """Measures every framework and recipe and writes both files."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", default="results/replicas")
    parser.add_argument("--only", nargs=3, metavar=("REPLICAS", "DTYPE", "FRAMEWORK"))
    arguments = parser.parse_args()
    if arguments.only:
        replicas, dtype, framework = arguments.only
        measure_all(int(replicas), dtype, framework)
        return
    about = {
        "command": "tools/replicas.py", "seed": SEED,
        "machine": f"{os.cpu_count()} CPU cores, {platform.machine()}, no GPU",
    }  # fmt: skip
    kept = pathlib.Path(f"{arguments.output}.json")
    rows = json.loads(kept.read_text())["rows"] if kept.exists() else []
    parts = [(n, dtype, one) for n in REPLICAS for dtype in REPLICAS[n] for one in FRAMEWORKS]
    for part in parts:
        place = dict(zip(("replicas", "dtype", "framework"), part, strict=True))
        if any(place.items() <= row.items() for row in rows):
            continue
        about_row = {**place, "commit": commit_here()}
        # In a process of its own: TensorFlow takes groups of one size in a process.
        command = [sys.executable, __file__, "--only", *map(str, part)]
        lines = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
        rows += [{**about_row, **json.loads(line)} for line in lines.splitlines()]
        write_text(kept, json.dumps({**about, "rows": rows}, indent=2) + "\n")
        write_text(f"{arguments.output}.md", page(about, rows))
        print(*part, flush=True)


if __name__ == "__main__":
    main()
