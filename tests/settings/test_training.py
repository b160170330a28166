"""One tree of settings, seen as JSON and by name."""

import dataclasses
import json
import math

import pytest

import tfcq
from tests.settings.mistakes import CHANGED, error_of
from tfcq.settings.fields import check_fields, differences, flat, setting, share_range
from tfcq.settings.frameworks import FRAMEWORK_SETTINGS, REGRESSION_LOSSES
from tfcq.settings.training import Config, config_from_flat, for_images, policy, total_steps
from tfcq.settings.training_groups import DataSettings
from tfcq.settings.unused import check_used


def test_json_is_a_tree_of_groups():
    tree = json.loads(config_from_flat(CHANGED).to_json())
    assert tree["data"]["dataset"] == "fashion_mnist"
    assert tree["optimization"]["learning_rate"] == 0.3
    about = {tree.pop("version"), tree.pop("generator")}
    assert about == {tfcq.__version__, "philox"}
    assert len(tree.pop("checksum")) == 16
    assert set(tree) == {"data", "views", "network", "method", "optimization", "execution"}


def test_start_that_follows_the_stem_is_recorded_as_what_it_is():
    def start(**values):
        network = json.loads(config_from_flat(values).to_json())["network"]
        return network["kernel_initializer"], network["zero_init_residual"]

    assert start(stem="cifar") == start(backbone="cifar_resnet20") == ("uniform_fan_in", False)
    # Images decide.
    assert start() == (None, None)
    assert start(stem="imagenet") == ("normal_fan_out", True)
    assert start(stem="imagenet", zero_init_residual=False) == ("normal_fan_out", False)
    assert start(stem="cifar", zero_init_residual=True) == ("uniform_fan_in", True)
    given = {"kernel_initializer": "uniform_fan_in", "stem": "imagenet"}
    assert start(**given) == ("uniform_fan_in", True)
    assert start(backbone="mobilenet_v2", stem="imagenet") == ("normal_fan_out", None)
    assert start(backbone="vit_tiny") == (None, None)


@pytest.mark.parametrize(
    ("size", "stem", "start"),
    [(8, "cifar", ("uniform_fan_in", False)), (63, "cifar", ("uniform_fan_in", False)),
     (64, "imagenet", ("normal_fan_out", True)), (300, "imagenet", ("normal_fan_out", True))],
)  # fmt: skip
def test_first_layers_follow_the_size_of_the_images_unless_they_are_asked_for(size, stem, start):
    of = lambda **values: for_images(config_from_flat(values), size).network  # noqa: E731
    found = of()
    assert (found.stem, (found.kernel_initializer, found.zero_init_residual)) == (stem, start)
    for asked in ("cifar", "imagenet"):
        assert of(stem=asked) == config_from_flat({"stem": asked}).network
    assert of(zero_init_residual=False).zero_init_residual is False
    assert of(backbone="mobilenet_v2").stem == stem
    for name in ("cifar_resnet20", "vit_tiny"):
        assert of(backbone=name) == config_from_flat({"backbone": name}).network


def test_values_reach_their_group_and_the_rest_keeps_its_default():
    config = config_from_flat(CHANGED)
    assert {name: flat(config)[name] for name in CHANGED} == CHANGED
    assert config_from_flat({}) == Config()


def test_defaults_are_those_of_the_ssql_paper_on_the_embedded_data():
    """Sec. 4.1: SGD, rate 0.05 for batches of 256 under a cosine, momentum 0.9, decay 1e-4."""
    expected = {
        "dataset": "digits", "backbone": "resnet18", "framework": "simsiam", "recipe": "ssql",
        "loss_reduction": "mean", "bit_schedule": "uniform", "epochs": 100, "batch_size": 256,
        "optimizer": "sgd", "learning_rate": 0.05, "learning_rate_schedule": "cosine",
        "milestone_factor": 0.1, "warmup": "0epochs", "momentum": 0.9, "weight_decay": 1e-4,
        "strategy": "single", "batch_norm": "local",
    }  # fmt: skip
    values = flat(Config())
    assert {name: values[name] for name in expected} == expected


def test_no_two_groups_share_a_name():
    names = [
        f.name for group in dataclasses.fields(Config) for f in dataclasses.fields(group.default)
    ]
    assert len(names) == len(set(names)) == len(flat(Config()))


def test_settings_are_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Config().data = DataSettings()


