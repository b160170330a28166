"""tools/evidence.py: arithmetic of its pages, order and resumption of its runs, its study files."""

import csv
import json
import math
import pathlib
import subprocess
import sys
import types

import evidence
import numpy as np
import pooled
import provenance
import pytest
from studies import commands, figures, page
from studies import records as kept_records
from studies.study import read_study

from tfcq import evaluate, train
from tfcq.errors import UserError

ROOT = pathlib.Path(__file__).parent.parent
STUDIES = sorted((ROOT / "tools" / "studies").glob("*.toml"))
STUDY = """
title = "Base against better"
claim = "Better is better."
flags = "--dataset=fashion_mnist --width=4"
seeds = [3, 5]
[followed]
protocol = "linear"
epochs = [1, 2]
bits = "2w4a"
[protocols.linear]
flags = "--protocol=linear"
bits = "fp,2w4a"
[protocols.tuned]
flags = "--protocol=qat --dataset=digits"
bits = "4w4a"
learning_curve = true
[[rows]]
name = "Base"
flags = "--recipe=float"
paper.linear = { fp = 90.5 }
[[rows]]
name = "Better (b)"
flags = "--recipe=ssql"
baseline = "Base"
paper.linear = { fp = 91.25, 2w4a = 80.0 }
"""
TOP1 = {
    ("base", "fp"): (0.80, 0.84), ("base", "2w4a"): (0.60, 0.70), ("base", "4w4a"): (0.5, 0.6),
    ("better_b", "fp"): (0.80, 0.85), ("better_b", "2w4a"): (0.70, 0.75),
    ("better_b", "4w4a"): (0.7, 0.6),
}  # fmt: skip


def test_interval_is_that_of_students_t():
    def share_within(t, freedom):
        scale = math.gamma((freedom + 1) / 2) / math.gamma(freedom / 2)
        x = np.linspace(-t, t, 20_001)
        density = (
            scale / math.sqrt(freedom * math.pi) * (1 + x**2 / freedom) ** -((freedom + 1) / 2)
        )
        return float(np.trapezoid(density, x))

    assert figures.T975[0] == pytest.approx(math.tan(math.pi * 0.475), abs=1e-4)
    for freedom, t in enumerate(figures.T975, 1):
        assert share_within(t, freedom) == pytest.approx(0.95, abs=2e-5)
    mean, half = figures.interval([1.0, 2.0, 6.0])
    assert mean == 3 and half == pytest.approx(4.3027 * math.sqrt(7) / math.sqrt(3))
    for count in (1, 11):
        with pytest.raises(UserError, match=f"interval of {count} seeds; allowed: 2 to 10"):
            figures.interval([0.0] * count)


def test_tails_of_weights_are_told():
    assert commands.weight_statistics(np.array([[-1.0, 1.0]])) == {
        "kurtosis": 1, "largest": 1, "outliers": 0,
    }  # fmt: skip
    weights = np.zeros((10, 10))
    weights[0, 0] = 1
    found = commands.weight_statistics(weights)
    assert found["largest"] == pytest.approx(1 / math.sqrt(0.0099)) and found["outliers"] == 0.01
    assert found["kurtosis"] == pytest.approx((0.99**4 + 99 * 0.01**4) / 100 / 0.0099**2)


class Commands:
    """Stands in for tfcq: writes what it would, and notes what was asked for."""

    def __init__(self):
        self.asked = []
        self.before = lambda name, flags: None

    def __call__(self, name, *flags):
        given = dict(flag.removeprefix("--").split("=", 1) for flag in flags)
        run = pathlib.Path(given["run_dir"])
        part = given.get("checkpoint", given.get("protocol", ""))
        self.asked.append((name, run.name, part))
        self.before(name, given)
        run.mkdir(parents=True, exist_ok=True)
        if name == "train":
            (run / "backbone.keras").touch()
            with (run / "history.csv").open("w") as file:
                csv.writer(file).writerows([("epoch", "error_correlation"), (1, 0.2), (2, -0.05)])
            (run / "checkpoints").mkdir()
            for epoch in (1, 2):
                (run / "checkpoints" / f"ckpt-{epoch}.index").touch()
            return
        row, seed = run.name.removeprefix("mine_").rsplit("_", 1)
        assert given["seed"] == seed
        entries = [
            {"bits": bits, "top1": TOP1[row, bits]["35".index(seed)], "curve": [{"top1": 0.25}]}
            for bits in given["bits"].split(",")
        ]
        (run / "evaluation").mkdir(exist_ok=True)
        file = run / "evaluation" / f"{len(self.asked)}.json"
        file.write_text(json.dumps({"results": entries, "versions": {"keras": "3"}}))


