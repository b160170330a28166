"""What a run asks for: images, views, epochs, and what its backbone is saved with."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import tfcq
from tfcq import build, train
from tfcq.data import pipeline
from tfcq.data.sources import open_source
from tfcq.nn.activation_ranges import mark_trained
from tfcq.nn.calibration import calibrate
from tfcq.nn.quantizable import quantizable
from tfcq.pretraining.pretrainer import Pretrainer
from tfcq.settings.run_folder import RunFolder
from tfcq.settings.training import config_from_flat
from tfcq.training import determinism, distribution
from tfcq.training.checkpoints import RunCheckpoints

# 100 images make three steps an epoch: three whole epochs and one of a step.
SETTINGS = {
    "train_images": 100, "batch_size": 32, "duration": "10steps", "seed": 5, "image_size": 6,
    "crop_area": "0.5-1", "framework": "simclr", "backbone": "cifar_resnet8", "width": 2,
    "projection_width": 4, "projection_hidden": 4,
}  # fmt: skip


@pytest.fixture(params=[("ssql", 0), ("cq_quant", 1)], ids=lambda param: param[0])
def run(request, tmp_path, monkeypatch):
    """A run whose steps are left out, started anew or after an epoch; with what it asked for."""
    recipe, done = request.param
    asked = {"views": [], "fit": [], "execution": []}

    def view_batches(split, *arguments, **further):
        asked["views"].append((split.size, *arguments, further))

    def fit(self, views, **arguments):
        length = arguments["initial_epoch"], arguments["epochs"], arguments["steps_per_epoch"]
        asked["fit"].append(length)
        # Last, so that a checkpoint never knows of an epoch that the history does not.
        assert isinstance(arguments["callbacks"][-1], RunCheckpoints)

    def strategy_named(name):
        asked["execution"].append(name)
        return tf.distribute.get_strategy()

    note = asked["execution"].append
    monkeypatch.setattr(distribution, "strategy_named", strategy_named)
    monkeypatch.setattr(determinism, "make_deterministic", lambda: note("deterministic"))
    monkeypatch.setattr(pipeline, "view_batches", view_batches)
    monkeypatch.setattr(Pretrainer, "fit", fit)
    monkeypatch.setattr(RunCheckpoints, "restore", lambda self: done)
    execution = {"deterministic": done > 0, "strategy": "mirrored" if done else "single"}
    config = config_from_flat({**SETTINGS, **execution, "recipe": recipe})
    folder = RunFolder(tmp_path)
    train.train(config, folder)
    return config, folder, done, asked


def test_run_trains_its_epochs_on_its_views_and_saves_its_backbone(run):
    config, folder, done, asked = run
    assert asked["fit"] == [(done, 3, 3), (3, 4, 1)]
    assert asked["execution"] == (["deterministic", "mirrored"] if done else ["single"])
    recipe, quantized = build.augmentation(config, (6, 6, 1)), config.method.recipe == "cq_quant"
    assert recipe.crop_area == (0.5, 1)
    views = (0,) if quantized else (1, 2)
    assert asked["views"] == [
        (100, recipe, 6, 32, 5, {"first_epoch": first, "views": views}) for first in (done, 3)
    ]
    saved = tfcq.load(folder.backbone)
    # The weights that the seed gives and, of a network with float passes, the ranges of the
    # training images themselves.
    keras.utils.set_random_seed(5)
    expected = quantizable(build.backbone(config, (6, 6, 1)), build.policy(config))
    mark_trained(expected, quantized)
    if not quantized:
        split = open_source("digits").split("train").first(100)
        calibrate(expected, pipeline.labelled_arrays(split, 6)[0])
    for ours, theirs in zip(saved.get_weights(), expected.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert RunFolder(folder.path).load() == config