@pytest.mark.parametrize(
    ("name", "value", "hint"),
    [("backbone", "resnet81", "resnet18"), ("stem", "imagnet", "imagenet"),
     ("policy", "papr", "paper"), ("framework", "simsaim", "simsiam"), ("recipe", "sqsl", "ssql"),
     ("bit_schedule", "lst", "list"), ("learning_rate_schedule", "cosin", "cosine"),
     ("backbone", "cifar_resnet111", "cifar_resnet110"), ("optimizer", "lras", "lars"),
     ("weight_quantizer", "minmx", "minmax"), ("loss_reduction", "men", "mean"),
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
     ("weight_decay", math.nan), ("warmup", "-1epochs"), ("warmup", "1.5steps"),
     ("duration", "0.5examples"), ("milestone_factor", 1.0), ("milestones", "30epochs"),
     ("queue_size", 10), ("temperature", 0.0), ("target_momentum", 0.5), ("patch_size", 0),
     ("precision_set", "1-4"),
     ("precision_set", ""), ("weight_bits", ""), ("weight_bits", "1-4"), ("activation_bits", "8-4"),
     ("crop_area", "1-0.2"), ("seed", -1), ("flip", 1.5), ("hue", 0.6)],
)  # fmt: skip
def test_number_out_of_range_is_refused(name, value):
    error_of(config_from_flat, {name: value})


def test_range_of_shares():
    assert share_range("crop_area", "0.2-1") == (0.2, 1.0)
    assert share_range("crop_area", "1-1") == (1.0, 1.0)
    assert share_range("crop_area", None) is None


@pytest.mark.parametrize("text", ["", "0.2", "0-1", "0.2-1.1", "a-b", "0.2-0.4-1", "nan-1"])
def test_bad_range_of_shares(text):
    assert error_of(share_range, "crop_area", text) == (
        f"--crop_area={text}; allowed: LOW-HIGH within 0 to 1, such as 0.2-1."
    )


@pytest.mark.parametrize(
    ("bounds", "inside", "outside", "words"),
    [({"at_least": 1}, (1, 2), (0,), "1 and above"), ({"above": 0}, (0.1,), (0, -1), "above 0"),
     ({"at_least": 0, "at_most": 0.5}, (0, 0.5), (-0.1, 0.6), "0 to 0.5"),
     ({"at_least": 0, "below": 1}, (0, 0.9), (1,), "0 to below 1"),
     ({"above": 0, "at_most": 1}, (0.1, 1), (0, 1.1), "above 0 to 1"),
     ({"above": 0, "below": 1, "why": "or it stops"}, (0.5,), (0, 1),
      "above 0 to below 1, or it stops")],
)  # fmt: skip
def test_bounds_are_checked_and_told_where_a_setting_declares_them(bounds, inside, outside, words):
    @dataclasses.dataclass(frozen=True)
    class Group:
        speed: float | None = setting(None, "how fast", **bounds)

    for value in (None, *inside):
        check_fields(Group(value))
    for value in outside:
        message = f"--speed={value} cannot be used; allowed: {words}."
        assert error_of(check_fields, Group(value)) == message


def test_differences_are_named():
    assert differences(Config(), Config()) == []
    changed = config_from_flat({"epochs": 3, "recipe": "float"})
    assert differences(Config(), changed) == ["recipe: ssql -> float", "epochs: 100 -> 3"]


@pytest.mark.parametrize(
    ("values", "name"),
    [({"recipe": "float"}, "weight_bits"), ({"recipe": "float"}, "activation_bits"),
     ({"recipe": "float"}, "bit_schedule"), ({"recipe": "float"}, "precision_set"),
     ({"recipe": "cq_quant"}, "flip"), ({"duration": "50steps"}, "epochs"),
     ({}, "patch_size"), ({"backbone": "vit_tiny"}, "stem"), ({}, "shortcut"),
     ({"optimizer": "adamw"}, "nesterov"), ({}, "milestone_factor"),
     ({"weight_decay": 0.0}, "exclude"), ({}, "data_dir"), ({}, "download"), ({}, "strict_data"),
     ({"dataset": "fashion_mnist"}, "strict_data"), ({"momentum": 0.0}, "nesterov"),
     ({"jitter_probability": 0.0}, "hue"), ({}, "batch_norm"), ({"strategy": "mirrored"}, "tpu"),
     ({"start": "run"}, "kernel_initializer"), ({"start": "run"}, "zero_init_residual")],
)  # fmt: skip
def test_setting_without_effect_is_refused_only_when_given(values, name):
    config = config_from_flat(values)
    check_used(config, set(values))
    message = error_of(check_used, config, {*values, name})
    assert message.startswith(f"--{name} has no effect here: ")


