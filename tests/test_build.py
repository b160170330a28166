"""From settings to objects."""

import dataclasses

import keras
import numpy as np
import pytest
from keras import layers

from tfcq import build, evaluation_data
from tfcq.data.augmentation import augmentation_for
from tfcq.errors import UserError
from tfcq.nn.quantizable import QuantizableModel, quantizable, quantizers_of
from tfcq.quantization.quantizers import WEIGHT_QUANTIZERS
from tfcq.settings.training import config_from_flat
from tfcq.training.optimizers import OPTIMIZERS

SHAPE = (8, 8, 1)


def optimizer(steps=10, **values):
    return build.optimizer(config_from_flat({"epochs": 10, **values}).optimization, steps)


def rate(optimizer, step):
    optimizer.iterations.assign(step)
    return float(optimizer.learning_rate)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_optimizer_by_name(name):
    assert type(optimizer(optimizer=name)) is OPTIMIZERS[name]


def test_exclusion_of_nothing_lets_lars_scale_and_decay_every_variable():
    model = keras.Sequential([keras.Input((2,)), layers.Dense(3), layers.BatchNormalization()])
    for exclude, left_out in ((None, 3), ("none", 0), ("bias", 1)):
        found = optimizer(optimizer="lars", exclude=exclude)
        found.build(model.trainable_variables)
        assert len(found.unscaled) == len(found.excluded) == left_out


@pytest.mark.parametrize(
    ("name", "nesterov"), [("sgd", False), ("sgd", True), ("lars", True), ("adamw", False)]
)
def test_every_setting_of_the_optimizer_reaches_it(name, nesterov):
    values = {"momentum": 0.75, "weight_decay": 0.01, "exclude": "bias,gamma"}
    found = optimizer(optimizer=name, nesterov=nesterov, **values).get_config()
    adam = name == "adamw"
    assert found["beta_1" if adam else "momentum"] == 0.75
    assert found["weight_decay" if adam else "l2"] == 0.01
    assert list(found["exclude"]) == ["bias", "gamma"]
    assert adam or found["nesterov"] is nesterov
    assert optimizer(optimizer=name).get_config()["exclude"] == ([] if adam else None)


def test_every_setting_of_the_views_reaches_them():
    values = {
        "crop_area": "0.5-0.75", "flip": 0.0, "jitter_probability": 0.25, "brightness": 0.7,
        "contrast": 0.6, "saturation": 0.3, "hue": 0.05, "grayscale": 0.4, "blur": 0.75,
    }  # fmt: skip
    found = build.augmentation(config_from_flat(values), (32, 32, 3))
    assert found == dataclasses.replace(
        augmentation_for(32, 3), **{**values, "crop_area": (0.5, 0.75)}
    )
    assert build.augmentation(config_from_flat({}), (8, 8, 1)) == augmentation_for(8, 1)


def test_every_setting_of_the_method_reaches_the_pretrainer():
    heads = {"projection_width": 4, "projection_hidden": 6}
    byol = {
        "framework": "byol", "predictor_width": 2, "regression_loss": "negative_cosine",
        "target_momentum": 0.5, "target_momentum_schedule": "constant",
        "target_update": "before_targets", "recipe": "cq_c", "precision_set": "3-5",
        "bit_schedule": "cyclic", "loss_reduction": "sum", "batch_norm": "shuffled", "xla": True,
    }  # fmt: skip
    small = {"backbone": "cifar_resnet8", "width": 2, "seed": 6, "epochs": 3, **heads}
    model = build.pretrainer(config_from_flat({**small, **byol}), SHAPE, steps=4)
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
        "weight_quantizer": "lsq",
    }  # fmt: skip
    model = build.pretrainer(config_from_flat({**small, **simclr}), SHAPE, steps=4)
    assert model.framework.temperature == 0.3
    assert model.bit_schedule.weight_choices == (3,)
    assert model.bit_schedule.activation_choices == (5, 6)
    assert model.figures.correlated and not model.shuffle_keys
    assert len(model.networks) == 2
    weights = quantizers_of(model.backbone, "weight_quantizer").values()
    assert {type(one) for one in weights} == {WEIGHT_QUANTIZERS["lsq"]}
    for network in model.networks:
        norms = [x for x in network.layers if isinstance(x, layers.BatchNormalization)]
        assert all(norm.synchronized for norm in norms)


