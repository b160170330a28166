#!/usr/bin/env python3
"""Trains every framework on two and four replicas over logical CPUs, and compares with one device.

    .venv/bin/python tools/replicas.py --output=results/replicas

All take the same global batches of unlike images, with synchronized batch norms and ranges.
Compared are loss and weights after 1 and after 10 steps: the distance of the weights over the
distance that those of one device moved. In float64 that is the error of the method. In float32 last
bits differ with the order of sums, and move values that lie between two levels of a quantizer; so
there one device is compared with itself too, each value of its images moved by a last bit. In
float64 also two replicas with ranges of their own. Writes `.json` and `.md`.
"""

import argparse
import json
import os
import platform
import time
from typing import Any

from provenance import commit_here

from tfcq import command_line
from tfcq.files import write_text
from tfcq.reporting.tables import table

FRAMEWORKS = ("simsiam", "simclr", "byol", "mocov2", "mocov3")
RECIPES = ("float", "ssql", "cq_c")
STEPS, BATCH, SEED, NUDGES = 10, 32, 3, 3
SETTINGS = {
    "dataset": "digits", "train_images": STEPS * BATCH, "backbone": "cifar_resnet8", "width": 4,
    "batch_size": BATCH, "learning_rate": 0.05, "seed": SEED, "epochs": 1,
}  # fmt: skip
HEADS = {"projection_width": 16, "projection_hidden": 16, "predictor_width": 8, "queue_size": 64}


def run(
    framework: str, recipe: str, replicas: int = 1, nudge: int = 0, local: bool = False
) -> dict[str, Any]:
    """Trains for 10 steps; returns losses, and the weights at the begin and after 1 and 10 steps.

    Args:
        framework: its name.
        recipe: its name.
        replicas: how many logical CPUs share each batch.
        nudge: seed of last bits by which images are moved; 0 for images as they are.
        local: whether each replica has ranges of its own.
    """
    import keras
    import numpy as np
    import tensorflow as tf

    from tfcq.nn.activation_ranges import activation_layers
    from tfcq.pretraining.run import pretrainer_from
    from tfcq.settings.frameworks import FRAMEWORK_SETTINGS
    from tfcq.settings.training import config_from_flat

    heads = {name: HEADS[name] for name in HEADS if name in FRAMEWORK_SETTINGS[framework]}
    config = config_from_flat({
        **SETTINGS, **heads, "framework": framework, "recipe": recipe, "strategy": "mirrored",
        "batch_norm": "synchronized",
    })  # fmt: skip
    strategy = tf.distribute.get_strategy()
    if replicas > 1:
        strategy = tf.distribute.MirroredStrategy([f"CPU:{number}" for number in range(replicas)])
    keras.utils.set_random_seed(SEED)
    with strategy.scope():
        model = pretrainer_from(config, (8, 8, 1), STEPS)
    for network in model.networks if local else []:
        for _, quantizer in activation_layers(network):
            quantizer.synchronized = False

    def weights() -> np.ndarray:
        found = [keras.ops.convert_to_numpy(one).ravel() for one in model.trainable_variables]
        return np.concatenate(found).astype(np.float64)

    kept = [weights()]
    batches = tf.data.Dataset.from_tensor_slices(images(config, nudge)).batch(BATCH)
    note = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, _: kept.append(weights()) if epoch in (0, STEPS - 1) else None
    )
    told = model.fit(batches, epochs=STEPS, steps_per_epoch=1, callbacks=[note], verbose=0)
    return {"loss": told.history["loss"], "weights": kept}


def images(config: Any, nudge: int) -> tuple[Any, ...]:
    """Returns the views of 10 steps, one batch after the other."""
    import numpy as np

    from tfcq.data.augmentation import augmentation_from
    from tfcq.data.pipeline import view_batches
    from tfcq.pretraining.run import training_split

    augmentation = augmentation_from(config.views, 8, 1)
    batches = view_batches(training_split(config.data), augmentation, 8, BATCH, SEED, epochs=1)
    views = [np.concatenate(one) for one in zip(*batches.as_numpy_iterator(), strict=True)]
    if nudge:
        draw = np.random.default_rng(nudge).random
        views = [np.nextafter(one, np.where(draw(one.shape) < 0.5, -1, 2).astype("float32"))
                 for one in views]  # fmt: skip
    return tuple(views)


