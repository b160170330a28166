"""Compares the estimated memory of a training step with what it takes: tools/step_memory.py

Each network trains two steps on random pixels in a process of its own; its peak, less the peak of
one that trains on two images of 8 pixels, is what the step took. Writes results/step_memory.json.
"""

import json
import pathlib
import platform
import resource
import subprocess
import sys

ROOT = pathlib.Path(__file__).parents[1]
CASES = {
    "resnet18, width 16, 28 x 28, batch 64": ("resnet18", "cifar", 16, 28, 64),
    "resnet18, width 64, 32 x 32, batch 32": ("resnet18", "cifar", 64, 32, 32),
    "resnet18, imagenet stem, width 16, 128 x 128, batch 32": ("resnet18", "imagenet", 16, 128, 32),
    "mobilenet_v2, imagenet stem, width 32, 96 x 96, batch 16": (
        "mobilenet_v2", "imagenet", 32, 96, 16,
    ),
}  # fmt: skip
SMALLEST = ("resnet18", "cifar", 4, 8, 2)


def alone(case: tuple[str, str, int, int, int]) -> None:
    """Trains two steps and prints estimate and peak, in bytes."""
    import numpy as np
    import tensorflow as tf

    from tfcq.pretraining.memory import step_bytes
    from tfcq.pretraining.run import pretrainer_from
    from tfcq.settings.training import config_from_flat

    backbone, stem, width, size, batch = case
    values = {"backbone": backbone, "stem": stem, "width": width, "batch_size": batch}
    model = pretrainer_from(config_from_flat(values), (size, size, 3), 10, begins=True)
    # No data set: what the pixels are does not matter to memory.
    views = np.random.default_rng(0).random((batch, size, size, 3), np.float32)
    data = tf.data.Dataset.from_tensors((views, views)).repeat()
    model.fit(data, epochs=1, steps_per_epoch=2, verbose=0)
    peak = 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(json.dumps({"estimated": step_bytes(model, batch, size), "peak": peak}))


def measured(case: tuple[str, str, int, int, int]) -> dict[str, int]:
    """Returns estimate and peak of a case, from a process of its own."""
    command = [sys.executable, __file__, json.dumps(case)]
    found = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    return json.loads(found.stdout.splitlines()[-1])


def main() -> None:
    """Measures every case and writes the table."""
    base = measured(SMALLEST)["peak"]
    rows = {}
    for name, case in CASES.items():
        found = measured(case)
        took = found["peak"] - base
        rows[name] = {
            "estimated_mb": round(found["estimated"] / 1e6),
            "measured_mb": round(took / 1e6),
            "ratio": round(found["estimated"] / took, 2),
        }
        print(name, rows[name], flush=True)
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, cwd=ROOT
    ).stdout.strip()
    machine = f"{platform.machine()}, {len(__import__('os').sched_getaffinity(0))} CPU cores"
    record = {"command": "tools/step_memory.py", "commit": commit, "machine": machine}
    (ROOT / "results" / "step_memory.json").write_text(
        json.dumps({**record, "recipe": "simsiam, ssql", "rows": rows}, indent=2) + "\n"
    )


if __name__ == "__main__":
    if len(sys.argv) > 1:
        alone(tuple(json.loads(sys.argv[1])))
    else:
        main()
