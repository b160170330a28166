"""`python -m tfcq.verify` checks any file, whatever pixels it takes, or says why not."""

import json
import pathlib
import re
import sys

import keras
import numpy as np
import pytest

import tfcq
from tests.evaluation.protocols.test_classifier import classifier as fitted_classifier
from tests.small_digits import few_digits
from tfcq import command_line, verify
from tfcq.errors import UserError
from tfcq.evaluation import data
from tfcq.integer.lite_file import LiteFile


def check(*arguments: str) -> int:
    return verify.main(verify.flag_set().parse([*arguments, "--dataset=digits", "--images=40"]))


@pytest.fixture(scope="module")
def content():
    """An int8 classifier of digits, untrained."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((8, 8, 1))
    x = keras.layers.Conv2D(4, 3, activation="relu")(inputs)
    x = keras.layers.GlobalAveragePooling2D()(x)
    model = tfcq.quantizable(keras.Model(inputs, keras.layers.Dense(10)(x)))
    tfcq.calibrate(model, few_digits())
    return tfcq.int8_tflite(model, few_digits())


def of_pixels(content: bytes) -> bytes:
    """The file with the same integers, of pixels from 0 to 255."""
    file = LiteFile.read(content)
    quantize, product = file.operations[:2]
    for index in (quantize.inputs[0], quantize.outputs[0]):
        file.tensors[index].scales = file.tensors[index].scales * np.float32(255)
    weights = file.tensors[product.inputs[1]]
    weights.scales = weights.scales / np.float32(255)
    return file.to_bytes()


def figures_of(path: pathlib.Path) -> dict:
    found = json.loads(path.with_name(f"{path.stem}_verified.json").read_text())
    return {
        name: value for name, value in found.items() if name not in ("file", "bytes", "input_range")
    }


def test_a_file_is_the_same_file_whatever_pixels_it_takes(content, tmp_path, capsys):
    ours, pixels = tmp_path / "ours.tflite", tmp_path / "pixels.tflite"
    ours.write_bytes(content)
    pixels.write_bytes(of_pixels(content))
    assert check(str(ours)) == 0
    assert "xnnpack" in capsys.readouterr().out
    found = figures_of(ours)
    assert found["passed"] and found["images"] == 40
    assert check(str(pixels), "--input_range=0-255") == check(str(pixels)) == 0
    assert figures_of(pixels) == found
    with pytest.raises(UserError, match="takes pixels in 0-255 .*, not 0-1; leave out --input_ra"):
        check(str(pixels), "--input_range=0-1")


def test_a_difference_ends_with_the_code_of_a_failure(content, tmp_path, monkeypatch):
    from tfcq.deployment import verify as checked

    (tmp_path / "ours.tflite").write_bytes(content)
    figures = checked.gate_figures
    monkeypatch.setattr(
        checked, "gate_figures", lambda *given: {**figures(*given), "passed": False}
    )
    assert check(str(tmp_path / "ours.tflite")) == command_line.FAILURE


def test_a_classifier_of_other_pixels_is_not_checked_at_chance(tmp_path, capsys):
    path = tmp_path / "raw.tflite"
    saved = tmp_path / "raw.keras"
    fitted_classifier(saved, keras.layers.BatchNormalization(), factor=255.0)
    path.write_bytes(tfcq.deployment.tflite.float_tflite(keras.models.load_model(saved)))
    with pytest.raises(UserError, match=r"raw.tflite tells which .*; pass --input_range=0-255 "):
        check(str(path))
    assert "assumed since its input does not tell" in capsys.readouterr().out
    assert check(str(path), "--input_range=0-255") == 0
    printed = capsys.readouterr().out
    assert "have no rule: 3 of 4 operations (DEPTHWISE_CONV_2D 1, " in printed
    assert "Gate passed: LiteRT computes what the file says in the operations that" in printed


def test_images_are_whole_unless_told_otherwise(content, tmp_path, capsys, monkeypatch):
    (tmp_path / "ours.tflite").write_bytes(content)
    seen = []
    read = data.labelled_arrays
    monkeypatch.setattr(
        data, "labelled_arrays", lambda *given, test_crop: seen.append(test_crop) or read(*given)
    )
    check(str(tmp_path / "ours.tflite"), "--image_size=8")
    assert set(seen) == {1.0} and "central" not in capsys.readouterr().out
    check(str(tmp_path / "ours.tflite"), "--test_crop=0.5")
    assert seen[-1] == 0.5 and "in their central 0.5;" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda content: content[: len(content) // 2], "file.tflite is damaged or cut short"),
        (lambda content: b"", r"file.tflite is no TFLite model \(0 bytes\)"),
        (lambda content: b"PK\x03\x04" + content, "file.tflite is no TFLite model"),
    ],
)
def test_what_is_no_file_ends_in_one_line_and_the_code_of_a_mistake(
    damage, words, content, tmp_path, capsys, monkeypatch
):
    (tmp_path / "file.tflite").write_bytes(damage(content))
    monkeypatch.setattr(sys, "argv", ["verify", str(tmp_path / "file.tflite"), "--dataset=digits"])
    with pytest.raises(SystemExit) as ended:
        command_line.run(verify.flag_set(), verify.main)
    assert ended.value.code == command_line.USER_ERROR == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ") and re.search(words, line)
    assert [path.name for path in tmp_path.iterdir()] == ["file.tflite"]
