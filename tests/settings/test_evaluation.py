"""Every flag of an evaluation has its protocols; one that cannot be used is refused."""

import dataclasses
import math

import pytest

from tests.evaluation.evaluations import FLAGS, config_of, flags_of
from tfcq.errors import UserError
from tfcq.settings.evaluation import GROUPS, EvaluationConfig, evaluation_from_flat
from tfcq.settings.evaluation_groups import ProtocolSettings, SubjectSettings
from tfcq.settings.protocols import PROTOCOLS


def test_flag_is_used_by_its_protocols_and_refused_by_others():
    assert set(FLAGS) == {name for protocol in PROTOCOLS.values() for name in protocol.uses}
    for name, (_, used) in FLAGS.items():
        for protocol in PROTOCOLS:
            flags = flags_of(protocol, name)
            if protocol in used:
                config_of(**flags)
                continue
            with pytest.raises(UserError, match="--(\\w+) has no effect here"):
                config_of(**flags)


def test_defaults_are_the_documented_ones():
    values = {f.name: getattr(group, f.name) for group in GROUPS.values()
              for f in dataclasses.fields(group)}  # fmt: skip
    expected = {
        "protocol": "linear", "bits": "fp,8w8a,6w6a,5w5a,4w4a,3w3a,2w8a,2w4a", "neighbours": 20,
        "temperature": 0.1, "features": "cached", "quantizer": "lsq", "start": "linear", "seed": 0,
        "calibration": None, "weight_scales": "max", "rounding_iterations": 10_000,
    }  # fmt: skip
    assert {name: values[name] for name in expected} == expected
    # Whatever else there is changes nothing unless it is asked for.
    assert {value for name, value in values.items() if name not in expected} <= {None, False}


def test_groups_are_those_of_the_configuration():
    kinds = [type(group.default) for group in dataclasses.fields(EvaluationConfig)]
    assert [type(group) for group in GROUPS.values()] == kinds


@pytest.mark.parametrize(
    ("model", "protocol", "asked", "expected"),
    [
        ({"model": "m.keras"}, "classifier", None, 1.0),
        ({"model": "m.tflite"}, "classifier", None, 1.0),
        ({"model": "m.keras"}, "classifier", 0.875, 0.875),
        ({"model": "m.keras"}, "linear", None, 1.0),
        ({"model": "m.tflite"}, "linear,classifier", None, 1.0),
        ({"model": "applications:VGG16"}, "linear", None, None),
        ({"model": "applications:VGG16", "weights": "imagenet"}, "classifier", None, None),
    ],
)
def test_images_of_a_model_of_ones_own_are_whole(model, protocol, asked, expected):
    values = {**model, "protocol": protocol, "test_crop": asked}
    config = evaluation_from_flat({"dataset": "digits", "output_dir": "o", **values})
    assert config.test_crop == expected


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({"protocol": "linear", "crop_area": "0.1-1"}, "cached crops no image.*augmented"),
        ({"protocol": "knn", "crop_area": "0.1-1"}, "--crop_area has no effect"),
        ({"protocol": "finetune", "crop_area": "1-0.1"}, "crop_area=1-0.1; allowed: LOW-HIGH"),
        ({"protocol": "qat", "classifier_start": "normal"}, "--classifier_start has no effect"),
        ({"protocol": "finetune", "classifier_start": "ones"}, "classifier_start 'ones'.*zeros"),
        ({"test_crop": 0}, "--test_crop=0.0 .*above 0 to 1"),
        ({"test_crop": 1.1}, "--test_crop=1.1 .*above 0 to 1"),
    ],
)
def test_flags_that_cannot_be_used_or_change_nothing_are_refused(values, text):
    with pytest.raises(UserError, match=text):
        config_of(**values)


BOUNDS = {
    "1 and above": {
        "image_size": 0, "train_images": 0, "test_images": 0, "calibration_images": 0,
        "neighbours": 0, "rounding_iterations": 0, "curve_images": 0, "epochs": 0, "batch_size": 0,
    },
    "above 0": {"temperature": 0.0, "learning_rate": 0.0},
    "0 and above": {"weight_decay": -0.1},
    "above 0 to 1": {"label_share": 0.0, "test_crop": 1.5},
    "0 to 4294967295": {"seed": 2**32, "calibration_seed": -1},
    "above 0, finite": {"temperature": math.inf, "learning_rate": math.nan},
    "0 and above, finite": {"weight_decay": math.inf},
}  # fmt: skip


@pytest.mark.parametrize(
    ("name", "value", "allowed"),
    [
        (name, value, allowed)
        for allowed, values in BOUNDS.items()
        for name, value in values.items()
    ],
)
def test_value_out_of_bounds_is_refused_beside_what_is_allowed(name, value, allowed):
    with pytest.raises(UserError) as caught:
        config_of(**{name: value})
    assert str(caught.value) == f"--{name}={value} cannot be used; allowed: {allowed}."


def test_configuration_checks_itself_when_it_is_made():
    run = SubjectSettings(run_dir="run")
    with pytest.raises(UserError, match="--run_dir is missing"):
        EvaluationConfig()
    for settings, text in (
        (ProtocolSettings(bits="1w8a"), "1w8a"),
        (ProtocolSettings(protocol="liner"), "Did you mean 'linear'"),
        (ProtocolSettings(protocol="semi"), "--label_share is missing"),
        (ProtocolSettings(seed=-1), "--seed=-1"),
    ):
        with pytest.raises(UserError, match=text):
            EvaluationConfig(subject=run, measurement=settings)