@pytest.fixture
def study(tmp_path, monkeypatch):
    """A study file, commands that stand in, and how to start."""
    stand_in = Commands()
    for module in (evidence, commands):
        monkeypatch.setattr(module, "command", stand_in)
    backbone = types.SimpleNamespace(kernels={"kernel": np.array([[-1.0, 1.0]], np.float32)})
    monkeypatch.setattr(commands, "read_backbone", lambda file: backbone)
    monkeypatch.setattr(evidence, "commit_here", lambda: "abcdefghij")
    monkeypatch.setattr(evidence, "ROOT", tmp_path)
    file = tmp_path / "mine.toml"
    file.write_text(STUDY)
    arguments = ["evidence", str(file), f"--runs={tmp_path / 'runs'}", "--data_dir=/elsewhere"]
    monkeypatch.setattr(sys, "argv", arguments)
    monkeypatch.setattr(evidence.signal, "signal", lambda *a: None)
    stand_in.file, stand_in.results = file, tmp_path / "results"
    return stand_in


def cells(text):
    """Returns the first cell of each row of the Markdown tables, and the others."""
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines()
            if line.startswith("| ")]  # fmt: skip
    return [(first, others) for first, *others in rows]


def test_rows_follow_each_other_seed_by_seed_and_the_page_pairs_them(study, tmp_path):
    data = []
    study.before = lambda name, given: data.append(given.get("data_dir"))
    evidence.main()
    runs = [f"mine_{row}_{seed}" for seed in "35" for row in ("base", "better_b")]
    parts = [("train", ""), *(("evaluate", p) for p in ("1", "2", "linear", "qat"))]
    assert study.asked == [(name, run, part) for run in runs for name, part in parts]
    # Digits are embedded.
    assert data == ["/elsewhere", "/elsewhere", "/elsewhere", "/elsewhere", None] * 4
    text = (study.results / "mine.md").read_text()
    found = cells(text)
    for line in [
        ("Base (2)", ["82.0 ± 2.8", "65.0 ± 7.1"]),
        ("Better (b) - Base, seed 3", ["+0.0", "+10.0"]),
        ("Better (b) - Base, seed 5", ["+1.0", "+5.0"]),
        ("Better (b) - Base, mean", ["+0.5 (-5.9 to +6.9)", "+7.5 (-24.3 to +39.3)"]),
        ("Base", ["90.5", "-"]),
        ("Better (b)", ["91.25", "80"]),
        ("Better (b) - Base", ["+0.8", "-"]),
        ("Better (b) (2)", ["65.0 ± 7.1"]),
        ("Base, epoch 1 (2)", ["65.0 ± 7.1"]),
        ("Base", ["1.00 ± 0.00", "1.00 ± 0.00", "0.00 ± 0.00"]),
    ]:
        assert line in found
    assert "Base, seed 3: -0.050 to +0.200, mean +0.075; 50.0% of the epochs beyond 0.1" in text
    assert "- Commit: abcdefg\n" in text and "/elsewhere" not in text
    for picture in ("mine.png", "mine_training.png", "mine_tuned.png"):
        assert f"({picture})" in text and (study.results / picture).exists()
    # Of the first seed what a report needs is left, of others nothing; and nothing is done again.
    kept = {path.relative_to(tmp_path / "runs").as_posix() for path in tmp_path.glob("runs/*/*")}
    assert kept == {
        f"mine_{row}_3/{file}"
        for row in ("base", "better_b") for file in ("backbone.keras", "evaluation", "history.csv")
    }  # fmt: skip
    assert not list(tmp_path.glob("runs/*.json"))
    study.asked.clear()
    evidence.main()
    assert study.asked == []
    study.file.write_text(STUDY.replace("--recipe=ssql", "--recipe=pact"))
    with pytest.raises(SystemExit, match="2"):
        evidence.main()
    assert study.asked == []


