#!/usr/bin/env python3
"""Takes one network of every family of keras.applications the whole way, and tables what holds.

    .venv/bin/python tools/applications.py --output=results/applications

Random weights, the smallest images that the network takes, policy `int8`, a process for each. It is
made quantizable and equals the float network to the last bit; 8w8a and 4w4a are finite; a step of
SSQL on two images ends finite; saved and loaded it returns the same at 4w4a; and it is exported to
int8. A network that is refused goes on with the layers left in float that the refusal names. Ends
with code 1 if anything fails that is not refused in one line. Writes `.json` and `.md`.
"""

import argparse
import json
import os
import pathlib
import platform
import subprocess
import sys
import tempfile
import traceback
from importlib.metadata import version

from provenance import commit_here

from tfcq.files import write_text
from tfcq.reporting.tables import table

ROOT = pathlib.Path(__file__).resolve().parent.parent
# The smallest member of each family, and the side of the smallest images that it takes.
NETWORKS = {
    "MobileNet": 32,
    "MobileNetV2": 32,
    "MobileNetV3Small": 32,
    "EfficientNetB0": 32,
    "EfficientNetV2B0": 32,
    "ResNet50": 32,
    "ResNet50V2": 32,
    "DenseNet121": 32,
    "NASNetMobile": 32,
    "InceptionV3": 75,
    "InceptionResNetV2": 75,
    "Xception": 71,
    "VGG16": 32,
    "ConvNeXtTiny": 32,
}
CHECKS = ("converts", "float equal", "8w8a", "4w4a", "SSQL step", "save and load", "int8 export")
FAILED = "FAILED: "