def test_learning_rate_is_scaled_by_the_batch_only_when_asked_for():
    values = {"learning_rate": 0.5, "batch_size": 64, "learning_rate_schedule": "constant"}
    assert rate(optimizer(**values), 0) == pytest.approx(0.5)
    assert rate(optimizer(**values, scale_learning_rate=True), 0) == pytest.approx(0.125)


def test_warm_up_and_milestones_count_in_any_unit():
    found = optimizer(
        learning_rate=0.8,
        batch_size=100,
        warmup="4steps",
        learning_rate_schedule="step",
        milestones="2epochs,5000examples",
        milestone_factor=0.5,
    )
    expected = {0: 0, 2: 0.4, 4: 0.8, 19: 0.8, 20: 0.4, 49: 0.4, 50: 0.2, 99: 0.2}
    assert {step: pytest.approx(rate(found, step)) for step in expected} == expected


def test_length_of_a_run():
    assert build.total_steps(config_from_flat({"epochs": 3}).optimization, 7) == 21
    assert build.total_steps(config_from_flat({"duration": "25steps"}).optimization, 7) == 25
    examples = config_from_flat({"duration": "640examples", "batch_size": 64})
    assert build.total_steps(examples.optimization, 7) == 10
    with pytest.raises(UserError, match="is 0 steps"):
        build.total_steps(config_from_flat({"duration": "1examples"}).optimization, 7)


def test_settings_reach_the_optimizer():
    values = {"momentum": 0.7, "weight_decay": 0.02, "nesterov": True, "optimizer": "sgd"}
    found = optimizer(**values).get_config()
    assert {name: found[name] for name in ("momentum", "nesterov")} == {
        "momentum": 0.7, "nesterov": True,
    }  # fmt: skip
    assert found["l2"] == 0.02


def test_settings_reach_pre_training(monkeypatch):
    values = {
        "framework": "byol", "recipe": "cq_c", "seed": 5, "loss_reduction": "sum",
        "bit_schedule": "list", "precision_set": "4,8", "error_correlation": True,
        "projection_width": 8, "predictor_width": 4, "target_momentum": 0.8,
        "batch_norm": "shuffled", "layer_bits": "stem:8w8a",
    }  # fmt: skip
    network = {"backbone": "cifar_resnet8", "width": 2}
    config, given = config_from_flat({**values, **network}), {}

    class Built(Exception):
        pass

    def pretrainer(backbone, **settings):
        given.update(settings)
        raise Built

    monkeypatch.setattr(build, "Pretrainer", pretrainer)
    with pytest.raises(Built):
        build.pretrainer(config, SHAPE, steps=2)
    expected = {name: values[name] for name in set(values) - {"batch_norm", "layer_bits"}}
    assert expected | {
        "weight_bits": None, "activation_bits": None, "policy": build.policy(config),
        "shuffle_keys": True,
    } == given  # fmt: skip


def test_views_are_the_standard_of_their_size_but_for_what_is_given():
    shape = (32, 32, 3)
    usual = augmentation_for(32, 3)
    assert build.augmentation(config_from_flat({}), shape) == usual
    values = {"crop_area": "0.5-0.9", "flip": 0.1, "jitter_probability": 0.3, "hue": 0.2,
              "brightness": 0.1, "contrast": 0.6, "saturation": 0.7, "grayscale": 0.4,
              "blur": 0.9}  # fmt: skip
    expected = dataclasses.replace(usual, **{**values, "crop_area": (0.5, 0.9)})
    assert build.augmentation(config_from_flat(values), shape) == expected


def test_policy_is_the_recipes_unless_given():
    def of(**values):
        return build.policy(config_from_flat(values))

    assert of().name == "paper"
    assert of(recipe="cq_c").weight_quantizer == "linear"
    assert of(recipe="pact").activation_quantizer == "pact"
    assert of(recipe="cq_c", layer_bits="stem:8w8a").weight_quantizer == "linear"
    assert of(recipe="cq_c", policy="uniform").weight_quantizer == "minmax"
    changed = of(policy="uniform", weight_quantizer="lsq")
    assert (changed.weight_quantizer, changed.activation_quantizer) == ("lsq", "minmax")