def test_one_seed_is_done_alone_and_others_are_refused(study, capsys, monkeypatch):
    monkeypatch.setattr(page, "draw_pictures", lambda *a: [])
    monkeypatch.setattr(sys, "argv", [*sys.argv, "--seed=5"])
    evidence.main()
    assert [(one["row"], one["seed"]) for one in records(study)] == [("Base", 5), ("Better (b)", 5)]
    monkeypatch.setattr(sys, "argv", [*sys.argv, "--seed=4"])
    with pytest.raises(SystemExit, match="2"):
        evidence.main()
    assert "Unknown --seed '4'; allowed: 3, 5." in capsys.readouterr().err


def test_a_study_goes_on_where_it_was_stopped(study, capsys, monkeypatch):
    monkeypatch.setattr(page, "draw_pictures", lambda *a: [])

    def stop(name, given):
        if name == "evaluate" and given["protocol"] == "qat" and "better" in given["run_dir"]:
            raise SystemExit(143)

    study.before = stop
    with pytest.raises(SystemExit, match="143"):
        evidence.main()
    assert [one["row"] for one in records(study)] == ["Base"]
    study.asked.clear()
    study.file.write_text(STUDY.replace("--recipe=ssql", "--recipe=pact"))
    with pytest.raises(SystemExit, match="2"):
        evidence.main()
    assert "Row 'Better (b)' has other flags than in" in capsys.readouterr().err
    # What has not been scored may be scored otherwise, what has been may not.
    study.file.write_text(STUDY.replace('"linear"\nepochs', '"tuned"\nepochs'))
    with pytest.raises(SystemExit, match="2"):
        evidence.main()
    assert study.asked == []
    # Nor may that which accuracy over training was scored by, though its end is not scored yet.
    begun = study.results.parent / "runs" / "mine_better_b_3.json"
    found = json.loads(begun.read_text())
    begun.write_text(json.dumps({**found, "scores": {}}))
    study.file.write_text(STUDY.replace("--protocol=linear", "--protocol=linear --epochs=9"))
    (study.results / "mine.json").rename(study.results / "aside")
    study.before = lambda name, given: pytest.fail() if "better" in given["run_dir"] else None
    with pytest.raises(SystemExit, match="2"):
        evidence.main()
    told = "linear: --epochs=9 in place of none; give the same flags"
    assert told in capsys.readouterr().err
    begun.write_text(json.dumps(found))
    (study.results / "aside").rename(study.results / "mine.json")
    study.asked.clear()
    study.file.write_text(STUDY)
    study.before = lambda name, given: None
    evidence.main()
    assert study.asked[0] == ("evaluate", "mine_better_b_3", "qat")
    assert [(one["row"], one["seed"]) for one in records(study)] == [
        ("Base", 3), ("Better (b)", 3), ("Base", 5), ("Better (b)", 5),
    ]  # fmt: skip


def test_a_second_process_takes_what_the_first_is_not_at(study, monkeypatch):
    monkeypatch.setattr(page, "draw_pictures", lambda *a: [])
    inner = []

    def second(name, given):
        if not inner:
            inner.append(len(study.asked))
            evidence.main()
            inner.append(len(study.asked))

    study.before = second
    evidence.main()
    # The first was at the first run; the second did all others and left it.
    first = study.asked[: inner[0]] + study.asked[inner[1] :]
    assert {run for _, run, _ in first} == {"mine_base_3"}
    assert [(one["row"], one["seed"]) for one in records(study)] == [
        (row, seed) for seed in (3, 5) for row in ("Base", "Better (b)")
    ]


