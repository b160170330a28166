#!/usr/bin/env python3
"""Trains with two processes on this machine, ends one of them, and compares with one process.

    .venv/bin/python tools/workers.py --output=results/workers

Every network is trained by one process and by two that share each batch; then again by two of which
one ends by itself: by SIGKILL (the chief, or the other), or by SIGTERM. Both are then started
again. Compared is what each process holds in memory at its end. Writes `.json` and `.md`, and
leaves out the networks that stand there.
"""

import argparse
import json
import os
import pathlib
import platform
import signal
import socket
import subprocess
import sys
import tempfile
import time
from typing import Any

import numpy as np
from provenance import commit_here

from tfcq.files import write_text
from tfcq.reporting.tables import table

ROOT = pathlib.Path(__file__).resolve().parent.parent
SEED = 3
FLAGS = (
    "--dataset=digits", "--train_images=128", "--backbone=cifar_resnet8", "--batch_size=32",
    f"--seed={SEED}", "--deterministic", "--keep=5",
)  # fmt: skip
NETWORKS = {
    "simsiam, ssql": ("--width=2", "--projection_width=8", "--predictor_width=8"),
    # Wide enough that features do not collapse.
    "mocov2, cq_c": ("--framework=mocov2", "--recipe=cq_c", "--queue_size=256", "--width=8",
                     "--projection_width=32", "--learning_rate=0.005"),
}  # fmt: skip
# Of each, which worker ends, and how.
ENDINGS = {
    "simsiam, ssql": ((1, signal.SIGKILL),),
    "mocov2, cq_c": ((0, signal.SIGKILL), (1, signal.SIGTERM)),
}
SHARED = ("--strategy=multi_worker", "--batch_norm=synchronized")
# Three epochs of four steps; ended in the second.
LENGTH = ("--duration=12steps", "--save_every=2steps")
ENDED_AT = 7
# Seconds that any process may take.
LONGEST = 600
# Notes what this process holds before and after a step and at the end, and perhaps ends it before.
PROGRAM = """
import os, sys
import numpy as np
from tfcq import command_line, train

memory, ending, at, nudged = sys.argv[1], *map(int, sys.argv[2:5])
sys.argv[1:] = sys.argv[5:]

def started(*arguments, start=command_line.flags.quiet_start_up):
    start(*arguments)
    import tensorflow as tf
    from tfcq.pretraining import run
    from tfcq.training.checkpoints import RunCheckpoints as Checkpoints

    made = run.view_batches
    if nudged:
        run.view_batches = lambda *arguments, **further: made(*arguments, **further).map(
            lambda *views: tuple(tf.math.nextafter(view, 2 * tf.ones_like(view)) for view in views)
        )
    begin, end, step = Checkpoints.on_train_begin, Checkpoints.on_train_end, (
        Checkpoints.on_train_batch_end
    )

    def note(self, name):
        model = self.pretrainer
        groups = {"trained": model.trainable_variables, "all": [
            *model.variables, *model.optimizer.variables
        ]}
        local = self.strategy.experimental_local_results
        np.savez(f"{memory}_{name}.npz", **{
            f"{group}{index:04}": local(variable.value)[0].numpy()
            for group, variables in groups.items() for index, variable in enumerate(variables)
        })

    def noting_begin(self, logs=None):
        begin(self, logs)
        note(self, "begin")

    def noting_end(self, logs=None):
        end(self, logs)
        note(self, "end")

    def step_or_end(self, batch, logs=None):
        if self.done + 1 == at:
            os.kill(os.getpid(), ending)
        step(self, batch, logs)
        if self.done == 1:
            note(self, "first_step")

    Checkpoints.on_train_begin, Checkpoints.on_train_end = noting_begin, noting_end
    Checkpoints.on_train_batch_end = step_or_end

command_line.flags.quiet_start_up = started
command_line.run(train.flag_set(), train.main)
"""