def apart(one: dict[str, Any], other: dict[str, Any]) -> dict[str, list[float]]:
    """Returns how far another run is from one, after 1 and after 10 steps."""
    import numpy as np

    begin, *reached = one["weights"]
    return {
        "loss": [abs(other["loss"][n] / one["loss"][n] - 1) for n in (0, -1)],
        "weights": [
            float(np.linalg.norm(theirs - own) / np.linalg.norm(own - begin))
            for own, theirs in zip(reached, other["weights"][1:], strict=True)
        ],
    }


def measure(framework: str, recipe: str, dtype: str) -> dict[str, Any]:
    """Returns how far replicas, and one device that is nudged, are from one device."""
    import keras

    keras.backend.clear_session()
    keras.config.set_floatx(dtype)
    keras.config.set_dtype_policy(dtype)
    one = run(framework, recipe)
    found = {f"{n} replicas": apart(one, run(framework, recipe, n)) for n in (2, 4)}
    if dtype == "float64":
        found["local ranges"] = apart(one, run(framework, recipe, 2, local=True))
        return found
    nudged = [apart(one, run(framework, recipe, nudge=n)) for n in range(1, NUDGES + 1)]
    found["nudged"] = {
        what: [max(one[what][n] for one in nudged) for n in (0, 1)] for what in ("loss", "weights")
    }
    return found


def page(about: dict[str, Any], rows: list[dict[str, Any]]) -> str:
    """Returns the figures as a Markdown page."""
    tables = []
    for dtype, further in (("float64", "local ranges"), ("float32", "nudged")):
        header = ["framework", "recipe"] + [
            f"{steps}: {kind}"
            for steps in ("1 step", f"{STEPS} steps")
            for kind in ("loss", "2", "4", further)
        ]
        lines = []
        for row in (row for row in rows if row["dtype"] == dtype):
            two, four = row["2 replicas"], row["4 replicas"]
            figures = [
                f"{value:.0e}"
                for n in (0, 1)
                for value in (
                    max(two["loss"][n], four["loss"][n]),
                    *(one["weights"][n] for one in (two, four, row[further])),
                )
            ]
            lines.append([row["framework"], row["recipe"], *figures])
        tables += [f"## {dtype}", "", table(header, lines), ""]
    return "\n".join([
        "# Two and four replicas against one device", "",
        "The same global batches of unlike images, over logical CPUs, with synchronized batch",
        "norms and ranges. Loss: its relative difference, the greater of both. 2, 4: the distance",
        "between the weights of as many replicas and those of one device, over the distance that",
        "these moved. Local ranges: two replicas, each with ranges of its own. Nudged: one device",
        "against itself, each value of its images moved by a last bit, the greatest of "
        f"{NUDGES} draws.", "", *tables,
        f"- Command: `{about['command']}`", f"- Commit: {about['commit']}",
        f"- Seed {SEED}; `{SETTINGS}`",
        f"- {about['machine']}, {about['minutes']:.1f} minutes", "",
    ])  # fmt: skip


def main() -> None:
    """Measures every framework and recipe and writes both files."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", default="results/replicas")
    parser.add_argument("--frameworks", default=",".join(FRAMEWORKS))
    parser.add_argument("--recipes", default=",".join(RECIPES))
    arguments = parser.parse_args()
    command_line.quiet_start_up(0)

    import tensorflow as tf

    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 4)
    begun, rows = time.monotonic(), []
    for dtype in ("float64", "float32"):
        for framework in arguments.frameworks.split(","):
            for recipe in arguments.recipes.split(","):
                found = measure(framework, recipe, dtype)
                rows.append({"dtype": dtype, "framework": framework, "recipe": recipe, **found})
                print(json.dumps(rows[-1]), round(time.monotonic() - begun), flush=True)
    about = {
        "command": "tools/replicas.py", "commit": commit_here(), "seed": SEED,
        "machine": f"{os.cpu_count()} CPU cores, {platform.machine()}, no GPU",
        "minutes": (time.monotonic() - begun) / 60,
    }  # fmt: skip
    write_text(f"{arguments.output}.json", json.dumps({**about, "rows": rows}, indent=2) + "\n")
    write_text(f"{arguments.output}.md", page(about, rows))


if __name__ == "__main__":
    main()