def test_a_pair_that_was_recorded_meanwhile_is_not_recorded_twice(study):
    evidence.main()
    made = read_study(study.file)
    with pytest.raises(UserError, match="'Base', seed 3, was recorded meanwhile"):
        kept_records.add(study.results / "mine", made, records(study)[0], {})
    assert len(records(study)) == 4


def test_figures_that_were_asked_for_and_are_not_there_are_told(study, tmp_path):
    run = tmp_path / "runs" / "mine_base_3"
    words = [f"--run_dir={run}", "--seed=3", "--protocol=linear"]
    with pytest.raises(commands.Failed, match="No figures at 5w5a in the record of mine_base_3"):
        study.before = lambda name, given: given.update(bits="fp")
        commands.evaluated(run, *words, "--bits=fp,5w5a")


def test_commits_tell_of_changes_that_are_not_in_them(tmp_path):
    git = ["git", "-c", "user.name=a", "-c", "user.email=b"]
    (tmp_path / "tfcq").mkdir()
    (tmp_path / "tfcq" / "code.py").write_text("1\n")
    for words in (["init", "-q"], ["add", "."], ["commit", "-qm", "first"]):
        subprocess.run([*git, *words], cwd=tmp_path, check=True)
    clean = provenance.commit_here(tmp_path)
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "found.json").write_text("{}")
    assert provenance.commit_here(tmp_path) == clean and provenance.short(clean) == clean[:7]
    (tmp_path / "tfcq" / "code.py").write_text("2\n")
    changed = provenance.commit_here(tmp_path)
    assert changed == f"{clean}+" and provenance.short(changed) == f"{clean[:7]}+"


def records(study):
    return json.loads((study.results / "mine.json").read_text())["records"]


def test_divergence_is_a_record_and_refusal_ends_a_row_alone(study, capsys, monkeypatch):
    monkeypatch.setattr(page, "draw_pictures", lambda *a: [])

    def end(name, given):
        if name == "train" and given["recipe"] == "ssql":
            raise commands.Stopped("The loss became nan.")
        if given.get("protocol") == "qat":
            raise commands.Failed("Unknown flag.")

    study.before = end
    with pytest.raises(SystemExit, match="2"):
        evidence.main()
    assert "Base, seed 3: Unknown flag." in capsys.readouterr().err
    assert [(one["row"], one["seed"], one["stopped"]) for one in records(study)] == [
        ("Better (b)", seed, {"training": "The loss became nan."}) for seed in (3, 5)
    ]
    text = (study.results / "mine.md").read_text()
    assert "## Stopped\n\n- Better (b), seed 3, training: The loss became nan.\n" in text
    assert "## Not done\n\n- Base, seed 3: Unknown flag.\n" in text
    study.asked.clear()
    study.before = lambda name, given: None
    study.file.write_text(STUDY.replace("--protocol=qat", "--protocol=qat --epochs=3"))
    with pytest.raises(SystemExit, match="2"):
        evidence.main()  # The records of the other row have the flags of before.
    study.file.write_text(STUDY)
    evidence.main()
    assert {run for _, run, _ in study.asked} == {"mine_base_3", "mine_base_5"}
    assert study.asked[0] == ("evaluate", "mine_base_3", "qat")


def test_a_checkpoint_that_is_gone_is_told_and_the_rest_is_scored(study, monkeypatch):
    monkeypatch.setattr(page, "draw_pictures", lambda *a: [])

    def lose(name, given):
        folder = pathlib.Path(given["run_dir"]) / "checkpoints"
        (folder / "ckpt-2.index").unlink(missing_ok=True)

    study.before = lose
    evidence.main()
    for one in records(study):
        assert one["stopped"] == {"epoch 2": "not scored, its checkpoint is gone"}
        assert one["followed"].keys() == {"1"} and one["scores"].keys() == {"linear", "tuned"}
    # Means over other seeds than those of the next line are not shown.
    assert "Base, epoch 1" not in (study.results / "mine.md").read_text()


