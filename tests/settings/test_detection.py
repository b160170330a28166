"""Settings of a detection that do not go together are told in one line."""

import pytest

from tests.settings.mistakes import error_of
from tfcq.settings.detection import detection_from_flat


def config(**values):
    return detection_from_flat({"run_dir": "RUN", **values})


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"run_dir": None}, "--run_dir is missing"),
        ({"model": "m.keras"}, "--run_dir and --model were both given"),
        ({"run_dir": None, "model": "m.keras"}, "--output_dir is missing; --model=m.keras needs"),
        (
            {"run_dir": None, "model": "m.h5", "output_dir": "D"},
            "Unknown model 'm.h5'; allowed: PATH.keras, PATH.pth or PATH.safetensors.",
        ),
        ({"input_std": "1"}, "--input_std has no effect here"),
        (
            {"run_dir": None, "model": "m.pth", "output_dir": "D", "input_mean": "0"},
            "--input_mean=0 with --input_std=None; allowed: both or none",
        ),
        ({"dataset": "digit"}, "allowed"),
        ({"shorter_side": "480,wide"}, "--shorter_side=480,wide cannot be read"),
        ({"anchor_sizes": "big"}, "--anchor_sizes=big cannot be read"),
        ({"detector": "faster_rcn"}, "Did you mean 'faster_rcnn'"),
        ({"bits": "8w8"}, "8w8"),
        ({"export_bits": "4w4a"}, "--export_bits=4w4a cannot be exported; allowed: one of 2w8a"),
        ({"export_bits": "fp"}, "--export_bits=fp cannot be exported"),
        ({"export_bits": "8w8a", "protocol": "qat"}, "--export_bits has no effect here"),
        ({"quantizer": "lqs"}, "Did you mean 'lsq'"),
        ({"epochs": 0}, "--epochs=0"),
    ],
)
def test_mistakes_are_told_with_what_is_allowed(values, told):
    assert told in error_of(lambda: config(**values))


def test_folders_are_those_of_the_run_or_as_told():
    assert str(config().folder) == "RUN/detection/faster_rcnn"
    assert str(config(output_dir="D").folder) == "D"
    assert str(config().backbone_file) == "RUN/backbone.keras"


def test_what_trains_a_detector_is_compared_and_what_scores_it_is_not():
    base = config().trained_with()
    for scored in ({"bits": "fp"}, {"test_images": 3}, {"pictures": 0}, {"calibration": "mse"}):
        assert config(**scored).trained_with() == base
    for trained in ({"epochs": 3}, {"flip": False}, {"from_scratch": True}, {"seed": 1}):
        assert config(**trained).trained_with() != base
    public = {"run_dir": None, "model": "m.pth", "output_dir": "D"}
    other_pixels = config(**public, input_mean="0", input_std="1")
    assert config(**public).trained_with() != other_pixels.trained_with()
    assert "input_mean" not in base
    one, other = (config(protocol="qat", quantize=name) for name in ("all", "backbone"))
    assert one.trained_with() != other.trained_with()
