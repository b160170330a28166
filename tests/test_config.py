"""One tree of settings, seen as JSON and by name."""

import dataclasses
import json
import math

import pytest

from tfcq.config import (
    Config,
    DataSettings,
    check_used,
    config_from_flat,
    config_from_json,
    crop_area,
    differences,
    flat,
)
from tfcq.errors import UserError


def error_of(function, *arguments) -> str:
    with pytest.raises(UserError) as caught:
        function(*arguments)
    message = str(caught.value)
    assert "\n" not in message
    return message


CHANGED = {
    "dataset": "fashion_mnist", "data_dir": "/d", "download": True, "image_size": 32, "flip": 0.25,
    "crop_area": "0.2-1", "backbone": "resnet50", "stem": "imagenet", "width": 3,
    "policy": "uniform",
    "recipe": "v1@q->v2@fp", "weight_bits": "2,4", "bit_schedule": "list", "epochs": 7,
    "learning_rate": 0.3, "warmup_epochs": 1.5, "seed": 9, "deterministic": True,
}  # fmt: skip


@pytest.mark.parametrize(
    "config", [Config(), config_from_flat(CHANGED)], ids=["default", "changed"]
)
def test_json_round_trips(config):
    assert config_from_json(config.to_json()) == config


def test_json_is_a_tree_of_groups():
    tree = json.loads(config_from_flat(CHANGED).to_json())
    assert tree["data"]["dataset"] == "fashion_mnist"
    assert tree["optimization"]["learning_rate"] == 0.3
    assert set(tree) == {"data", "views", "network", "method", "optimization", "execution"}


def test_values_reach_their_group_and_the_rest_keeps_its_default():
    config = config_from_flat(CHANGED)
    assert {name: flat(config)[name] for name in CHANGED} == CHANGED
    assert config_from_flat({}) == Config()


def test_no_two_groups_share_a_name():
    names = [
        f.name for group in dataclasses.fields(Config) for f in dataclasses.fields(group.default)
    ]
    assert len(names) == len(set(names)) == len(flat(Config()))


def test_settings_are_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Config().data = DataSettings()


def test_misspelt_setting_names_the_nearest():
    assert "Unknown setting 'epohs'" in error_of(config_from_flat, {"epohs": 3})
    assert "Did you mean 'epochs'?" in error_of(config_from_flat, {"epohs": 3})
    text = json.dumps({"optimization": {"leraning_rate": 0.1}})
    assert "Did you mean 'learning_rate'?" in error_of(config_from_json, text)


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "3", '{"data": 3}', '{"dta": {"dataset": "digits"}}',
     '{"optimization": {"epochs": "ten"}}',
     '{"optimization": {"epochs": null}}', '{"network": {"stem": 3}}'],
)  # fmt: skip
def test_text_that_is_no_configuration_is_refused_in_one_line(text):
    error_of(config_from_json, text)


@pytest.mark.parametrize(
    ("name", "value", "hint"),
    [("backbone", "resnet81", "resnet18"), ("stem", "imagnet", "imagenet"),
     ("policy", "papr", "paper"), ("framework", "simsaim", "simsiam"), ("recipe", "sqsl", "ssql"),
     ("bit_schedule", "lst", "list"), ("learning_rate_schedule", "cosin", "cosine"),
     ("dataset", "digit$", "digits")],
)  # fmt: skip
def test_unknown_choice_names_the_nearest(name, value, hint):
    assert f"Did you mean '{hint}'?" in error_of(config_from_flat, {name: value})


@pytest.mark.parametrize(
    ("name", "value"),
    [("image_size", 0), ("train_images", 0), ("width", 0), ("projection_width", 0),
     ("predictor_width", -1), ("epochs", 0), ("batch_size", 0), ("learning_rate", 0.0),
     ("learning_rate", -1.0), ("learning_rate", math.nan), ("learning_rate", math.inf),
     ("momentum", 1.0), ("momentum", -0.1), ("momentum", math.nan), ("weight_decay", -1e-4),
     ("weight_decay", math.nan), ("warmup_epochs", -1.0), ("warmup_epochs", 101.0),
     ("warmup_epochs", math.nan), ("weight_bits", "1-4"), ("activation_bits", "8-4"),
     ("crop_area", "1-0.2"), ("seed", -1), ("flip", 1.5), ("hue", 0.6)],
)  # fmt: skip
def test_number_out_of_range_is_refused(name, value):
    error_of(config_from_flat, {name: value})


def test_crop_area():
    assert crop_area("0.2-1") == (0.2, 1.0)
    assert crop_area("1-1") == (1.0, 1.0)
    assert crop_area(None) is None


@pytest.mark.parametrize("text", ["", "0.2", "0-1", "0.2-1.1", "a-b", "0.2-0.4-1", "nan-1"])
def test_bad_crop_area(text):
    assert error_of(crop_area, text) == (
        f"--crop_area={text}; allowed: LOW-HIGH within 0 to 1, such as 0.2-1."
    )


def test_differences_are_named():
    assert differences(Config(), Config()) == []
    changed = config_from_flat({"epochs": 3, "recipe": "float"})
    assert differences(Config(), changed) == ["recipe: ssql -> float", "epochs: 100 -> 3"]


@pytest.mark.parametrize(
    ("values", "name"),
    [({"recipe": "float"}, "weight_bits"), ({"recipe": "float"}, "activation_bits"),
     ({"recipe": "float"}, "bit_schedule"), ({}, "data_dir"), ({}, "download"), ({}, "strict_data"),
     ({"dataset": "fashion_mnist"}, "strict_data")],
)  # fmt: skip
def test_setting_without_effect_is_refused_only_when_given(values, name):
    config = config_from_flat(values)
    check_used(config, set(values))
    message = error_of(check_used, config, {*values, name})
    assert message.startswith(f"--{name} has no effect here: ")


def test_setting_with_effect_is_taken():
    check_used(Config(), {"weight_bits", "activation_bits", "bit_schedule", "recipe"})
    check_used(config_from_flat({"dataset": "fashion_mnist"}), {"data_dir", "download"})