def start(
    folder: pathlib.Path,
    flags: tuple[str, ...],
    number: int | None = None,
    addresses: tuple[str, ...] = (),
    ending: int = 0,
    at: int = 0,
    nudged: bool = False,
) -> subprocess.Popen:
    """Starts one process of a training, which writes into `folder`.

    Args:
        folder: holds the run, and what each process had in memory.
        flags: of `tfcq.train`.
        number: of this worker; None for a process without others.
        addresses: of all workers.
        ending: number of the signal that ends it; 0 for none.
        at: the step before whose end it comes.
        nudged: whether each value of its images is moved by a last bit.
    """
    folder.mkdir(parents=True, exist_ok=True)
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "3"}
    environment.pop("TF_CONFIG", None)
    if number is not None:
        task = {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": number}}
        environment["TF_CONFIG"] = json.dumps(task)
    options = [str(folder / f"memory{number or 0}"), str(int(ending)), str(at), str(int(nudged))]
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, *options, f"--run_dir={folder / 'run'}", *flags],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment,
    )  # fmt: skip


def free_addresses(count: int = 2) -> tuple[str, ...]:
    """Returns addresses of this machine whose ports are free."""
    held = [socket.socket() for _ in range(count)]
    for one in held:
        one.bind(("127.0.0.1", 0))
    addresses = tuple(f"127.0.0.1:{one.getsockname()[1]}" for one in held)
    for one in held:
        one.close()
    return addresses


def memory(folder: pathlib.Path, number: int = 0, moment: str = "end") -> dict[str, np.ndarray]:
    """Returns what a process held in memory, by name."""
    return dict(np.load(folder / f"memory{number}_{moment}.npz"))


