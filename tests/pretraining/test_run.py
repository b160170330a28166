"""What a run asks for: images, views, epochs, and what its backbone is saved with."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers
from PIL import Image

import tfcq
from tfcq.backbones.build import backbone_from
from tfcq.data.augmentation import augmentation_from
from tfcq.data.plain_images import labelled_arrays
from tfcq.data.sources import open_source
from tfcq.errors import UserError
from tfcq.nn.activation_ranges import mark_trained
from tfcq.nn.calibration import calibrate
from tfcq.nn.quantizable import QuantizableModel, quantizable, quantizers_of
from tfcq.pretraining import building, run
from tfcq.pretraining.building import pretrainer_from
from tfcq.pretraining.pretrainer import Pretrainer
from tfcq.pretraining.preview import draw_preview
from tfcq.quantization.kinds import WEIGHT_QUANTIZERS
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


def test_every_setting_of_the_method_reaches_the_pretrainer():
    heads = {"projection_width": 4, "projection_hidden": 6}
    byol = {
        "framework": "byol", "predictor_width": 2, "regression_loss": "negative_cosine",
        "target_momentum": 0.5, "target_momentum_schedule": "constant",
        "target_update": "before_targets", "recipe": "cq_c", "precision_set": "3-5",
        "bit_schedule": "cyclic", "loss_reduction": "sum", "batch_norm": "shuffled", "xla": True,
    }  # fmt: skip
    small = {"backbone": "cifar_resnet8", "width": 2, "seed": 6, "epochs": 3, **heads}
    model = pretrainer_from(config_from_flat({**small, **byol}), SHAPE, steps=4)
    schedule, framework = model.bit_schedule, model.framework
    assert model.recipe.name == "cq_c"
    assert (schedule.kind, schedule.seed, schedule.same_bits) == ("cyclic", 6, True)
    assert schedule.weight_choices == schedule.activation_choices == (3, 4, 5)
    assert (model.loss_reduction, model.shuffle_keys, model.jit_compile) == ("sum", True, True)
    assert (int(model.steps_per_epoch.value), int(model.total_steps.value)) == (4, 12)
    for name in ("target_momentum", "target_momentum_schedule", "target_update", "regression_loss"):
        assert getattr(framework, name) == byol[name]
    assert framework.projector.output_shape == (None, 4)
    assert framework.projector.get_layer("projector_dense1").units == 6
    assert framework.predictor.get_layer("predictor_dense1").units == 2
    moving = model.momentum_network
    assert [id(network) for network in model.networks] == [
        id(network)
        for network in (model.backbone, framework.projector, framework.predictor,
                        moving.backbone, moving.projector)
    ]  # fmt: skip

    simclr = {
        "framework": "simclr", "temperature": 0.3, "weight_bits": "3", "activation_bits": "5-6",
        "error_correlation": True, "batch_norm": "synchronized", "policy": "uniform",
        "weight_quantizer": "lsq", "product_dtype": "bfloat16", "accumulate": 2,
    }  # fmt: skip
    model = pretrainer_from(config_from_flat({**small, **simclr}), SHAPE, steps=4)
    assert model.framework.temperature == 0.3
    assert model.bit_schedule.weight_choices == (3,)
    assert model.bit_schedule.activation_choices == (5, 6)
    assert model.figures.correlated and not model.shuffle_keys
    assert len(model.networks) == 2 and model.accumulate == 2
    kernels = [layer for one in model.networks for layer in one.layers if hasattr(layer, "kernel")]
    assert {layer.product_dtype for layer in kernels} == {"bfloat16"}
    weights = quantizers_of(model.backbone, "weight_quantizer").values()
    assert {type(one) for one in weights} == {WEIGHT_QUANTIZERS["lsq"]}
    for network in model.networks:
        norms = [x for x in network.layers if isinstance(x, layers.BatchNormalization)]
        assert all(norm.synchronized for norm in norms)


def test_settings_reach_pre_training(monkeypatch):
    values = {
        "framework": "byol", "recipe": "cq_c", "seed": 5, "loss_reduction": "sum",
        "bit_schedule": "list", "precision_set": "4,8", "error_correlation": True,
        "projection_width": 8, "predictor_width": 4, "target_momentum": 0.8,
        "batch_norm": "shuffled", "layer_bits": "stem:8w8a", "accumulate": 2,
    }  # fmt: skip
    network = {"backbone": "cifar_resnet8", "width": 2}
    config, given = config_from_flat({**values, **network}), {}

    class Built(Exception):
        pass

    def pretrainer(backbone, **settings):
        given.update(settings)
        raise Built

    monkeypatch.setattr(building, "Pretrainer", pretrainer)
    with pytest.raises(Built):
        pretrainer_from(config, SHAPE, steps=2)
    expected = {name: values[name] for name in set(values) - {"batch_norm", "layer_bits"}}
    assert expected | {
        "weight_bits": None, "activation_bits": None, "policy": policy(config),
        "shuffle_keys": True,
    } == given  # fmt: skip


def test_backbone_of_an_earlier_run_goes_on_with_its_own_quantizers(tmp_path):
    keras.utils.set_random_seed(0)
    float_model = keras.Sequential(
        [keras.Input(SHAPE), layers.Conv2D(3, 3), layers.GlobalAveragePooling2D()]
    )
    path = tmp_path / "backbone.keras"
    quantizable(float_model, "uniform").save(path)
    heads = {"projection_width": 4, "predictor_width": 2}
    values = {"backbone": f"file:{path}", **heads}
    model = pretrainer_from(config_from_flat(values), SHAPE, steps=2)
    assert isinstance(model.backbone, QuantizableModel)
    with pytest.raises(UserError, match="--policy has no effect here: file:.* quantizable already"):
        pretrainer_from(config_from_flat({**values, "policy": "paper"}), SHAPE, steps=2)


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


def test_losses_are_scaled_where_products_are_float16():
    values = {"backbone": "cifar_resnet8", "width": 2, "projection_width": 4, "predictor_width": 2}

    def optimizer(dtype):
        settings = config_from_flat({**values, "product_dtype": dtype})
        return pretrainer_from(settings, SHAPE, steps=2).optimizer

    assert isinstance(optimizer("float16"), keras.optimizers.LossScaleOptimizer)
    assert not isinstance(optimizer("bfloat16"), keras.optimizers.LossScaleOptimizer)
