"""config.json of a run, of this version and of earlier ones."""

import json

import pytest

import tfcq
from tests.settings.mistakes import CHANGED, error_of
from tfcq.settings.config_file import config_from_json
from tfcq.settings.training import Config, config_from_flat


@pytest.mark.parametrize(
    "config", [Config(), config_from_flat(CHANGED)], ids=["default", "changed"]
)
def test_json_round_trips(config):
    assert config_from_json(config.to_json()) == config


def test_run_of_before_keeps_the_first_layers_it_had():
    for values in ({"backbone": "resnet18"}, {"backbone": "mobilenet_v2", "stem": None}):
        former = config_from_json(json.dumps({"network": values})).network
        assert (former.stem, former.kernel_initializer) == ("cifar", "uniform_fan_in")
    own = config_from_json(json.dumps({"network": {"backbone": "cifar_resnet20"}})).network
    assert own.stem is None


def test_misspelt_setting_names_the_nearest():
    assert "Unknown setting 'epohs'" in error_of(config_from_flat, {"epohs": 3})
    assert "Did you mean 'epochs'?" in error_of(config_from_flat, {"epohs": 3})
    text = json.dumps({"optimization": {"leraning_rate": 0.1}})
    assert "Did you mean 'learning_rate'?" in error_of(config_from_json, text)


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "3", '{"data": 3}', '{"dta": {"dataset": "digits"}}',
     '{"optimization": {"epochs": "ten"}}',
     '{"optimization": {"epochs": null}}', '{"network": {"stem": 3}}',
     '{"optimization": {"epochs": true}}', '{"data": {"download": 1}}'],
)  # fmt: skip
def test_text_that_is_no_configuration_is_refused_in_one_line(text):
    error_of(config_from_json, text)


def test_configurations_of_before_say_what_was_done_without_a_setting():
    network = {"backbone": "resnet18", "stem": "imagenet"}
    former = config_from_json(json.dumps({"network": network, "method": {"recipe": "cq_c"}}))
    assert former.network.rounding == "floor"
    assert former.network.kernel_initializer == "uniform_fan_in"
    assert former.network.zero_init_residual is False
    former = config_from_json(json.dumps({"network": network, "method": {"recipe": "ssql"}}))
    assert former.network.rounding == "nearest"
    now = config_from_flat({**network, "recipe": "cq_c"})
    assert config_from_json(now.to_json()) == now
    assert now.network.rounding == "nearest" and now.network.zero_init_residual


@pytest.mark.parametrize(
    "tree",
    [{"optimization": {"epochs": 10**400}}, {"optimization": {"learning_rate": 2**64}},
     {"network": {"backbone": 3}},
     {"method": {"recipe": ["ssql"]}, "network": {"backbone": "resnet18"}},
     {"network": {"policy": {}, "backbone": "resnet18"}}, {"data": {"data_dir": "a\0b"}},
     {"data": {"dataset": "\ud800"}}, {"network": {"backbone": f"cifar_resnet{'9' * 5000}"}},
     {"network": {"layer_bits": f"stem:{'9' * 5000}w"}}, {"method": {"weight_bits": "9" * 5000}},
     {"optimization": {"duration": "1e308epochs"}},
     {"method": {"recipe": f"{'9' * 5000}*v1@fp->v2@fp"}}],
)  # fmt: skip
def test_value_beyond_what_can_be_held_is_refused_in_one_line(tree):
    error_of(config_from_json, json.dumps(tree))


def test_setting_of_a_later_version_is_told_with_that_version():
    text = json.dumps({"version": "99.1", "data": {"warp": 3}})
    assert error_of(config_from_json, text).endswith(
        f"(tfcq 99.1 wrote it, this is {tfcq.__version__})"
    )
