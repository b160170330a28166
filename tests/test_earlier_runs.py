"""Runs, records, kept classifiers and exports that earlier code wrote go on and score the same.

`tests/vectors/README.md` says how they were made.
"""

import json
import os
import pathlib
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest

VECTORS = pathlib.Path(__file__).parent / "vectors"
UNFINISHED = """
--dataset=digits --train_images=256 --framework=mocov2 --recipe=ssql --backbone=cifar_resnet8
--width=4 --projection_width=16 --projection_hidden=16 --queue_size=128 --batch_size=64
--learning_rate=0.01 --epochs=2 --seed=5 --deterministic --run_dir=unfinished
"""


@pytest.fixture
def earlier(tmp_path):
    """Returns a copy of the folders, in which commands may write."""
    return shutil.copytree(VECTORS, tmp_path / "earlier")


@pytest.fixture
def run(earlier, monkeypatch, capsys):
    """Returns a function that runs a command as its user would, in the folder of the copies."""

    def command(module, *arguments):
        monkeypatch.chdir(earlier)
        assert not module.main(module.flag_set().parse([*arguments]))
        return capsys.readouterr().out

    return command


def read(file: pathlib.Path):
    return json.loads(file.read_text())


# What records say since then.
ADDED = {
    "microcontroller",
    "backend",
    "storage",
    "batch",
    "input_range",
    "classes",
    "majority_share",
    "steps",
}


def assert_same(ours, theirs, place=""):
    """Figures to 1e-5, since kernels of another CPU round otherwise; all else exactly."""
    if isinstance(theirs, dict):
        assert ours.keys() - ADDED == theirs.keys(), place
        # What ran then may be another version.
        for name in theirs.keys() - {"versions"}:
            assert_same(ours[name], theirs[name], f"{place}/{name}")
    elif isinstance(theirs, list):
        assert len(ours) == len(theirs), place
        for one, other in zip(ours, theirs, strict=True):
            assert_same(one, other, place)
    elif isinstance(theirs, float):
        assert ours == pytest.approx(theirs, abs=1e-5), place
    else:
        assert ours == theirs, place


def test_unfinished_run_ends_with_the_weights_it_ended_with(earlier):
    import tfcq

    environment = {**os.environ, "PYTHONPATH": str(VECTORS.parents[1])}
    program = [sys.executable, "-m", "tfcq.train", *UNFINISHED.split()]
    subprocess.run(
        program, cwd=earlier, env=environment, check=True, capture_output=True, timeout=300
    )
    ended = np.load(VECTORS / "ended.npz")
    model = tfcq.load(earlier / "unfinished" / "backbone.keras")
    for variable in model.weights:
        # Machines, and batch norms since then, round otherwise.
        ours, theirs = np.asarray(variable), ended[variable.path]
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-5, err_msg=variable.path)


def test_evaluation_joins_the_earlier_record_with_the_same_figures(earlier, run):
    from tfcq import evaluate

    before = {
        file.name: read(file) for file in (earlier / "finished" / "evaluation").glob("*.json")
    }
    run(
        evaluate,
        "--run_dir=finished",
        "--protocol=linear,knn,semi",
        "--bits=fp,4w4a",
        "--label_share=0.2",
        "--epochs=4",
        "--batch_size=32",
    )
    assert len(before) == 3
    for name, record in before.items():
        now = read(earlier / "finished" / "evaluation" / name)
        if now["versions"] != record["versions"]:
            # Other versions: a record of its own, in front of the earlier one.
            (found,) = now.pop("earlier")
            assert {**found, "earlier": []} == record
            now["earlier"] = []
        assert_same(now, record, name)


def test_kept_classifier_scores_the_same(earlier, run):
    from tfcq import evaluate

    model = "finished/evaluation/semi_20_4w4a.keras"
    run(
        evaluate, f"--model={model}", "--protocol=classifier", "--dataset=digits", "--bits=fp,4w4a",
        "--output_dir=kept",
    )  # fmt: skip
    assert_same(read(earlier / "kept" / "classifier.json"), read(VECTORS / "kept_classifier.json"))


def test_export_replaces_the_earlier_one_with_the_same_figures(earlier, run):
    from tfcq import export

    run(export, "--run_dir=finished")
    ours, theirs = (
        read(folder / "finished" / "export" / "int8.json") for folder in (earlier, VECTORS)
    )
    # The integer form is another one since then, closer to what the file computes, and the probe
    # is fitted to its features.
    assert ours.pop("gate")["passed"]
    for figures in (ours, theirs):
        for name in ("milliseconds_per_image", "bytes", "ranges"):
            figures.pop(name)
        for name in [name for name in figures if "_against_" in name]:
            figures.pop(name)
    agreements = ours.pop("agreement"), theirs.pop("agreement")
    assert agreements[0] >= agreements[1]
    for name in ("int8", "simulation", "float"):
        assert abs(ours["top1"].pop(name) - theirs["top1"].pop(name)) < 0.05
    assert_same(ours, theirs)


def test_report_tells_the_same(earlier, run):
    from tfcq import report

    run(report, "finished", "--output=report", "--tsne_bits=")
    ours, theirs = (earlier / "report" / "report.md", VECTORS / "report.md")
    # A section that came later.
    told = re.sub(r"## Detection\n\nNo detector .*\n\n", "", ours.read_text())
    assert told == theirs.read_text()
