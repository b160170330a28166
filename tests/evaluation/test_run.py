"""What decides figures makes another record, and what is measured is written and told at once."""

import dataclasses

import keras
import pytest

from tests.evaluation.evaluations import FLAGS, config_of, flags_of, needed_beside
from tfcq import evaluate
from tfcq.backbones.resnet import resnet
from tfcq.errors import TrainingStopped
from tfcq.evaluation import evaluation as evaluation_module
from tfcq.evaluation import records, run
from tfcq.evaluation.accuracy import Accuracy
from tfcq.evaluation.data import labelled_images
from tfcq.nn.quantizable import quantizable
from tfcq.reporting import plots
from tfcq.settings.protocols import PROTOCOLS
from tfcq.settings.run_folder import RunFolder
from tfcq.settings.training import Config
from tfcq.settings.training_groups import DataSettings

USES = [(protocol, name) for name, (_, used) in FLAGS.items() for protocol in sorted(used)]


@pytest.fixture(scope="module")
def opened(tmp_path_factory):
    """A run on digits with a small network; subject, split and data, opened once."""
    keras.utils.set_random_seed(0)
    folder = RunFolder(tmp_path_factory.mktemp("run") / "digits")
    folder.begin(Config(data=DataSettings(train_images=400)))
    model = resnet(18, "cifar", 4, (8, 8, 1), blocks=(1,))
    quantizable(model, "paper").save(folder.backbone)
    subject = evaluation_module.open_subject(config_of(run_dir=folder.path, policy="paper"))
    return subject, *labelled_images(subject.data, subject.model.input_shape)


@pytest.fixture
def open_as(opened, monkeypatch):
    """Returns a function that makes a subject, with the data of `opened`, that of any settings."""

    def patch(subject):
        monkeypatch.setattr(evaluation_module, "open_subject", lambda config: subject)
        monkeypatch.setattr(evaluation_module, "labelled_images", lambda *given, fitted: opened[1:])
        return subject

    return patch


@pytest.fixture
def evaluated(opened, open_as, monkeypatch):
    """Returns a function from flags to the records of an evaluation that measures nothing.

    The subject is that of `opened`, so that flags of subject and data have no effect.
    """
    added = []
    open_as(opened[0])
    monkeypatch.setattr(run, "add_record", lambda file, record: added.append((file, record)))

    def measure(evaluation):
        for protocol in evaluation.config.protocols:
            yield protocol.name, Accuracy("fp", 0.5, 0.7, 0.4)

    monkeypatch.setattr(run, "measure", measure)

    def records_of(**flags):
        added.clear()
        run.evaluate(config_of(**flags))
        return [(file.name, record) for file, record in added]

    return records_of


def test_every_flag_that_decides_figures_makes_another_record(evaluated):
    usual = {name: evaluated(**flags_of(name)) for name in PROTOCOLS if name != "classifier"}
    for protocol, name in USES:
        if protocol == "classifier":
            continue
        before, needed = usual[protocol], needed_beside(protocol, name)
        if needed:
            needed = needed | ({"milestones": "3epochs"} if name == "milestones" else {})
            before = evaluated(**flags_of(protocol), **needed)
        after = evaluated(**flags_of(protocol, name))
        alone = name == "preset" and len(PROTOCOLS[protocol].presets) == 1
        assert (after == before) == (alone or name == "keep_classifiers"), (protocol, name)
    found = [usual["linear"]]
    # The usual method and the usual number of images too: asked for, they are found anew.
    for flags in (
        {"calibration": "mse"}, {"calibration_images": 50}, {"calibration_seed": 0},
        {"calibration_pass": "quantized"}, {"calibration": "minmax"}, {"calibration_images": 400},
        {"calibration": "minmax", "calibration_images": 50},
    ):  # fmt: skip
        found.append(evaluated(**flags_of("linear"), **flags))
        assert found[-1] not in found[:-1], flags