def apart(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> float:
    """Returns the distance between the trained weights of two processes."""
    names = [name for name in one if name.startswith("trained")]
    return float(np.sqrt(sum(np.sum((one[n] - other[n]) ** 2.0) for n in names)))


def same(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> bool:
    """Returns whether two processes held the same, to the bit."""
    return one.keys() == other.keys() and all(
        one[name].tobytes() == other[name].tobytes() for name in one
    )


def two(
    folder: pathlib.Path, flags: tuple[str, ...], ended: int | None = None, ending: int = 0
) -> list[dict[str, Any]]:
    """Trains with two workers, of which one may end by itself; returns how each ended."""
    addresses = free_addresses()
    processes = [
        start(folder, (*flags, *SHARED), number, addresses, *((ending, ENDED_AT) if number == ended
              else ()))
        for number in range(2)
    ]  # fmt: skip
    begun, after = time.monotonic(), {}
    while len(after) < 2 and time.monotonic() - begun < LONGEST:
        for number, process in enumerate(processes):
            if process.poll() is not None:
                after.setdefault(number, time.monotonic() - begun)
        time.sleep(0.1)
    ends = []
    for number, process in enumerate(processes):
        process.kill()
        lines = process.communicate()[0].strip().splitlines() or [""]
        ends.append({
            "code": process.returncode,
            "seconds": round(after.get(number, float(LONGEST)), 1),
            "told": lines[-1][:300],
            "traceback": any("Traceback" in line for line in lines),
        })  # fmt: skip
    return ends


def alone(folder: pathlib.Path, flags: tuple[str, ...], nudged: bool = False) -> pathlib.Path:
    """Trains with one process; returns the folder."""
    process = start(folder, (*flags, *LENGTH), nudged=nudged)
    output, _ = process.communicate(timeout=LONGEST)
    if process.returncode:
        raise RuntimeError(output[-2000:])
    return folder


def distances(one: pathlib.Path, other: pathlib.Path) -> dict[str, float]:
    """Returns how far apart two runs are after a step and at their end, over the way of one."""
    begin = memory(one, moment="begin")
    return {
        moment: apart(memory(one, moment=moment), memory(other, moment=moment))
        / apart(memory(one, moment=moment), begin)
        for moment in ("first_step", "end")
    }


def measure(name: str, place: pathlib.Path) -> dict[str, Any]:
    """Returns how two workers compare with one process, and how they go on when one has ended."""
    flags = (*FLAGS, *NETWORKS[name])
    one, whole = alone(place / "one", flags), place / "whole"
    ends = two(whole, (*flags, *LENGTH))
    if any(end["code"] for end in ends):
        raise RuntimeError(str(ends))
    row: dict[str, Any] = {
        "two": distances(one, whole),
        "nudged": distances(one, alone(place / "nudged", flags, nudged=True)),
    }
    row["workers_hold_the_same"] = same(memory(whole, 0), memory(whole, 1))
    row["ended"] = []
    for number, ending in ENDINGS[name]:
        folder = place / f"ended_{number}_{ending.name}"
        ends = two(folder, (*flags, *LENGTH), number, ending)
        restarted = two(folder, (*flags, *LENGTH))
        if any(end["code"] for end in restarted):
            raise RuntimeError(f"{ends}\n{restarted}")
        row["ended"].append({
            "worker": number, "signal": ending.name, "workers": ends,
            "equal_to_the_bit": [same(memory(folder, n), memory(whole, n)) for n in range(2)],
        })  # fmt: skip
        print(name, json.dumps(row["ended"][-1]), flush=True)
    return row


def page(about: dict[str, Any], networks: dict[str, Any]) -> str:
    """Returns the figures as a Markdown page."""
    compared = [
        [name, *(f"{row[kind][moment]:.1e}" for moment in ("first_step", "end")
                 for kind in ("two", "nudged")),
         "yes" if row["workers_hold_the_same"] else "no"]
        for name, row in networks.items()
    ]  # fmt: skip
    ended = [
        [name, f"worker {one['worker']}, {one['signal']}",
         ", ".join(str(end["code"]) for end in one["workers"]),
         f"{abs(one['workers'][0]['seconds'] - one['workers'][1]['seconds']):.0f}",
         "yes" if all(one["equal_to_the_bit"]) else "no"]
        for name, row in networks.items() for one in row["ended"]
    ]  # fmt: skip
    return "\n".join([
        "# Two processes on one machine", "",
        "Two processes train one network, each on its half of every batch, with synchronized batch",
        "norms and ranges. How far their weights lie from those of one process, over the distance",
        "that these moved; and whether both hold the same to the bit. Nudged: one process against",
        "itself, each value of its images moved by a last bit.", "",
        table(
            ["network", "1 step", "1 step, nudged", "12 steps", "12 steps, nudged", "alike"],
            compared,
        ), "",
        f"One of the two ends by a signal in step {ENDED_AT}; the other follows, and both are",
        "started again.",
        "Equal: all variables and the optimizer's, in both, as in the run that was left alone.", "",
        table(["network", "ended", "exit codes", "seconds apart", "equal"], ended), "",
        f"- Command: `{about['command']}`",
        *(f"- Commit of {name}: {row['commit']}" for name, row in networks.items()),
        f"- Seed {SEED}; `{' '.join(FLAGS)}`", f"- {about['machine']}", "",
    ])  # fmt: skip


def main() -> None:
    """Measures every network and writes both files."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", default="results/workers")
    arguments = parser.parse_args()
    about = {
        "command": "tools/workers.py", "seed": SEED,
        "machine": f"{os.cpu_count()} CPU cores, {platform.machine()}, no GPU",
    }  # fmt: skip
    kept = pathlib.Path(f"{arguments.output}.json")
    networks = json.loads(kept.read_text())["networks"] if kept.exists() else {}
    for name in [name for name in NETWORKS if name not in networks]:
        commit = commit_here()
        with tempfile.TemporaryDirectory() as place:
            networks[name] = {"commit": commit, **measure(name, pathlib.Path(place))}
        text = json.dumps({**about, "networks": networks}, indent=2)
        write_text(f"{arguments.output}.json", text + "\n")
        write_text(f"{arguments.output}.md", page(about, networks))


if __name__ == "__main__":
    main()
