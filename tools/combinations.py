#!/usr/bin/env python3
"""Trains every framework with every recipe for 20 steps on the digits and checks what must hold.

    .venv/bin/python tools/combinations.py --output=results/combinations

Of each combination: the loss is finite and features have not collapsed; the step is traced once;
and a run cut off after half of the steps and restored from its checkpoint into a new model ends
with the same variables, to the last bit, as one that was not. Writes `.json` and `.md`.
"""

import argparse
import json
import math
import tempfile

from tfcq import command_line

STEPS, BATCH, EPOCHS = 10, 32, 2
# Of the papers' rates, 0.03 to 0.05 for 256 images, the share of a batch this small.
LEARNING_RATE = 0.05 * BATCH / 256
HEADS = {"projection_width": 32, "projection_hidden": 32, "predictor_width": 16, "queue_size": 256}


def main() -> None:
    """Runs all combinations and writes the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--frameworks", help="comma-separated; default all")
    parser.add_argument("--recipes", help="comma-separated; default all")
    parser.add_argument("--output", help="path of the files, without suffix")
    arguments = parser.parse_args()
    command_line.quiet_start_up(0, deterministic=True)

    from tfcq.errors import TrainingStopped, UserError
    from tfcq.files import write_text
    from tfcq.reporting.tables import table
    from tfcq.settings.frameworks import FRAMEWORK_SETTINGS
    from tfcq.settings.recipes import RECIPES
    from tfcq.training.determinism import make_deterministic

    make_deterministic()
    frameworks = (arguments.frameworks or ",".join(FRAMEWORK_SETTINGS)).split(",")
    recipes = (arguments.recipes or ",".join(RECIPES)).split(",")
    results = []
    for framework in frameworks:
        for recipe in recipes:
            try:
                result = check(framework, recipe)
            except UserError as error:
                result = {"refused": str(error)}
            except TrainingStopped as error:
                result = {"failed": str(error)}
            results.append({"framework": framework, "recipe": recipe, **result})
            print(results[-1], flush=True)
    rows = [
        (r["framework"], r["recipe"], r.get("refused") or r["failed"], "", "", "")
        if "loss" not in r
        else (
            r["framework"],
            r["recipe"],
            f"{r['loss']:.3f}",
            f"{r['feature_std_ratio']:.2f}",
            r["traces"],
            "yes" if r["resumes_exactly"] else "NO",
        )
        for r in results
    ]
    header = ("framework", "recipe", "loss", "feature std ratio", "traces", "resumes exactly")
    text = table(header, rows)
    print(text)
    if arguments.output:
        write_text(f"{arguments.output}.json", json.dumps(results, indent=2) + "\n")
        write_text(f"{arguments.output}.md", text + "\n")
    failed = [r for r in results if not holds(r)]
    raise SystemExit(1 if failed else 0)


def holds(result: dict) -> bool:
    """Whether a combination was refused with a reason, or everything held."""
    from tfcq.pretraining.monitoring import COLLAPSED_BELOW

    if "loss" not in result:
        return "refused" in result
    sound = math.isfinite(result["loss"]) and result["feature_std_ratio"] >= COLLAPSED_BELOW
    return sound and result["traces"] == 1 and result["resumes_exactly"]


def check(framework: str, recipe: str) -> dict:
    """Trains one combination, whole and in two parts; returns its figures."""
    import numpy as np

    whole, history, traces = train(framework, recipe, None, EPOCHS, 0)
    with tempfile.TemporaryDirectory() as folder:
        train(framework, recipe, folder, 1, 0)
        parts, _, _ = train(framework, recipe, folder, EPOCHS, 1)
    same = all(
        np.array_equal(a.numpy(), b.numpy())
        for a, b in zip(whole.variables, parts.variables, strict=True)
    )
    return {
        "loss": history["loss"][-1],
        "feature_std_ratio": history["feature_std_ratio"][-1],
        "traces": traces,
        "resumes_exactly": same,
    }


def train(framework: str, recipe: str, folder: str | None, epochs: int, seed: int) -> tuple:
    """Trains up to an epoch, going on from a folder's checkpoint; returns model and figures."""
    import keras
    from keras import layers

    from tfcq.data.augmentation import augmentation_for
    from tfcq.data.sources import open_source
    from tfcq.data.views import view_batches
    from tfcq.pretraining.pretrainer import Pretrainer
    from tfcq.settings.frameworks import FRAMEWORK_SETTINGS
    from tfcq.training.checkpoints import RunCheckpoints

    traces = []

    class Counting(Pretrainer):
        def train_step(self, data):
            traces.append(1)
            return super().train_step(data)

    keras.backend.clear_session()
    # Another seed of initialization for the second part: all must come from the checkpoint.
    keras.utils.set_random_seed(seed)
    backbone = keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            layers.Conv2D(8, 3, use_bias=False, name="stem"),
            layers.BatchNormalization(name="stem_norm"),
            layers.ReLU(name="stem_relu"),
            layers.Conv2D(16, 3, name="second"),
            layers.ReLU(name="second_relu"),
            layers.GlobalAveragePooling2D(name="features"),
        ],
        name="small",
    )
    own = FRAMEWORK_SETTINGS[framework]
    heads = {name: value for name, value in HEADS.items() if name in own}
    model = Counting(backbone, framework, recipe, **heads)
    model.set_run_length(STEPS, STEPS * EPOCHS)
    model.compile(keras.optimizers.SGD(LEARNING_RATE, momentum=0.9))
    callbacks, done = [], 0
    if folder is not None:
        callbacks = [RunCheckpoints(folder, model, STEPS)]
        done = callbacks[0].restore_newest() // STEPS
    split = open_source("digits").split("train").first(STEPS * BATCH)
    views = view_batches(
        split, augmentation_for(8, 1), 8, BATCH, 0, first_epoch=done, views=model.recipe.views
    )
    history = model.fit(
        views,
        epochs=epochs,
        initial_epoch=done,
        steps_per_epoch=STEPS,
        callbacks=callbacks,
        verbose=0,
    ).history
    return model, history, len(traces)


if __name__ == "__main__":
    main()
