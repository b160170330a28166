"""Steps in one call of TensorFlow are those of one call each."""

import csv

import numpy as np
import pytest

import tfcq
from tfcq.errors import UserError
from tfcq.pretraining import run
from tfcq.settings.run_folder import RunFolder
from tfcq.settings.run_position import kept_positions
from tfcq.settings.saving import check_steps_per_execution, parse_save_every
from tfcq.settings.training import config_from_flat

# Two epochs of six steps and a last one of one.
SETTINGS = {
    "dataset": "digits", "train_images": 48, "backbone": "cifar_resnet8", "width": 2,
    "projection_width": 8, "predictor_width": 8, "batch_size": 8, "duration": "13steps",
    "recipe": "float", "save_every": "2steps", "keep": 9, "deterministic": True,
}  # fmt: skip


def trained(folder, together):
    settings = {**SETTINGS, "steps_per_execution": together}
    folder = RunFolder(folder)
    run.train(config_from_flat(settings), folder)
    with open(folder.history) as file:
        rows = [{**row, "images_per_second": ""} for row in csv.DictReader(file)]
    weights = tfcq.load(folder.backbone).get_weights()
    return weights, rows, kept_positions(folder.checkpoints)


def test_weights_figures_and_checkpoints_are_those_of_single_steps(tmp_path):
    weights, *others = trained(tmp_path / "single", 1)
    found, *told = trained(tmp_path / "together", 2)
    assert told == others
    for one, other in zip(weights, found, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize(
    ("together", "save_every", "told"),
    [(4, "1epochs", "Did you mean 3?"), (3, "8steps", "Did you mean --save_every=9steps?")],
)
def test_calls_that_go_beyond_an_epoch_or_a_save_are_refused(together, save_every, told):
    with pytest.raises(UserError, match=told.replace("?", r"\?")):
        check_steps_per_execution(together, 15, parse_save_every(save_every))
    check_steps_per_execution(5, 15, parse_save_every("10steps"))