@pytest.mark.parametrize(
    ("ends", "raised", "told"),
    [
        ("print('stopped: It was NaN.', file=sys.stderr); sys.exit(1)", commands.Stopped, "It was"),
        ("print('error: No.', file=sys.stderr); sys.exit(2)", commands.Failed, "^No.$"),
        ("raise ValueError('broken')", commands.Failed, "ValueError: broken"),
        ("sys.exit(143)", SystemExit, "goes on"),
        ("os.kill(os.getpid(), 9)", SystemExit, "goes on"),
    ],
)
def test_how_a_command_ended_is_told_apart(ends, raised, told, tmp_path, monkeypatch):
    (tmp_path / "tfcq").mkdir()
    (tmp_path / "tfcq" / "__init__.py").touch()
    (tmp_path / "tfcq" / "work.py").write_text(f"import os, sys\n{ends}\n")
    monkeypatch.setattr(commands, "ROOT", tmp_path)
    with pytest.raises(raised, match=told):
        commands.command("work")


def test_mistakes_in_study_files_are_named(tmp_path):
    file = tmp_path / "mine.toml"
    for old, new, told in [
        ("title =", "titel =", "Unknown key in .* 'titel'.*Did you mean 'title'"),
        ('baseline = "Base"', 'baseline = "Bas"', "baseline of row 'Better .b.' 'Bas'.*'Base'"),
        ("paper.linear", "paper.linea", "protocol in row 'Base' 'linea'.*'linear'"),
        ('protocol = "linear"', 'protocol = "knn"', "followed protocol 'knn'; allowed: linear"),
        ("[3, 5]", "[3, 3]", "3 stands twice"),
        ('"Better (b)"', '"base"', "'base' stands twice"),
        ("[3, 5]", "[]", "'seeds' is missing"),
        ("[3, 5]", "3", "'seeds' is 3; allowed: a list such as"),
        ("[3, 5]", f"{[*range(11)]}", "11 seeds; allowed: up to 10"),
        ("2w4a = 80.0", "2w4 = 80.0", "paper's bit-width in row 'Better .b.' '2w4'.*'2w4a'"),
        ("2w4a = 80.0", "4w4a = 80.0", "'4w4a'; allowed: 2w4a, fp"),
        ("--width=4", "--save_every=3epochs", "epoch 1 is followed.*allowed: multiples of 3"),
        ('bits = "4w4a"', 'bits = "4w4"', "bit-width '4w4'"),
        ("[3, 5]", "[3, 5", "cannot be read as a study"),
    ]:
        file.write_text(STUDY.replace(old, new))
        with pytest.raises(UserError, match=told):
            read_study(file)
    dotted = tmp_path / "mine.v2.toml"
    dotted.write_text(STUDY)
    with pytest.raises(UserError, match="study's name: letters, digits and underscores"):
        read_study(dotted)


def test_bit_widths_of_a_study_are_called_as_in_records(tmp_path):
    file = tmp_path / "mine.toml"
    file.write_text(STUDY.replace('bits = "4w4a"', 'bits = "fp, 2-3w4a"'))
    study = read_study(file)
    assert study.scoring(study.rows[0], "tuned")[-1] == "--bits=fp,2w4a,3w4a"


