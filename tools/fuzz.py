#!/usr/bin/env python3
"""Gives every parser and reader random mistakes and looks for tracebacks; there must be none.

    .venv/bin/python tools/fuzz.py --output=results/fuzz.json

What is read is a valid text with random changes, or such as no text should be: 5,000 digits, NUL,
half of a surrogate pair, 100,000 brackets, bytes that are not UTF-8. It must be taken or refused by
a `UserError` (or an `OSError`, which commands tell in one line), within 10 seconds and 4 GB.
Processes are real commands, which must end with a known code and at most one line of error.
"""

import argparse
import collections
import contextlib
import io
import json
import os
import pathlib
import random
import resource
import signal
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from provenance import commit_here

from tfcq import command_line, evaluate, export, report, train
from tfcq.errors import TrainingStopped, UserError
from tfcq.evaluation.records import read_records
from tfcq.files import write_text
from tfcq.reporting.report_folder import check_report_folder
from tfcq.reporting.run import report as make_report
from tfcq.reporting.run_record import read_export, read_history
from tfcq.settings.backbones import check_backbone_name, normalization, settings_of
from tfcq.settings.bitwidths import parse_bit_choices, parse_bit_width, parse_bit_widths
from tfcq.settings.datasets import check_dataset_name
from tfcq.settings.defaults import choice, replaced
from tfcq.settings.durations import parse_duration
from tfcq.settings.fields import share_range
from tfcq.settings.kernels import parse_kernels
from tfcq.settings.policies import parse_bits_by_layer, parse_layer_bits
from tfcq.settings.protocols import protocols_named
from tfcq.settings.recipes import parse_recipe, recipe_named
from tfcq.settings.run_folder import RunFolder
from tfcq.settings.subject_files import check_files
from tfcq.settings.training import config_from_flat
from tfcq.training.history import HistoryFile

ROOT = pathlib.Path(__file__).parent.parent
SECONDS, MEMORY, PROCESS_SECONDS = 10, 4 * 2**30, 120
DIGITS = "9" * 5000
NASTY = (
    "", " ", ",", "-", "->", "<->", "@", ":", "*", "w", "a", "=", "\n", "\0", "\ud800", "\udcff",
    "fp", "q9", "nan", "inf", "-1", "0", "1e400", "1e308", "1e-400", "999999999", "2-999999999",
    DIGITS, f"2-{DIGITS}", f"{DIGITS}w{DIGITS}a", "٤", "²", "é", "日本", "/", "..", "~", "\\", "%s",
    "{}", "null", "None", "true", "'", '"', "[" * 100_000, '{"a":' * 100_000, "x" * 100_000,
)  # fmt: skip
VALUES = (
    None, True, False, -1, 0, 1, 2**63, 10**4000, 1e308, float("nan"), float("inf"), "", "x", "fp",
    "\0", "\ud800", [], {}, [1], {"a": 1}, [[]], ["x"] * 3, "x" * 10_000,
)  # fmt: skip
SMALL = [
    "--train_images=64", "--batch_size=32", "--epochs=1", "--backbone=cifar_resnet8", "--width=2",
    "--projection_width=8", "--predictor_width=8",
]  # fmt: skip
HISTORY = "epoch,loss,error_correlation\n1,-0.1,0.02\n2,-0.5,\n"
CUSTOM_OBJECTS = (
    "import keras\n\n\nclass Own(keras.layers.Layer):\n    def call(self, x): return x\n"
)
RESULTS = {
    "dataset": "digits", "protocol": "linear", "policy": "as trained", "subject": "simsiam, ssql",
    "results": [
        {"bits": "fp", "top1": 0.9, "top5": 1.0, "mean_per_class": 0.9, "ranges": "of training"},
        {"bits": "4w4a", "top1": 0.8, "top5": 1.0, "weight_bits": {"stem": 8},
         "curve": [{"epoch": 1, "loss": 2.0, "top1": 0.5}]},
    ],
    "calibration": {"method": "minmax", "pass": "as trained", "images": 1000, "seed": None},
    "train_images": 1437, "test_images": 360, "test_crop": 1.0, "seed": 0, "data_fingerprint": "0",
    "versions": {"tensorflow": "2.0.0"}, "settings": {"epochs": 60}, "earlier": [],
}  # fmt: skip
_COMPARED = {"agreement": 0.99, "mean_error": 0.1, "worst_error": 0.2}
EXPORT = {
    "dataset": "digits", "agreement": 0.994, "evaluated_bits": "8w8a", "policy": "int8",
    "bytes": {"int8": 1234, "float": 4321}, "top1": {"int8": 0.9, "simulation": 0.9, "float": 0.9},
    "int8_against_simulation": _COMPARED, "int8_against_float": _COMPARED,
    "milliseconds_per_image": {"int8": 0.1, "float": 0.2}, "test_images": 360,
}  # fmt: skip
BITS = ("2-8", "4", "2,4,8", "fp,8w8a", "2-4w4a", "fp", "8w8a", "8a")
TEXTS = {
    "bits": BITS,
    "kernels": ("xnnpack", "reference, micro", "xnnpack,optimized,reference"),
    "layer_bits": ("stem:8w8a,stage4_*:4w4a", "stem:fp", "a*:8w"),
    "recipe": ("ssql", "v1@q->v2@fp, 0.5*v1@fp<->v2@fp", "v0@q1<->v0@q2"),
    "duration": ("100epochs", "5000steps", "1e6examples", "0.5epochs", "7"),
    "dataset": ("digits", "folder:/tmp", "fashion_mnist", "cifar10/plain:3.0.2", "./tmp"),
    "backbone": ("resnet18", "cifar_resnet20", "applications:MobileNetV2", "file:a.keras"),
    "numbers": ("0.2-1", "0.485,0.456,0.406", "0.5"),
    "protocol": ("linear", "linear,knn", "qat,semi"),
}


