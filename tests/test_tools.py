"""Every tool starts and explains itself; what makes figures makes the right ones."""

import argparse
import json
import os
import pathlib
import re
import runpy
import subprocess
import sys
import types

import keras
import numpy as np
import pytest

ROOT = pathlib.Path(__file__).parent.parent
PYTHON_TOOLS = sorted(
    path.name for path in (ROOT / "tools").glob("*.py") if path.read_text().startswith("#!")
)


@pytest.mark.parametrize("name", PYTHON_TOOLS)
def test_tool_tells_its_options(name, capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", [name, "--help"])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(ROOT / "tools" / name), run_name="__main__")
    assert ended.value.code == 0
    assert "--help" in capsys.readouterr().out


def test_tool_starts_in_a_process_of_its_own():
    ended = subprocess.run(
        [sys.executable, ROOT / "tools" / "evidence.py", "--help"], capture_output=True, text=True,
        check=False, env={**os.environ, "PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "3"},
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr[-2000:]
    assert "--seeds" in ended.stdout


def tool(name):
    """Returns a tool as a module; nothing is run."""
    module = types.ModuleType(name)
    module.__file__ = str(ROOT / "tools" / f"{name}.py")
    exec(compile(pathlib.Path(module.__file__).read_text(), name, "exec"), module.__dict__)
    return module


def test_readers_refuse_what_they_cannot_take_without_a_traceback():
    found = tool("fuzz").in_process(cases=600, seed=5)
    assert found["tracebacks"] == []
    counts = found["targets"]
    assert set(counts["config.json"]) == set(counts["recipe"]) == {"taken", "refused"}


def record(top1, **changed):
    """Returns an evaluation as `tfcq.evaluate` writes it."""
    return {
        "results": [{"bits": bits, "top1": value} for bits, value in top1.items()],
        "policy": "as trained", "calibration": {"method": "minmax"}, "settings": {"epochs": 60},
        "train_images": 1437, "test_images": 360, "versions": {"keras": "3"}, **changed,
    }  # fmt: skip


def cells(text):
    """Returns the first cell of each row of a Markdown table to the others."""
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines()
            if line.startswith("| ")]  # fmt: skip
    return {first: others for first, *others in rows}


def test_evidence_is_mean_and_sample_deviation_over_seeds_of_runs_as_trained(tmp_path, monkeypatch):
    evidence, commands = tool("evidence"), []
    top1 = {
        "base": {"0": (0.90, 0.70), "1": (0.80, 0.72), "2": (0.97, 0.74)},
        "better": {"0": (0.94, 0.80), "1": (0.92, 0.85), "2": (0.93, 0.93)},
    }
    (tmp_path / "flags").mkdir()
    for name in top1:
        (tmp_path / "flags" / f"{name}.cfg").write_text("# a header\n--epochs=9\n")

    def run(command, **options):
        commands.append(command)
        module, *flags = command[2:]
        if module == "tfcq.evaluate":
            folder = pathlib.Path(flags[0].removeprefix("--run_dir="))
            name, seed = folder.name.removeprefix("mine_").split("_")
            own = record(dict(zip(("fp", "4w4a"), top1[name][seed], strict=True)))
            others = [
                record({"fp": 0.1, "4w4a": 0.1}, **changed)
                for changed in (
                    {"policy": "paper"}, {"settings": {"correct_biases": True}},
                    {"calibration": {"method": "mse"}},
                )
            ]  # fmt: skip
            (folder / "evaluation").mkdir(parents=True)
            file = folder / "evaluation" / "linear.json"
            file.write_text(json.dumps({**others[0], "earlier": [*others[1:], own]}))
        return subprocess.CompletedProcess(command, 0, stdout="abc\n")

    monkeypatch.setattr(evidence.subprocess, "run", run)
    monkeypatch.setattr(evidence, "ROOT", tmp_path)
    files = "flags/base.cfg,flags/better.cfg"
    arguments = ["evidence", "--name=mine", f"--flagfiles={files}", f"--runs={tmp_path / 'runs'}"]
    monkeypatch.setattr(sys, "argv", [*arguments, "--", "--data_dir=/mine", "--width=4"])
    evidence.main()

    trained = [command[3:] for command in commands if command[2] == "tfcq.train"]
    assert trained == [
        [f"--flagfile=flags/{name}.cfg", f"--seed={seed}",
         f"--run_dir={tmp_path / 'runs' / f'mine_{name}_{seed}'}", "--data_dir=/mine", "--width=4"]
        for name in top1 for seed in "012"
    ]  # fmt: skip
    found = json.loads((tmp_path / "results" / "mine.json").read_text())
    for name, runs in top1.items():
        columns = list(zip(*runs.values(), strict=True))
        assert found["top1"][name] == [list(column) for column in columns]
        assert found["mean"][name] == pytest.approx([np.mean(c) for c in columns])
        assert found["spread"][name] == pytest.approx([np.std(c, ddof=1) for c in columns])
    written = (tmp_path / "results" / "mine.md").read_text()
    assert cells(written) == {
        "recipe": ["fp", "4w4a"], "base": ["89.0 ± 8.5", "72.0 ± 2.0"],
        "better": ["93.0 ± 1.0", "86.0 ± 6.6"], "better - base": ["+4.0", "+14.0"],
    }  # fmt: skip
    assert "/mine" not in written and "--data_dir=DIR --width=4" in written
    assert "- Commit: abc\n" in written and (tmp_path / "results" / "mine.png").exists()
    # What was measured before is neither trained nor evaluated otherwise.
    commands.clear()
    evidence.main()
    assert "tfcq.evaluate" not in {command[2] for command in commands}


def test_digits_grid_evaluates_every_combination_under_one_policy(tmp_path, monkeypatch):
    grid, commands = tool("digits_grid"), []

    def run(module, *flags):
        commands.append((module, *flags))
        given = dict(flag.removeprefix("--").split("=") for flag in flags)
        folder = pathlib.Path(given["run_dir"])
        if module == "tfcq.evaluate":
            _, framework, recipe = folder.name.split("_", 2)
            place = [list(grid.HEADS).index(framework), grid.RECIPES.index(recipe)]
            top1 = {b: (10 * place[0] + place[1]) / 100 for b in given["bits"].split(",")}
            (folder / "evaluation").mkdir(parents=True)
            file = folder / "evaluation" / "linear.json"
            file.write_text(json.dumps(record(top1, policy=given["policy"])))
        else:
            assert folder.name == f"grid_{given['framework']}_{given['recipe']}"
            assert given["seed"] == "3" and given["epochs"] == "7"

    monkeypatch.setattr(grid, "run", run)
    monkeypatch.setattr(grid, "ROOT", tmp_path)
    monkeypatch.setattr(
        grid.subprocess, "run", lambda *a, **k: subprocess.CompletedProcess(a, 0, stdout="abc\n")
    )
    arguments = ["grid", "--name=grid", "--epochs=7", "--seed=3", f"--runs={tmp_path / 'runs'}"]
    monkeypatch.setattr(sys, "argv", [*arguments, "--bits=fp,2w4a", "--policy=uniform"])
    grid.main()
    assert len(commands) == 2 * 5 * 6
    rows = cells((tmp_path / "results" / "grid.md").read_text())
    assert rows.pop("framework, recipe") == ["fp", "2w4a"]
    assert rows == {
        f"{framework}, {recipe}": [f"{10 * i + j:.1f}"] * 2
        for i, framework in enumerate(grid.HEADS) for j, recipe in enumerate(grid.RECIPES)
    }  # fmt: skip
    for changed in ("--bits=fp,3w3a", "--policy=paper"):
        monkeypatch.setattr(sys, "argv", [*sys.argv[:7], changed])
        with pytest.raises(SystemExit, match="was evaluated otherwise"):
            grid.main()


def test_study_of_post_training_scores_test_images_and_calibrates_on_others(tmp_path, monkeypatch):
    from tfcq.data.pipeline import labelled_arrays
    from tfcq.data.sources import open_source
    from tfcq.evaluation.classifier import CLASSIFIER, with_classifier
    from tfcq.nn.quantizable import quantizable
    from tfcq.post_training.plan import Plan
    from tfcq.settings.bitwidths import FLOAT, BitWidth

    keras.utils.set_random_seed(0)
    inputs = keras.Input((8, 8, 1))
    x = keras.layers.Conv2D(4, 3, activation="relu", name="conv")(inputs)
    network = keras.Model(inputs, keras.layers.Flatten(name="flat")(x))
    model = with_classifier(quantizable(network, "paper"), 10)
    kernel, bias = model.get_layer(CLASSIFIER).get_weights()
    random = np.random.default_rng(0)
    model.get_layer(CLASSIFIER).set_weights([random.normal(size=kernel.shape), bias])
    model.save(tmp_path / "model.keras")
    ptq = tool("ptq_table")
    study = ptq.Study(
        argparse.Namespace(
            model=tmp_path / "model.keras", policy="uniform", dataset="digits", data_dir=None,
            images=64, seed=3, iterations=5, batch_size=8, learning_rate=0.02,
        )
    )  # fmt: skip
    source = open_source("digits")
    train, test = (labelled_arrays(source.split(name), 8) for name in ("train", "test"))
    known = {image.tobytes() for image in train[0]}
    assert len(study.images) == 64 and all(image.tobytes() in known for image in study.images)
    assert type(study.model.get_layer(CLASSIFIER)) is keras.layers.Dense
    expected = np.mean(np.argmax(model(test[0]), axis=1) == test[1])
    assert study.top1(study.model, FLOAT) == pytest.approx(expected)
    settings = study.learning
    assert (settings.iterations, settings.batch_size, settings.seed) == (5, 8, 3)

    plans = study.plans()
    mse = {"calibration": "mse", "learning": settings}
    assert plans["mse, AdaRound"] == Plan(**mse, rounding="adaround")
    assert plans["mse, block reconstruction"] == Plan(**mse, rounding="block")
    assert plans["minmax, bias correction"] == Plan(correct_biases=True)
    assert len(set(map(repr, plans.values()))) == len(plans)

    bits, methods, taken = BitWidth(3, 4), [], []

    class Prepared:
        def __init__(self, model, images, plan):
            assert model is study.model and images is study.images
            taken.append(plan)
            count = len(taken)
            self.at = lambda asked: types.SimpleNamespace(model=(count, asked))

    monkeypatch.setattr(study.observations, "set_ranges", lambda *a: methods.append(a))
    monkeypatch.setattr(study, "features", lambda images, bits: np.eye(10)[test[1]])
    monkeypatch.setattr(ptq, "PostTraining", Prepared)
    monkeypatch.setattr(study, "top1", lambda model, bits: (model, bits))
    found = dict(study.by_method(bits, learned=True))
    assert methods == [(name, 4) for name in ptq.RANGES]
    assert [found[name] for name in ptq.RANGES] == [1] * len(methods)
    assert taken == list(plans.values())
    assert [found[name] for name in plans] == [
        ((place, bits), bits) for place in range(1, len(plans) + 1)
    ]

    learned = []
    monkeypatch.setattr(ptq, "with_stored_scales", lambda *a, **named: (*a[1:], named))
    monkeypatch.setattr(ptq, "learn_rounding", lambda *a: learned.append(a))
    alone = {name: model for name, (model, _) in study.weights_alone(3)}
    largest, least = ((3, scales, {"activations": False}) for scales in ("max", "mse"))
    assert alone == {
        "nearest": largest, "nearest, mse weights": least, "AdaRound": largest,
        "block reconstruction": largest,
    }  # fmt: skip
    assert [call[4] for call in learned] == ["layer", "block"]
    assert all(call[1] is study.model and call[3].weights == 3 for call in learned)


def test_lowest_versions_that_are_tried_are_those_that_are_allowed():
    allowed = re.findall(r"^    ([\w-]+) >= ([\d.]+)$", (ROOT / "setup.cfg").read_text(), re.M)
    tried = re.findall(r"^([\w-]+)==([\d.]+)$", (ROOT / "constraints-lowest.txt").read_text(), re.M)
    assert {name for name, _ in allowed} == {name for name, _ in tried}
    for name, version in tried:
        assert version.startswith(dict(allowed)[name])


def test_applications_tells_what_was_refused_from_what_failed(tmp_path, monkeypatch, capsys):
    zoo = tool("applications")
    refusal = "Layer 'a' holds; pass overrides={'a*': 'fp', 'b': 'fp'} (--layer_bits=a*:fp,b:fp)."
    assert zoo.left_in_float(refusal) == {"a*": "fp", "b": "fp"}
    assert zoo.left_in_float("Model 'a' is another.") == {}
    whole = {"image": 32, "parameters": 3_210_000, **dict.fromkeys(zoo.CHECKS, "yes")}
    found = {"VGG16": {**whole, "int8 export": refusal}, "Xception": whole}
    monkeypatch.setattr(zoo, "in_own_process", lambda name, seed: found[name])
    files = f"--output={tmp_path / 'zoo'}"
    monkeypatch.setattr(sys, "argv", ["applications", "--networks=VGG16,Xception", files])
    for broken, code in (({}, 0), ({"4w4a": "NO"}, 1), ({"SSQL step": f"{zoo.FAILED}x"}, 1),
                         ({"converts": "two\nlines"}, 1)):  # fmt: skip
        (tmp_path / "zoo.json").unlink(missing_ok=True)
        found["Xception"] = {**whole, **broken}
        with pytest.raises(SystemExit) as ended:
            zoo.main()
        assert ended.value.code == code
        page, record = (tmp_path / "zoo.md").read_text(), (tmp_path / "zoo.json").read_text()
        assert cells(page)["VGG16"] == ["32", "3.2 M", *["yes"] * 6, "note 1"]
        networks = json.loads(record)["networks"]
        assert f"1. {refusal}\n" in page
        assert [networks["Xception"][column] for column in zoo.CHECKS] == [
            found["Xception"][column] for column in zoo.CHECKS
        ]
    # What stands in the file is not checked again.
    found.clear()
    with pytest.raises(SystemExit):
        zoo.main()
    assert json.loads((tmp_path / "zoo.json").read_text())["networks"] == networks
