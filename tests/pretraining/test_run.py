"""What a run asks for: images, views, epochs, and what its backbone is saved with."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

import tfcq
from tfcq.backbones.build import backbone_from
from tfcq.data.augmentation import augmentation_from
from tfcq.data.plain_images import labelled_arrays
from tfcq.data.sources import open_source
from tfcq.errors import UserError
from tfcq.nn.activation_ranges import mark_trained
from tfcq.nn.calibration import calibrate
from tfcq.nn.quantizable import quantizable
from tfcq.pretraining import run
from tfcq.pretraining.pretrainer import Pretrainer
from tfcq.pretraining.preview import draw_preview
from tfcq.settings.defaults import OPEN
from tfcq.settings.fields import flat
from tfcq.settings.run_folder import RunFolder
from tfcq.settings.training import config_from_flat, policy
from tfcq.training.checkpoints import RunCheckpoints

SHAPE = (8, 8, 1)
# 100 images make three steps an epoch: three whole epochs and one of a step.
SETTINGS = {
    "train_images": 100, "batch_size": 32, "duration": "10steps", "seed": 5, "image_size": 6,
    "crop_area": "0.5-1", "framework": "simclr", "backbone": "cifar_resnet8", "width": 2,
    "projection_width": 4, "projection_hidden": 4,
}  # fmt: skip


@pytest.fixture(params=[("ssql", 0), ("cq_quant", 1)], ids=lambda param: param[0])
def trained(request, tmp_path, monkeypatch):
    """A run whose steps are left out, started anew or after an epoch; with what it asked for."""
    recipe, done = request.param
    folder = RunFolder(tmp_path)
    asked = {"views": [], "fit": [], "execution": []}

    def view_batches(split, *arguments, **further):
        asked["views"].append((split.size, *arguments, further))

    def fit(self, views, **arguments):
        length = arguments["initial_epoch"], arguments["epochs"], arguments["steps_per_epoch"]
        asked["fit"].append(length)
        # Last, so that a checkpoint never knows of an epoch that the history does not.
        assert isinstance(arguments["callbacks"][-1], RunCheckpoints)

    def strategy_named(name, tpu):
        assert tpu is None
        asked["execution"].append(name)
        return tf.distribute.get_strategy()

    def restore_newest(self, witnesses):
        assert set(witnesses) == {folder.history, folder.backbone}
        self.done = done * self.steps

    note = asked["execution"].append
    monkeypatch.setattr(run, "strategy_named", strategy_named)
    monkeypatch.setattr(run, "make_deterministic", lambda: note("deterministic"))
    monkeypatch.setattr(run, "view_batches", view_batches)
    monkeypatch.setattr(Pretrainer, "fit", fit)
    monkeypatch.setattr(RunCheckpoints, "restore_newest", restore_newest)
    execution = {"deterministic": done > 0, "strategy": "mirrored" if done else "single"}
    config = config_from_flat({**SETTINGS, **execution, "recipe": recipe})
    run.train(config, folder)
    return config, folder, done, asked


def test_run_trains_its_epochs_on_its_views_and_saves_its_backbone(trained):
    config, folder, done, asked = trained
    assert asked["fit"] == [(done, 3, 3), (3, 4, 1)]
    assert asked["execution"] == (["deterministic", "mirrored"] if done else ["single"])
    recipe, quantized = augmentation_from(config.views, 6, 1), config.method.recipe == "cq_quant"
    assert recipe.crop_area == (0.5, 1)
    views = (0,) if quantized else (1, 2)
    assert asked["views"] == [
        (100, recipe, 6, 32, 5, first, {"views": views, "first_step": 0}) for first in (done, 3)
    ]
    saved = tfcq.load(folder.backbone)
    # The weights that the seed gives and, of a network with float passes, the ranges of the
    # training images themselves.
    keras.utils.set_random_seed(5)
    expected = quantizable(backbone_from(config.network, (6, 6, 1)), policy(config))
    mark_trained(expected, quantized)
    if not quantized:
        split = open_source("digits").split("train").first(100)
        calibrate(expected, labelled_arrays(split, 6)[0])
    for ours, theirs in zip(saved.get_weights(), expected.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    recorded = flat(RunFolder(folder.path).load())
    assert {name: recorded[name] for name in ("image_size", "epochs", "duration")} == {
        "image_size": 6, "epochs": 4, "duration": "10steps",
    }  # fmt: skip
    assert recorded["flip"] == (None if quantized else 0.5)


def test_ranges_are_those_of_the_saved_network_whatever_steps_multiply_in(tmp_path, monkeypatch):
    monkeypatch.setattr(Pretrainer, "fit", lambda *_, **__: None)
    folder = RunFolder(tmp_path)
    run.train(config_from_flat({**SETTINGS, "product_dtype": "bfloat16"}), folder)
    saved = tfcq.load(folder.backbone)
    recorded = saved.get_weights()
    split = open_source("digits").split("train").first(100)
    calibrate(saved, labelled_arrays(split, 6)[0])
    for ours, theirs in zip(recorded, saved.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.fixture
def photographs(tmp_path):
    """A folder of four photographs of different sizes."""
    for name, size in (("a", (70, 90)), ("b", (64, 64)), ("c", (80, 66)), ("d", (100, 100))):
        place = tmp_path / "photographs" / name
        place.mkdir(parents=True)
        Image.new("RGB", size, (200, 100, 50)).save(place / "1.png")
    return f"folder:{tmp_path / 'photographs'}"


def test_choice_for_photographs_is_told_recorded_and_used(
    photographs, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(Pretrainer, "fit", lambda *_, **__: None)
    config = config_from_flat({"dataset": photographs, "recipe": "float", "backbone": "resnet18"})
    folder, names = RunFolder(tmp_path / "run"), frozenset(OPEN)
    preview = draw_preview(config, tmp_path / "preview.png", names)
    assert preview.endswith("4 images of 64x64; columns: plain, view 1, view 2")
    run.train(config, folder, names)
    told = capsys.readouterr().out.splitlines()
    assert told[0] == (
        "No accelerator, 4 training images: --image_size=64 --width=16 --batch_size=4 "
        "--epochs=100; give these flags to choose yourself."
    )
    assert "images of 64x64x3; resnet18, stem imagenet, width 16," in told[1]
    kept = folder.load()
    values = {"image_size": 64, "width": 16, "batch_size": 4, "epochs": 100, "stem": "imagenet"}
    assert {name: flat(kept)[name] for name in values} == values
    assert folder.asked(kept) == {"dataset", "recipe"}
    assert keras.models.load_model(folder.backbone).input_shape == (None, 64, 64, 3)


def test_choice_is_told_above_an_error_that_may_come_of_it(photographs, tmp_path, capsys):
    config = config_from_flat({"dataset": photographs, "warmup": "200epochs"})
    with pytest.raises(UserError, match="Warm-up of 200 steps in 100"):
        run.train(config, RunFolder(tmp_path / "run"), frozenset(OPEN))
    assert "--epochs=100; give these flags" in capsys.readouterr().out


def test_one_image_is_no_training():
    config = config_from_flat({"train_images": 1})
    with pytest.raises(UserError, match="Training on one image of digits; allowed: at least 2"):
        run.training_split(config.data)