def test_record_stands_in_the_file_of_its_protocol_beside_data_and_augmentation(evaluated):
    files = {
        "linear": flags_of("linear"),
        "linear_from_scratch": flags_of("linear", "from_scratch"),
        "finetune_from_scratch": flags_of("finetune", "from_scratch"),
        "finetune_10": {"protocol": "finetune", "label_share": 0.1},
        "semi_0.5_from_scratch": {
            "protocol": "semi", "label_share": 0.005, "from_scratch": True},
        "qat_pact": flags_of("qat", "quantizer"),
    }  # fmt: skip
    for stem, flags in files.items():
        ((name, record),) = evaluated(**flags)
        assert name == f"{stem}.json"
        assert record["results"] == [
            {"bits": "fp", "top1": 0.5, "top5": 0.7, "mean_per_class": 0.4}
        ]
        assert ("augmentation" in record["settings"]) == (not stem.startswith("linear"))
        assert {"data_fingerprint", "weights", "versions", "seed"} <= set(record)
        assert (record["train_images"], record["test_images"]) == (400, 360)
    ((_, record),) = evaluated(**flags_of("linear", "features"))
    assert "augmentation" in record["settings"]


@pytest.mark.parametrize("protocol", ["linear", "knn", "finetune", "semi", "qat"])
def test_deterministic_evaluation_is_made_so_and_its_record_says_so(
    evaluated, monkeypatch, protocol
):
    made = []
    monkeypatch.setattr(run, "make_deterministic", lambda: made.append(protocol))
    ((_, usual),) = evaluated(**flags_of(protocol))
    assert not made and "deterministic" not in usual["settings"]
    ((_, record),) = evaluated(**flags_of(protocol), deterministic=True)
    assert made == [protocol]
    assert record == {**usual, "settings": {**usual["settings"], "deterministic": True}}


def test_figures_are_printed_and_drawn_in_the_order_measured(
    opened, open_as, monkeypatch, capsys, tmp_path
):
    open_as(dataclasses.replace(opened[0], results=tmp_path, title="mine"))
    figures = [Accuracy("fp", 0.8149, 0.955, 0.801), Accuracy("4w8a", 0.75, 0.9, 0.5)]
    drawn = []
    monkeypatch.setattr(run, "measure", lambda given: (("knn", one) for one in figures))
    monkeypatch.setattr(plots, "plot_accuracy", lambda *a, **named: drawn.append((*a, named)))
    for measured in run.evaluate(config_of(protocol="knn", bits="fp,4w8a")):
        evaluate.show(measured)
    assert capsys.readouterr().out == (
        "Scoring at fp, 4w8a ...\n"
        "       knn     fp  top-1 81.5\n"
        "       knn   4w8a  top-1 75.0\n"
        "\ndigits, knn, 360 test images of 10 classes, the largest 10.3%\n"
        "| bits             |   fp | 4w8a |\n"
        "|------------------|-----:|-----:|\n"
        "| top-1 %          | 81.5 | 75.0 |\n"
        "| top-5 %          | 95.5 | 90.0 |\n"
        "| mean per class % | 80.1 | 50.0 |\n"
        f"Results: {tmp_path / 'knn.json'}\nPicture: {tmp_path / 'knn.png'}\n"
    )
    assert drawn == [
        (tmp_path / "knn.png", ["fp", "4w8a"], {"knn": [0.8149, 0.75]},
         {"title": "mine, digits, knn", "heading": "bits"})
    ]  # fmt: skip


def test_what_was_measured_stays_when_a_later_bit_width_fails(
    opened, open_as, monkeypatch, tmp_path
):
    open_as(dataclasses.replace(opened[0], results=tmp_path))

    def measure(evaluation):
        yield "knn", Accuracy("fp", 0.9, 1.0, 0.9)
        yield "knn", Accuracy("8w8a", 0.8, 1.0, 0.8)
        raise TrainingStopped("Training diverged.")

    monkeypatch.setattr(run, "measure", measure)
    with pytest.raises(TrainingStopped):
        run.evaluate(config_of(protocol="knn"))
    (found,) = records.read_records(tmp_path / "knn.json")
    assert [(entry["bits"], entry["top1"]) for entry in found["results"]] == [
        ("fp", 0.9), ("8w8a", 0.8),
    ]  # fmt: skip
