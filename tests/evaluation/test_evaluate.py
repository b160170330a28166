"""The command writes JSON and picture, tells a table, and names files by what was evaluated."""

import json

import keras
import pytest

from tfcq import evaluate
from tfcq.backbones.resnet import resnet
from tfcq.config import Config
from tfcq.errors import UserError
from tfcq.nn.quantizable import quantizable
from tfcq.run_folder import RunFolder


def command(**values):
    arguments = [f"--{name}={value}" for name, value in values.items()]
    return evaluate.flag_set().parse(["--verbosity=1", *arguments])


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run on digits that ended, with a small network as it was initialized."""
    keras.utils.set_random_seed(0)
    folder = RunFolder(tmp_path_factory.mktemp("run") / "digits")
    folder.begin(Config())
    model = resnet(18, "cifar", 4, (8, 8, 1), blocks=(1, 1, 1, 1))
    quantizable(model, "contrastive_quant").save(folder.backbone)
    return folder


def test_files_and_table_are_written(run, capsys):
    evaluate.main(command(run_dir=str(run.path), protocol="knn", bits="fp,4w8a"))
    assert sorted(path.name for path in run.evaluation.iterdir()) == ["knn.json", "knn.png"]
    found = json.loads((run.evaluation / "knn.json").read_text())
    assert (found["dataset"], found["protocol"], found["policy"]) == ("digits", "knn", "as trained")
    assert [entry["bits"] for entry in found["results"]] == ["fp", "4w8a"]
    assert all(0 < entry["top1"] <= entry["top5"] <= 1 for entry in found["results"])
    printed = capsys.readouterr().out
    assert "| top-1 % |" in printed and "knn.json" in printed


def test_another_policy_has_files_of_its_own(run):
    bits = {"protocol": "knn", "bits": "fp,2w4a"}
    evaluate.main(command(run_dir=str(run.path), **bits))
    evaluate.main(command(run_dir=str(run.path), policy="paper", **bits))
    own, paper = (
        json.loads((run.evaluation / name).read_text()) for name in ("knn.json", "knn_paper.json")
    )
    assert paper["policy"] == "paper"
    assert own["results"][0] == paper["results"][0]
    assert own["results"][1] != paper["results"][1]


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({}, "--run_dir is missing"),
        ({"run_dir": "x", "protocol": "liner"}, "Did you mean 'linear'"),
        ({"run_dir": "x", "policy": "int4"}, "policy 'int4'.*Did you mean 'int8'"),
        ({"run_dir": "x", "calibration_images": 0}, "--calibration_images=0 .*1 and above"),
        ({"run_dir": "x", "seed": -1}, "--seed=-1 .*allowed: 0 to"),
        ({"run_dir": "x", "protocol": "knn", "seed": 1}, "--seed has no effect"),
        ({"run_dir": "x", "bits": "1w8a"}, "1w8a"),
        ({"run_dir": "no_such_folder"}, "'no_such_folder' does not exist"),
    ],
)
def test_mistakes_are_told_before_anything_is_computed(values, text):
    with pytest.raises(UserError, match=text):
        evaluate.main(command(**values))