def test_bits_are_given_apart_or_alike():
    assert "precision_set='4-16'" in error_of(
        config_from_flat, {"precision_set": "4-16", "weight_bits": "4"}
    )


def test_fixed_schedule_needs_one_candidate():
    fixed = {"bit_schedule": "fixed", "activation_bits": "8"}
    assert "weight_bits 2-8" in error_of(config_from_flat, fixed)
    config_from_flat({**fixed, "weight_bits": "4"})


@pytest.mark.parametrize("framework", FRAMEWORK_SETTINGS)
def test_framework_takes_its_own_settings_and_no_others(framework):
    own = FRAMEWORK_SETTINGS[framework]
    every = {name: value for other in FRAMEWORK_SETTINGS.values() for name, value in other.items()}
    for name, value in every.items():
        values = {"framework": framework, name: value}
        if name in own:
            assert flat(config_from_flat(values))[name] == value
        else:
            assert error_of(config_from_flat, values).startswith(
                f"{name} has no effect with framework {framework!r}, which has none; leave it out, "
            )


def test_fixed_schedule_takes_one_precision_for_both():
    config_from_flat({"recipe": "cq_a", "precision_set": "8", "bit_schedule": "fixed"})


def test_queue_must_hold_the_keys_of_a_step():
    queue = {"framework": "mocov2", "batch_size": 64}
    assert "a step makes 128 keys" in error_of(config_from_flat, {**queue, "queue_size": 127})
    config_from_flat({**queue, "queue_size": 128})
    config_from_flat({**queue, "queue_size": 64, "recipe": "v1@fp->v2@fp"})


@pytest.mark.parametrize("kind", ["lsq", "pact"])
@pytest.mark.parametrize("recipe", ["float", "quantized_target"])
def test_scales_that_would_never_be_trained_are_refused(kind, recipe):
    values = {"activation_quantizer": kind, "recipe": recipe}
    assert "which trains no quantized pass" in error_of(config_from_flat, values)
    config_from_flat({**values, "recipe": "ssql"})


def test_tables_of_the_code_have_the_names_of_the_settings():
    from tfcq.post_training import plan, ranges, weights
    from tfcq.pretraining import byol
    from tfcq.pretraining.kinds import FRAMEWORKS
    from tfcq.quantization import kinds
    from tfcq.settings import evaluation_groups, policies, protocol_groups, training_groups
    from tfcq.training import optimizers

    assert set(training_groups.OPTIMIZERS) == set(optimizers.OPTIMIZERS)
    assert set(FRAMEWORK_SETTINGS) == set(FRAMEWORKS)
    assert set(REGRESSION_LOSSES) == set(byol.REGRESSIONS)
    assert set(evaluation_groups.CALIBRATIONS) == set(ranges.RANGES)
    assert set(protocol_groups.WEIGHT_SCALES) == set(weights.WEIGHT_SCALES)
    assert {"nearest", *protocol_groups.LEARNED_ROUNDINGS} == set(plan.ROUNDINGS)
    assert set(policies.WEIGHT_QUANTIZER_NAMES) == set(kinds.WEIGHT_QUANTIZERS)
    assert set(policies.ACTIVATION_QUANTIZER_NAMES) == set(kinds.ACTIVATION_QUANTIZERS)


def test_length_of_a_run():
    def steps(**values):
        return total_steps(config_from_flat(values).optimization, 7)

    assert steps(epochs=3) == 21
    assert steps(duration="25steps") == 25
    assert steps(duration="640examples", batch_size=64) == 10
    assert "is 0 steps" in error_of(
        total_steps, config_from_flat({"duration": "1examples"}).optimization, 7
    )


def test_policy_is_the_recipes_unless_given():
    def of(**values):
        return policy(config_from_flat(values))

    assert of().name == "paper"
    assert of(recipe="cq_c").weight_quantizer == "linear"
    assert of(recipe="pact").activation_quantizer == "pact"
    assert of(recipe="cq_c", layer_bits="stem:8w8a").weight_quantizer == "linear"
    assert of(recipe="cq_c", policy="uniform").weight_quantizer == "minmax"
    roundings = ("nearest", "floor", "stochastic")
    assert [of(recipe="cq_c", rounding=name).rounding for name in roundings] == [*roundings]
    changed = of(policy="uniform", weight_quantizer="lsq")
    assert (changed.weight_quantizer, changed.activation_quantizer) == ("lsq", "minmax")


def test_setting_with_effect_is_taken():
    check_used(Config(), {"weight_bits", "activation_bits", "bit_schedule", "recipe"})
    check_used(config_from_flat({"dataset": "fashion_mnist"}), {"data_dir", "download"})