def test_studies_that_differ_in_seeds_and_saving_alone_are_taken_together(tmp_path):
    def study(name, *changes):
        text = STUDY
        for old, new in changes:
            assert old in text
            text = text.replace(old, new)
        file = tmp_path / f"{name}.toml"
        file.write_text(text)
        return read_study(file)

    first, seeds = study("one"), ("[3, 5]", "[4]")
    other = study("other", seeds, ("--recipe=float", "--recipe=float --keep=4"))
    both = pooled.pooled([first, other], "linear")
    assert both.seeds == (3, 4, 5)
    records = [
        {"row": row, "seed": seed, "scores": {"linear": {"fp": fp}}}
        for row, of_seeds in (("Base", (0.5, 0.5, 0.5)), ("Better (b)", (0.6, 0.7, 0.8)))
        for seed, fp in zip(both.seeds, of_seeds, strict=True)
    ]
    found = dict(cells(pooled.page(both, ["one", "other"], "linear", records)))
    # ± 4.3027 * 10 / sqrt(3)
    assert found["Better (b) - Base, mean"][0] == "+20.0 (-4.8 to +44.8)"
    for changes, told in (
        ([], "Seed 3 stands in two"),
        ([seeds, ("--recipe=float", "--recipe=pact")], "'Base'.*: --recipe=float --recipe=pact"),
        ([seeds, ('"Base"', '"Bas"')], "Row 'Base' is not the same in one and third"),
        ([seeds, ("--protocol=linear", "--protocol=linear --epochs=3")], "third: --epochs=3"),
    ):
        with pytest.raises(UserError, match=told):
            pooled.pooled([first, study("third", *changes)], "linear")
    with pytest.raises(UserError, match="'knn'; allowed: linear"):
        pooled.pooled([first, other], "knn")
    with pytest.raises(UserError, match="one alone; allowed: two"):
        pooled.pooled([first], "linear")


def test_the_page_of_studies_taken_together_is_named_after_the_first_and_the_protocol(
    tmp_path, monkeypatch, capsys
):
    (tmp_path / "tools" / "studies").mkdir(parents=True)
    for name, seeds in (("one", [3]), ("two", [5])):
        file = tmp_path / "tools" / "studies" / f"{name}.toml"
        file.write_text(STUDY.replace("[3, 5]", str(seeds)))
        made = read_study(file)
        scored = {"linear": {"fp": 0.5}, "tuned": {"4w4a": 0.25}}
        for row in made.rows:
            record = {"row": row.name, "seed": seeds[0], "settings": made.settings(row)}
            record |= {"scores": scored, "stopped": {}, "curves": {}, "followed": {}}
            record |= {"seconds": 1.0, "commits": ["abc"], "machine": "m"}
            (tmp_path / "results").mkdir(exist_ok=True)
            kept_records.add(tmp_path / "results" / name, made, record, {})
    monkeypatch.setattr(pooled, "ROOT", tmp_path)
    for protocol, file in (("linear", "one_pooled.md"), ("tuned", "one_pooled_tuned.md")):
        monkeypatch.setattr(sys, "argv", ["pooled", "one", "two", f"--protocol={protocol}"])
        pooled.main()
        assert "4 of 4 runs have ended" in (tmp_path / "results" / file).read_text()
    monkeypatch.setattr(sys, "argv", ["pooled", "one", "tow"])
    with pytest.raises(SystemExit, match="2"):
        pooled.main()
    assert "Unknown study 'tow'; allowed: one, two. Did you mean" in capsys.readouterr().err


def test_flag_files_count_by_what_stands_in_them(tmp_path):
    file = tmp_path / "mine.toml"
    file.write_text(STUDY.replace("--recipe=float", "--flagfile=flags/simsiam.cfg"))
    study = read_study(file)
    written = study.training(study.rows[0])
    assert "--dataset=digits" in written and not any("flagfile" in flag for flag in written)
    assert commands.data("/elsewhere", written) == []


@pytest.mark.parametrize("file", STUDIES, ids=[file.stem for file in STUDIES])
def test_studies_ask_for_what_commands_take(file):
    study = read_study(file)
    assert 2 <= len(study.seeds) <= len(figures.T975) + 1
    for row in study.rows:
        own = study.training(row)
        scored = [study.scoring(row, name) for name in study.protocols]
        if study.followed:
            scored += [study.following(epoch) for epoch in study.followed.epochs]
        common = ["--run_dir=/nowhere/run", "--seed=1"]
        taken = train.flag_set().parse([*own, *common, *commands.data("/elsewhere", own)])
        train.settings_of(taken)
        for flags in scored:
            further = commands.data("/elsewhere", [*own, *flags])
            evaluate.config_of(evaluate.flag_set().parse([*flags, *common, *further]))
