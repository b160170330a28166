"""Prints what `tfcq.pretraining.memory` estimates of a step beside its peak: `tools/memory.py`.

Each network has a process of its own, whose peak beyond what it held after its imports is taken.
"""

import argparse
import json
import resource
import subprocess
import sys

NETWORKS = (
    ({"backbone": "resnet18", "width": 16, "batch_size": 64, "stem": "cifar"}, (28, 28, 1)),
    ({"backbone": "resnet18", "width": 64, "batch_size": 32, "stem": "cifar"}, (32, 32, 3)),
    ({"backbone": "mobilenet_v2", "width": 32, "batch_size": 16}, (96, 96, 3)),
    ({"backbone": "resnet18", "width": 32, "batch_size": 32}, (224, 224, 3)),
)
_UNIT = 1e6


def main() -> None:
    """Measures all networks under two recipes, or the one that is given as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("alone", nargs="?", help="one network, as JSON; default all")
    alone = parser.parse_args().alone
    if alone is not None:
        measure(*json.loads(alone))
        return
    print("| network | images | batch | recipe | estimated MB | measured MB | ratio |")
    print("|---|---|---:|---|---:|---:|---:|")
    for values, shape in NETWORKS:
        for recipe in ("float", "ssql"):
            given = json.dumps([{**values, "recipe": recipe}, shape])
            subprocess.run([sys.executable, __file__, given], check=True)


def measure(values: dict, shape: list[int]) -> None:
    """Takes steps of one network and prints its row.

    Args:
        values: settings by name.
        shape: height, width and channels of a view.
    """
    import numpy as np
    import tensorflow as tf

    from tfcq.pretraining.building import pretrainer_from
    from tfcq.pretraining.memory import step_bytes
    from tfcq.settings.training import config_from_flat

    before = peak_bytes()
    config = config_from_flat(values)
    batch_size = config.optimization.batch_size
    model = pretrainer_from(config, tuple(shape), 3)
    view = np.random.default_rng(0).random((batch_size, *shape), dtype="float32")
    batches = tf.data.Dataset.from_tensors((view, view)).repeat()
    model.fit(batches, steps_per_epoch=3, verbose=0)
    measured, estimated = peak_bytes() - before, step_bytes(model, batch_size)
    cells = (
        f"{config.network.backbone}, width {config.network.width}",
        "x".join(map(str, shape)),
        batch_size,
        config.method.recipe,
        round(estimated / _UNIT),
        round(measured / _UNIT),
        f"{estimated / measured:.2f}",
    )
    print("| " + " | ".join(map(str, cells)) + " |", flush=True)


def peak_bytes() -> int:
    """Returns the most memory that this process has held."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


if __name__ == "__main__":
    main()