def main() -> None:
    """Runs all cases and writes what was found."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", type=int, default=21_000, help="cases in this process")
    parser.add_argument("--processes", type=int, default=100, help="real commands")
    parser.add_argument("--seed", type=int, default=0, help="seed of every case")
    parser.add_argument("--output", help="also write what was found to this JSON file")
    arguments = parser.parse_args()
    found = in_process(arguments.cases, arguments.seed)
    found |= {"processes": real_processes(arguments.processes, arguments.seed)}
    tracebacks = found["tracebacks"] + found["processes"]["tracebacks"]
    figures = {
        "command": f"tools/fuzz.py --cases={arguments.cases} --processes={arguments.processes} "
        f"--seed={arguments.seed}",
        "commit": commit_here(),
        "seed": arguments.seed,
        **found,
    }
    if arguments.output:
        write_text(arguments.output, json.dumps(figures, indent=2) + "\n")
    print(json.dumps(figures, indent=2))
    print(f"{len(tracebacks)} tracebacks")
    sys.exit(bool(tracebacks))


def changed_text(draw: random.Random, text: str) -> str:
    """Returns a text with one to four random changes."""
    for _ in range(draw.choice((1, 1, 2, 4))):
        start, end = sorted(draw.randint(0, len(text)) for _ in range(2))
        middle = draw.choice(
            (draw.choice(NASTY), "", text[start:end] * 2, chr(draw.randrange(256)))
        )
        text = text[:start] + middle + text[draw.choice((start, end)) :]
    return draw.choice(NASTY) if draw.random() < 0.05 else text


def changed_bytes(draw: random.Random, text: str) -> bytes:
    """Returns the bytes of a text, changed in their text or in themselves."""
    if draw.random() < 0.6:
        return changed_text(draw, text).encode(errors="surrogatepass")
    content = bytearray(text.encode(errors="surrogatepass"))
    for _ in range(draw.randint(1, 4)):
        content.insert(draw.randint(0, len(content)), draw.randrange(256))
    return bytes(content)


def changed_tree(draw: random.Random, tree: Any) -> Any:
    """Returns a JSON tree in which one random place holds something else."""
    if isinstance(tree, (dict, list)) and tree and draw.random() < 0.85:
        keys: list[Any] = list(tree) if isinstance(tree, dict) else list(range(len(tree)))
        copy, key = tree.copy(), draw.choice(keys)
        if draw.random() < 0.1:
            del copy[key]
        else:
            copy[key] = changed_tree(draw, copy[key])
        return copy
    return draw.choice(VALUES)


def changed_json(draw: random.Random, tree: Any) -> bytes:
    """Returns a JSON text that is wrong in its form or in what it holds."""
    sys.set_int_max_str_digits(0)
    try:
        for _ in range(draw.randint(1, 3)):
            tree = changed_tree(draw, tree)
        text = json.dumps(tree, indent=draw.choice((None, 2)))
    finally:
        sys.set_int_max_str_digits(4300)
    return text.encode() if draw.random() < 0.7 else changed_bytes(draw, text)


def changed_arguments(draw: random.Random, flag_set: command_line.FlagSet) -> list[str]:
    """Returns random flags of a command with random values."""
    names = [name for names in flag_set.groups.values() for name in names]
    texts = [text for group in TEXTS.values() for text in group]
    arguments = []
    for _ in range(draw.randint(1, 4)):
        name, value = draw.choice(names), draw.choice(texts)
        choices = flag_set.flags[name].help.rpartition(": ")[2].split(", ")
        kinds = {"int": ("1", "64", "300"), "float": ("0.5", "0", "1"), "bool": ("true", "false")}
        fitting = kinds.get(flag_set.flags[name].flag_type(), choices)
        value = draw.choice((value, *[draw.choice(fitting)] * 5, changed_text(draw, value)))
        arguments.append(f"--{name}={value}" if draw.random() < 0.95 else f"--{name}")
    return arguments


def in_process(cases: int, seed: int) -> dict[str, Any]:
    """Returns how many cases every target took and refused, and the tracebacks.

    Args:
        cases: how many, shared among the targets.
        seed: seed of all.
    """
    counts: dict[str, collections.Counter] = collections.defaultdict(collections.Counter)
    tracebacks: dict[str, dict[str, Any]] = {}
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    used = int(pathlib.Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, hard))
    previous = signal.signal(signal.SIGALRM, _too_slow)
    with tempfile.TemporaryDirectory() as folder:
        cases_of = targets(pathlib.Path(folder))
        # Those that read little take most of the time's cases.
        wheel = [name for name in cases_of if name != "report"] * 20 + ["report"] * 6
        for case in range(cases):
            name = wheel[case % len(wheel)]
            draw = random.Random(f"{seed} {case}")
            outcome = _outcome(lambda: cases_of[name](draw))  # noqa: B023
            counts[name][outcome[0]] += 1
            if len(outcome) > 1:
                about = {"target": name, "case": case, "error": outcome[1]}
                tracebacks.setdefault(outcome[1], about)
    signal.signal(signal.SIGALRM, previous)
    resource.setrlimit(resource.RLIMIT_AS, (hard, hard))
    return {"cases": cases, "targets": counts, "tracebacks": [*tracebacks.values()]}


def targets(folder: pathlib.Path) -> dict[str, Callable[[random.Random], Any]]:
    """Returns what is tried: name to a function of a random source that makes one case.

    Args:
        folder: where files are written.
    """
    run = RunFolder(folder / "run")
    run.begin(config_from_flat({"epochs": 2}))
    settings = json.loads(run.config.read_text())
    # Behind it, nothing else would be read.
    del settings["checksum"]
    manifest = {"made_by": "tfcq.report", "files": ["report.html", "report.json"]}
    (folder / "report").mkdir()

    results, figures = folder / "linear.json", folder / "int8.json"

    def text(name: str, *parsers: Callable[[str], Any]) -> Callable[[random.Random], Any]:
        def case(draw: random.Random) -> None:
            draw.choice(parsers)(changed_text(draw, draw.choice(TEXTS[name])))

        return case

    def file(path: pathlib.Path, tree: Any, read: Callable[[], Any]) -> Callable:
        def case(draw: random.Random) -> None:
            csv = isinstance(tree, str)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(changed_bytes(draw, tree) if csv else changed_json(draw, tree))
            read()

        return case

    def flag_file(draw: random.Random) -> None:
        path = folder / "a.cfg"
        lines = "\n".join(changed_arguments(draw, train.flag_set()))
        path.write_bytes(changed_bytes(draw, lines))
        _train_settings([f"--flagfile={path}"])

    def reported(draw: random.Random) -> None:
        whole = RunFolder(folder / "whole")
        for path, tree in _run_files(whole, settings).items():
            path.parent.mkdir(parents=True, exist_ok=True)
            changed = draw.random() < 0.3
            plain = tree.encode() if isinstance(tree, str) else json.dumps(tree).encode()
            change = changed_bytes if isinstance(tree, str) else changed_json
            path.write_bytes(change(draw, tree) if changed else plain)  # type: ignore[arg-type]
        with contextlib.redirect_stdout(io.StringIO()):
            make_report([(whole, whole.load_unfinished())], folder / "page", overwrite=True)

    return {
        "train": lambda draw: _train_settings(changed_arguments(draw, train.flag_set())),
        "evaluate": lambda draw: _evaluation_settings(evaluate, draw),
        "export": lambda draw: _evaluation_settings(export, draw),
        "flag file": flag_file,
        "config.json": file(run.config, settings, run.load_unfinished),
        "run that goes on": file(
            run.config, settings, lambda: _train_settings([f"--run_dir={run.path}", "--seed=0"])
        ),
        "custom objects": file(
            folder / "own.py", CUSTOM_OBJECTS,
            lambda: evaluate.flag_set().parse([f"--custom_objects={folder / 'own.py'}"]),
        ),
        "results": file(results, RESULTS, lambda: read_records(results)),
        "history": file(
            run.history, HISTORY, lambda: (HistoryFile(run.history, 2), read_history(run.history))
        ),
        "export figures": file(figures, EXPORT, lambda: read_export(figures)),
        "report folder": file(
            folder / "report" / "report.json", manifest,
            lambda: check_report_folder(folder / "report", True),
        ),
        "bits": text(
            "bits", parse_bit_choices, parse_bit_width, parse_bit_widths, parse_layer_bits
        ),
        "kernels": text("kernels", parse_kernels),
        "layer bits": text("layer_bits", parse_bits_by_layer),
        "recipe": text("recipe", recipe_named, parse_recipe),
        "duration": text("duration", lambda found: parse_duration(found).steps(6, 256, 1)),
        "data set": text("dataset", check_dataset_name),
        "backbone": text("backbone", check_backbone_name, settings_of),
        "numbers": text(
            "numbers", lambda found: share_range("crop_area", found),
            lambda found: normalization(found, found),
        ),
        "protocol": text("protocol", protocols_named),
        "report": reported,
    }  # fmt: skip


def _train_settings(arguments: list[str]) -> None:
    config, run, left_open = train.settings_of(train.flag_set().parse(arguments))
    run.check(config)
    chosen = choice(config, left_open, (None, None, 3), 1000, accelerator=False)
    replaced(config, chosen.values)


def _evaluation_settings(command: Any, draw: random.Random) -> None:
    subject = ["--run_dir=.", "--model=m.keras", "--model=applications:MobileNetV2"]
    own = [draw.choice(subject)] if draw.random() < 0.7 else []
    arguments = [*own, *changed_arguments(draw, command.flag_set())]
    check_files(command.config_of(command.flag_set().parse(arguments)))


def _run_files(run: RunFolder, settings: dict[str, Any]) -> dict[pathlib.Path, Any]:
    return {
        run.config: settings,
        run.history: HISTORY,
        run.evaluation / "linear.json": RESULTS,
        run.export / "int8.json": EXPORT,
    }


def _too_slow(*_: Any) -> None:
    raise TimeoutError(f"more than {SECONDS} seconds")


def _outcome(case: Callable[[], Any]) -> tuple[str, ...]:
    signal.alarm(SECONDS)
    try:
        case()
        return ("taken",)
    except TimeoutError as error:
        return "slow", repr(error)
    except (UserError, OSError, TrainingStopped):
        return ("refused",)
    except BaseException as error:
        places = [f"{f.filename}:{f.lineno}" for f in traceback.extract_tb(error.__traceback__)]
        own = [place for place in places if "/tfcq/" in place] or places
        return "traceback", f"{own[-1].rpartition('/tfcq/')[2]} {error!r}"[:300]
    finally:
        signal.alarm(0)


def real_processes(count: int, seed: int) -> dict[str, Any]:
    """Returns how real commands ended that were given random flags.

    Args:
        count: how many.
        seed: seed of all.
    """
    commands = {"train": train, "evaluate": evaluate, "export": export, "report": report}
    ended: collections.Counter = collections.Counter()
    tracebacks = []
    for number in range(count):
        draw = random.Random(f"{seed} process {number}")
        name = draw.choice([*commands])
        arguments = [
            # What no process can be given.
            os.fsencode(one.encode("utf-8", "replace").decode().replace("\0", ""))[:100_000]
            for one in changed_arguments(draw, commands[name].flag_set())
        ]
        with tempfile.TemporaryDirectory() as folder:
            small = SMALL if name == "train" else []
            outcome = _process([sys.executable, "-m", f"tfcq.{name}", *small, *arguments], folder)
        ended[outcome[0]] += 1
        if len(outcome) > 1:
            shown = [repr(one)[:100] for one in arguments]
            tracebacks.append({"command": name, "arguments": shown, "error": outcome[1]})
    return {"count": count, "ended": ended, "tracebacks": tracebacks}


def _process(command: list[Any], folder: str) -> tuple[str, ...]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    try:
        ended = subprocess.run(
            command, cwd=folder, env=environment, capture_output=True, timeout=PROCESS_SECONDS
        )
    except subprocess.TimeoutExpired:
        return ("stopped by the clock",)
    lines = ended.stderr.decode(errors="replace").splitlines()
    single = ended.returncode != command_line.USER_ERROR or len(lines) == 1
    if ended.returncode in (0, 1, 2) and single and not any("Traceback" in one for one in lines):
        return (f"code {ended.returncode}",)
    return "traceback", " | ".join(lines[-3:])[:300] or f"code {ended.returncode}"


if __name__ == "__main__":
    main()