@pytest.mark.parametrize(
    ("values", "features", "kernels"),
    [
        ({"backbone": "resnet18", "width": 2}, 16, 20),
        ({"backbone": "resnet34", "width": 2}, 16, 36),
        ({"backbone": "resnet50", "width": 2, "stem": "imagenet"}, 64, 53),
        ({"backbone": "cifar_resnet8", "width": 2}, 8, 7),
        ({"backbone": "cifar_resnet14", "width": 2, "shortcut": "projection"}, 8, 15),
        ({"backbone": "mobilenet_v2", "width": 8}, 1280, 52),
        ({"backbone": "vit_tiny", "patch_size": 4, "frozen_patch_projection": True}, 192, 73),
        ({"backbone": "vit_small", "width": 12}, 12, 73),
    ],
)
def test_backbone_by_name_takes_its_settings(values, features, kernels):
    with keras.StatelessScope():
        model = build.backbone(config_from_flat(values), SHAPE)
    assert model.output_shape == (None, features)
    names = ("Conv2D", "DepthwiseConv2D", "Dense")
    assert sum(type(layer).__name__ in names for layer in model.layers) == kernels
    known = {layer.name: layer for layer in model.layers}
    assert ("stem_pool" in known) == (values.get("stem") == "imagenet")
    patches = known.get("patch_projection")
    if patches:
        assert patches.kernel_size == (values.get("patch_size", 1),) * 2
        assert patches.trainable is not values.get("frozen_patch_projection", False)


def test_backbone_from_a_file_keeps_its_weights(tmp_path):
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [keras.Input(SHAPE), layers.Conv2D(3, 3), layers.GlobalAveragePooling2D()]
    )
    path = tmp_path / "mine.keras"
    model.save(path)
    config = config_from_flat({"backbone": f"file:{path}"})
    loaded = build.backbone(config, SHAPE)
    for ours, theirs in zip(loaded.get_weights(), model.get_weights(), strict=True):
        assert (ours == theirs).all()
    with pytest.raises(UserError, match=r"takes images of shape \(8, 8, 1\); the run's have"):
        build.backbone(config, (9, 9, 1))


def test_application_that_does_not_exist_names_the_nearest():
    config = config_from_flat({"backbone": "applications:MobilNetV2"})
    with pytest.raises(UserError, match="Did you mean 'MobileNetV2'"):
        build.backbone(config, (32, 32, 3))


def test_application_that_cannot_take_the_images_says_why():
    config = config_from_flat({"backbone": "applications:MobileNetV2"})
    with pytest.raises(UserError, match=r"cannot take images of shape \(8, 8, 1\)"):
        build.backbone(config, SHAPE)


def test_missing_file_is_told_in_one_line():
    with pytest.raises(UserError, match="nowhere.keras"):
        build.backbone(config_from_flat({"backbone": "file:nowhere.keras"}), SHAPE)


def test_backbone_of_an_earlier_run_goes_on_with_its_own_quantizers(tmp_path):
    keras.utils.set_random_seed(0)
    float_model = keras.Sequential(
        [keras.Input(SHAPE), layers.Conv2D(3, 3), layers.GlobalAveragePooling2D()]
    )
    path = tmp_path / "backbone.keras"
    quantizable(float_model, "uniform").save(path)
    heads = {"projection_width": 4, "predictor_width": 2}
    values = {"backbone": f"file:{path}", **heads}
    model = build.pretrainer(config_from_flat(values), SHAPE, steps=2)
    assert isinstance(model.backbone, QuantizableModel)
    with pytest.raises(UserError, match="--policy has no effect here: file:.* quantizable already"):
        build.pretrainer(config_from_flat({**values, "policy": "paper"}), SHAPE, steps=2)


def test_first_images():
    images = list(range(5))
    assert evaluation_data.first_images("test_images", images, None) == images
    assert evaluation_data.first_images("test_images", images, 2) == [0, 1]
    assert evaluation_data.first_images("calibration_images", images, None, usual=3) == [0, 1, 2]
    with pytest.raises(UserError, match="--test_images=6 with 5 images; allowed: 1 to 5"):
        evaluation_data.first_images("test_images", images, 6)


def test_calibration_images_are_the_first_or_drawn_by_their_seed():
    images = np.arange(20.0)
    np.testing.assert_array_equal(evaluation_data.calibration_images(images, 3, None), [0, 1, 2])
    assert len(evaluation_data.calibration_images(images, None, None)) == 20
    drawn, again, other = (
        evaluation_data.calibration_images(images, 5, seed) for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(drawn, again)
    assert len(set(drawn)) == 5 and set(drawn) != set(other)
    with pytest.raises(UserError, match="--calibration_images=21 with 20 images"):
        evaluation_data.calibration_images(images, 21, 1)