def main() -> None:
    """Checks the networks and writes the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--networks", help="comma-separated; default one of each family")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", help="path of the files, without suffix")
    parser.add_argument("--alone", help="check this one in this process and print JSON")
    arguments = parser.parse_args()
    if arguments.alone:
        print(json.dumps(check(arguments.alone, arguments.seed)))
        return
    names = arguments.networks.split(",") if arguments.networks else list(NETWORKS)
    if unknown := set(names) - set(NETWORKS):
        sys.exit(f"error: unknown {', '.join(sorted(unknown))}; allowed: {', '.join(NETWORKS)}")
    file = pathlib.Path(f"{arguments.output}.json")
    kept = arguments.output and file.exists()
    results = json.loads(file.read_text())["networks"] if kept else {}
    about = {
        "command": "tools/applications.py --output=results/applications",
        "seed": arguments.seed,
        "machine": f"{os.cpu_count()} CPU cores, {platform.machine()}",
        "versions": {name: version(name) for name in ("tensorflow", "keras", "numpy")},
    }
    for name in names:
        if name not in results:
            found = in_own_process(name, arguments.seed)
            results[name] = {**found, "commit": commit_here()}
            print(name, json.dumps(results[name]), flush=True)
        ordered = {known: results[known] for known in NETWORKS if known in results}
        if arguments.output:
            write_text(file, json.dumps({**about, "networks": ordered}, indent=2) + "\n")
            write_text(f"{arguments.output}.md", page(about, ordered))
    print(page(about, results))
    sys.exit(0 if all(map(sound, results.values())) else 1)


def in_own_process(name: str, seed: int) -> dict:
    """Returns the checks of a network, made in a process that gives its memory back."""
    ended = subprocess.run(
        [sys.executable, __file__, f"--alone={name}", f"--seed={seed}"],
        stdout=subprocess.PIPE, text=True, check=False,
        env={"TF_NUM_INTRAOP_THREADS": "1", "TF_CPP_MIN_LOG_LEVEL": "3", **os.environ,
             "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    if ended.returncode:
        return {"converts": f"{FAILED}the process ended with code {ended.returncode}"}
    return json.loads(ended.stdout.splitlines()[-1])


def check(name: str, seed: int) -> dict:
    """Returns what each check of a network found: "yes", a figure, or why not in one line."""
    import keras
    import numpy as np

    import tfcq
    from tfcq.backbones.keras_models import application

    keras.utils.set_random_seed(seed)
    side = NETWORKS[name]
    network = application(name, (side, side, 3))
    pixels = np.random.default_rng(seed).integers(0, 256, (2, side, side, 3), np.uint8)
    images = (pixels / 255).astype(np.float32)
    found = {"image": side, "parameters": network.count_params()}
    made = {}

    def converts():
        overrides, refusals = {}, []
        while "model" not in made:
            try:
                made["model"] = tfcq.quantizable(network, "int8", overrides)
            except tfcq_errors() as error:
                left = left_in_float(str(error))
                if not left or left.items() <= overrides.items():
                    raise
                refusals.append(str(error))
                overrides |= left
        made["overrides"] = overrides
        return f"with overrides={overrides} after: {refusals[0]}" if refusals else "yes"

    def float_equal():
        return bool(np.array_equal(network(images), made["model"](images)))

    def finite_at(bits):
        if bits == 8:  # the first, at which ranges are recorded
            tfcq.calibrate(made["model"], images)
        return bool(np.all(np.isfinite(at(made["model"], bits))))

    def at(model, bits):
        return np.asarray(model(images, precision=tfcq.Precision(bits, bits)))

    def step():
        start = tfcq.quantizable(network, "paper", made["overrides"])
        pretrainer = tfcq.Pretrainer(start, projection_width=16, predictor_width=8)
        pretrainer.compile(keras.optimizers.SGD(0.01, momentum=0.9))
        history = pretrainer.fit(pixels, batch_size=2, epochs=1, verbose=0).history
        finite = all(np.all(np.isfinite(weight)) for weight in pretrainer.trainable_weights)
        return bool(np.isfinite(history["loss"][0]) and finite)

    def save_and_load():
        with tempfile.TemporaryDirectory() as folder:
            made["model"].save(f"{folder}/model.keras")
            loaded = tfcq.load(f"{folder}/model.keras")
        return bool(np.array_equal(at(made["model"], 4), at(loaded, 4)))

    def export():
        return f"{len(tfcq.int8_tflite(made['model'], images)) / 1e6:.1f} MB"

    steps = (converts, float_equal, lambda: finite_at(8), lambda: finite_at(4), step)
    for column, work in zip(CHECKS, (*steps, save_and_load, export), strict=True):
        try:
            outcome = work()
        except tfcq_errors() as error:
            outcome = str(error)
        except Exception as error:
            traceback.print_exc()
            outcome = f"{FAILED}{type(error).__name__}: {' '.join(str(error).split())[:200]}"
        found[column] = {True: "yes", False: "NO"}.get(outcome, outcome)
        if "model" not in made:
            break
    return found


def tfcq_errors() -> tuple:
    """Returns the errors that are told in one line."""
    from tfcq.errors import TrainingStopped, UserError

    return UserError, TrainingStopped


def left_in_float(message: str) -> dict[str, str]:
    """Returns the overrides that a refusal says to pass, if it does."""
    import ast

    _, named, rest = message.partition("overrides={")
    return ast.literal_eval("{" + rest[: rest.index("}") + 1]) if named else {}


def sound(found: dict) -> bool:
    """Whether all checks held or were refused in one line."""
    texts = [str(found.get(column, "")) for column in CHECKS]
    return not any(t == "NO" or t.startswith(FAILED) or "\n" in t for t in texts)


def page(about: dict, results: dict) -> str:
    """Returns the table, what was refused below it, and where it was made."""
    notes: list[str] = []

    def cell(outcome: str) -> str:
        if len(outcome) < 10:
            return outcome
        if outcome not in notes:
            notes.append(outcome)
        return f"note {notes.index(outcome) + 1}"

    rows = [
        (
            name,
            str(found.get("image", "")),
            f"{found.get('parameters', 0) / 1e6:.1f} M",
            *(cell(str(found.get(column, ""))) for column in CHECKS),
        )
        for name, found in results.items()
    ]
    commits = dict.fromkeys(found["commit"] for found in results.values())
    lines = [
        "# Every family of keras.applications: what holds",
        "",
        "Random weights, features, the smallest images, policy `int8` (the step: `paper`).",
        "",
        table(("network", "image", "parameters", *CHECKS), rows),
        "",
        *(f"{number}. {note}" for number, note in enumerate(notes, 1)),
        *([""] if notes else []),
        f"- Command: `{about['command']}`",
        f"- Commit: {', '.join(commits)}; seed {about['seed']}",
        f"- Machine: {about['machine']}",
        f"- Versions: {', '.join(f'{k} {v}' for k, v in about['versions'].items())}",
        "",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
