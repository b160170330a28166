"""What a run uses where its settings leave something open, in one spelling."""

import inspect

import pytest

from tfcq.settings.backbones import standard_width
from tfcq.settings.config_file import config_from_json
from tfcq.settings.fields import differences, flat
from tfcq.settings.training import Config, config_from_flat, policy
from tfcq.settings.used import used, used_alike

# Two spellings of one run each.
SPELT = [
    ({}, {"width": 64, "policy": "paper", "projection_width": 2048}),
    ({"weight_bits": "2,3,4"}, {"weight_bits": " 2-4"}),
    ({"bit_schedule": "list", "weight_bits": "4,2"},
     {"bit_schedule": "list", "weight_bits": "04,2"}),
    ({"recipe": "cq_a"}, {"recipe": "cq_a", "precision_set": "6-16", "weight_quantizer": "linear"}),
    ({"recipe": "v1@fp->v2@fp,v2@fp->v1@fp"}, {"recipe": "float"}),
    ({"duration": "7epochs"}, {"epochs": 7}),
    ({"duration": "500step", "warmup": "1"}, {"duration": "500steps", "warmup": "1epoch"}),
    ({"dataset": "folder:/tmp/"}, {"dataset": "folder:/tmp/../tmp"}),
    ({"duration": "14steps"}, {"duration": "14steps", "epochs": 4}),
    ({"learning_rate": 0.05, "batch_size": 512, "scale_learning_rate": True},
     {"learning_rate": 0.1, "batch_size": 512}),
    ({"learning_rate_schedule": "step", "milestones": "3,5"},
     {"learning_rate_schedule": "step", "milestones": "3epochs,5epochs"}),
    ({"crop_area": "0.2-1"}, {"crop_area": "0.20-1.0"}),
    ({"layer_bits": "stem:8w8a, a:fp"}, {"layer_bits": "stem:8w8a,a:fp"}),
    ({"input_mean": "0.5", "input_std": ".5"}, {"input_mean": "0.50", "input_std": "5e-1"}),
    ({"framework": "byol"},
     {"framework": "byol", "target_momentum": 0.996, "projection_norm": "none"}),
]  # fmt: skip


@pytest.mark.parametrize(("one", "other"), SPELT)
def test_spelling_makes_no_other_run(one, other):
    one, other = config_from_flat(one), config_from_flat(other)
    assert used(one) == used(other) or one.optimization.duration == "14steps"
    assert differences(*used_alike(one, other)) == []


@pytest.mark.parametrize("values", [pair[0] for pair in SPELT])
def test_what_is_used_is_read_again_as_itself_and_is_the_same_run(values):
    config = config_from_flat(values)
    found = used(config)
    assert used(found) == found == config_from_json(found.to_json(asked=sorted(values)))
    assert policy(found) == policy(config)
    assert found.optimization.length() == config.optimization.length()


def test_nothing_that_another_setting_decides_is_left_open():
    open_now = {name for name, value in flat(used(Config())).items() if value is None}
    views = {"crop_area", "flip", "jitter_probability", "brightness", "contrast", "saturation",
             "hue", "grayscale", "blur"}  # fmt: skip
    # Views decide on the first layers, and those on how the network starts.
    start = {"stem", "kernel_initializer", "zero_init_residual"}
    other_networks = {"shortcut", "patch_size", "input_mean", "input_std", "layer_bits"}
    other_methods = {
        "precision_set", "projection_hidden", "projection_layers", "projection_norm", "temperature",
        "queue_size", "regression_loss", "target_momentum", "target_momentum_schedule",
        "target_update", "duration", "milestones", "exclude",
    }  # fmt: skip
    assert open_now == views | start | other_networks | other_methods | {
        "data_dir", "image_size", "train_images", "channels", "holdout", "start",
        "tracker", "tpu",
    }  # fmt: skip


def test_bits_of_a_recipe_that_draws_none_are_not_used():
    values = flat(used(config_from_flat({"recipe": "float"})))
    assert (values["weight_bits"], values["activation_bits"], values["precision_set"]) == (
        None,
    ) * 3


def test_standard_widths_are_those_of_the_code():
    from tfcq.backbones.cifar_resnet import cifar_resnet
    from tfcq.backbones.mobilenet_v2 import mobilenet_v2
    from tfcq.backbones.resnet import resnet
    from tfcq.backbones.vision_transformer import vision_transformer

    for name, build in {
        "resnet50": resnet, "mobilenet_v2": mobilenet_v2, "cifar_resnet20": cifar_resnet,
    }.items():  # fmt: skip
        assert inspect.signature(build).parameters["width"].default == standard_width(name)
    for size in ("tiny", "small"):
        model = vision_transformer(size, depth=1, input_shape=(8, 8, 1))
        assert model.output_shape[-1] == standard_width(f"vit_{size}")
    assert standard_width("file:a.keras") is None
