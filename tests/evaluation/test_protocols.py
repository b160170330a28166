"""Every protocol on a tiny network with hand-set weights, and one that a user adds."""

import json

import keras
import numpy as np
import pytest

from tests.evaluation.evaluations import (
    EXPECTED,
    NO_AUGMENTATION,
    TRAINING,
    command_of,
    config_of,
    figures,
    on_features,
    tiny_evaluation,
)
from tfcq import evaluate
from tfcq.data.sources import open_source
from tfcq.errors import UserError
from tfcq.evaluation.protocols import Runner, classifier, linear, network, qat, runner_of
from tfcq.nn.cloning import copy_of
from tfcq.nn.quantizable import quantizable
from tfcq.settings import protocols
from tfcq.settings.protocols import Protocol
from tfcq.settings.run_folder import RunFolder
from tfcq.settings.training import Config


def weights_of(model):
    return [w.numpy().copy() for w in model.weights]


@pytest.mark.parametrize(
    "run",
    [
        lambda one: on_features(one, linear.on_cached_features(one, TRAINING, True)),
        lambda one: linear.on_augmented_images(one, TRAINING, standardized=True),
        lambda one: network.finetuned(one, TRAINING, NO_AUGMENTATION),
        lambda one: network.trained_at_each_bit_width(
            one, TRAINING, NO_AUGMENTATION, label_share=1.0
        ),
        lambda one: qat.trained_further(
            one, TRAINING, NO_AUGMENTATION, lambda: qat.linear_classifier(one), copy_of
        ),
        lambda one: classifier.classify(one, qat.linear_classifier(one)),
    ],
    ids=["cached", "augmented", "finetune", "semi", "qat", "classifier"],
)
def test_hand_set_network_gives_the_hand_computed_accuracy_and_stays_as_it_is(run):
    evaluation = tiny_evaluation()
    before = weights_of(evaluation.backbone)
    assert figures(run(evaluation)) == EXPECTED
    for old, new in zip(before, weights_of(evaluation.backbone), strict=True):
        np.testing.assert_array_equal(old, new)


def test_every_protocol_has_its_runner():
    assert all(isinstance(runner_of(one), Runner) for one in protocols.PROTOCOLS.values())


COMMONEST = '''
"""Calls every test image what most training images are."""

import numpy as np

from tfcq.errors import UserError
from tfcq.evaluation.accuracy import accuracy_of
from tfcq.evaluation.protocols import Runner


def _check(evaluation):
    if evaluation.data.classes > 10:
        raise UserError("commonest knows digits alone.")


def _run(evaluation):
    data = evaluation.data
    scores = np.bincount(data.train_labels, minlength=data.classes)
    for bits in evaluation.bit_widths:
        yield accuracy_of(np.tile(scores, (len(data.test_labels), 1)), data.test_labels, bits)


commonest = Runner(_run, _check)
'''


def test_protocol_of_ones_own_needs_its_settings_and_its_runner_alone(
    tmp_path, monkeypatch, capsys
):
    (tmp_path / "commonest.py").write_text(COMMONEST)
    monkeypatch.syspath_prepend(tmp_path)
    own = Protocol("commonest", "commonest:commonest", uses=("from_scratch",),
                   stem=("from_scratch",))  # fmt: skip
    monkeypatch.setitem(protocols.PROTOCOLS, "commonest", own)
    run = RunFolder(tmp_path / "run")
    run.begin(Config())
    inputs = keras.Input((8, 8, 1))
    backbone = keras.Model(inputs, keras.layers.Dense(7)(keras.layers.Flatten()(inputs)))
    quantizable(backbone, "uniform").save(run.backbone)
    evaluate.main(
        command_of(run_dir=run.path, protocol="commonest,knn", bits="fp,4w4a", from_scratch=True)
    )
    files = {"commonest_from_scratch", "knn_from_scratch"}
    assert {path.stem for path in run.evaluation.iterdir()} == files
    record = json.loads((run.evaluation / "commonest_from_scratch.json").read_text())
    source = open_source("digits")
    train, test = (
        np.array([one["label"] for one in source.split(name).records.as_numpy_iterator()])
        for name in ("train", "test")
    )
    expected = np.mean(test == np.bincount(train).argmax())
    assert [(entry["bits"], entry["top1"]) for entry in record["results"]] == [
        ("fp", expected), ("4w4a", expected),
    ]  # fmt: skip
    assert (record["protocol"], record["settings"]) == ("commonest", {"from_scratch": True})
    assert "digits, commonest, 360 test images" in capsys.readouterr().out
    with pytest.raises(UserError, match="--neighbours has no effect here: commonest does not"):
        config_of(protocol="commonest", neighbours=3)
    with pytest.raises(UserError, match="Did you mean 'commonest'"):
        config_of(protocol="comonest")
