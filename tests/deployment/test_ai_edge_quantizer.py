"""ai-edge-quantizer: what it returns is what was asked for, or is refused."""

import sys
import types

import keras
import numpy as np
import pytest

from tfcq.deployment.ai_edge_quantizer import (
    check_outputs,
    check_received,
    quantized_file,
    quantizer_tflite,
)
from tfcq.deployment.tflite import float_tflite, int8_tflite
from tfcq.errors import UserError
from tfcq.integer.lite_file import LiteFile
from tfcq.integer.runtime import LiteModel
from tfcq.settings.bitwidths import parse_bit_width

W8A8 = parse_bit_width("8w8a")


@pytest.fixture(scope="module")
def float_file(network):
    return float_tflite(network)


@pytest.fixture(scope="module")
def int8_file(network, images):
    return int8_tflite(network, images)


@pytest.fixture(scope="module")
def returned(int8_file):
    """What the library returns where it does what it says: int8 from end to end."""
    file = LiteFile.read(int8_file)
    first, *inner, last = file.operations
    assert (first.kind, last.kind) == ("QUANTIZE", "DEQUANTIZE")
    file.operations, file.inputs, file.outputs = inner, first.outputs, [last.inputs[0]]
    return file.to_bytes()


@pytest.fixture
def library(monkeypatch):
    """Stands for the library; it returns `content` and keeps what it was asked for."""
    told = types.SimpleNamespace(content=b"", asked=[], images=0)

    class Quantizer:
        def __init__(self, content):
            assert LiteFile.read(content).operations

        def add_static_config(self, names, kinds, activation_bits, weight_bits):
            told.asked.append(("static", activation_bits, weight_bits))

        def add_dynamic_config(self, names, kinds, weight_bits):
            told.asked.append(("dynamic", weight_bits))

        def calibrate(self, data, num_threads):
            told.images = [part for part in data["serving_default"]]
            return {"ranges": 1}

        def quantize(self, ranges):
            print("Quantized model size: 1 MiB")
            return types.SimpleNamespace(quantized_model=bytearray(told.content))

    module = types.SimpleNamespace(
        quantizer=types.SimpleNamespace(Quantizer=Quantizer),
        qtyping=types.SimpleNamespace(TFLOperationName=types.SimpleNamespace(ALL_SUPPORTED="*")),
    )
    monkeypatch.setitem(sys.modules, "ai_edge_quantizer", module)
    return told


def test_the_file_takes_pixels_and_returns_floats_as_ours(
    library, float_file, returned, int8_file, images, capsys
):
    library.content = returned
    content = quantized_file(float_file, images[:8], W8A8)
    assert library.asked == [("static", 8, 8)]
    assert [set(part) for part in library.images] == [{"images"}] * 8
    np.testing.assert_array_equal(LiteModel(content)(images), LiteModel(int8_file)(images))
    assert capsys.readouterr() == ("", "")


def test_a_float_file_in_place_of_an_integer_one_is_refused(library, float_file, images):
    library.content = float_file
    with pytest.raises(UserError, match=r"asked for 2w8a and returned .*CONV_2D with float32 wei"):
        quantized_file(float_file, images, parse_bit_width("2w8a"))


def test_weights_of_other_bits_are_refused(library, float_file, returned, images):
    library.content = returned
    with pytest.raises(UserError, match=r"asked for 4w8a and returned .*CONV_2D with int8 weights"):
        quantized_file(float_file, images, parse_bit_width("4w8a"))


def test_operations_left_in_float_among_integers_are_refused(returned):
    file = LiteFile.read(returned)
    (place, one) = next((i, o) for i, o in enumerate(file.operations) if o.kind == "ADD")
    file.tensors[one.outputs[0]].dtype = "float32"
    with pytest.raises(UserError, match="returned 1 .* in float32.*; allowed: int8 weights"):
        check_received(file, W8A8)


def test_activations_may_be_floats_where_they_are_quantized_while_it_runs(float_file):
    file = LiteFile.read(float_file)
    for one in file.operations:
        if one.kind in ("CONV_2D", "FULLY_CONNECTED"):
            file.tensors[one.inputs[1]].dtype = "int8"
    check_received(file, W8A8, dynamic=True)


def test_outputs_at_chance_are_refused(int8_file, float_file, images):
    errors = check_outputs(int8_file, float_file, images, W8A8)
    assert set(errors) == {"xnnpack", "optimized", "reference"}
    assert max(errors.values()) < 0.1
    file = LiteFile.read(int8_file)
    output = file.tensors[file.operations[-1].inputs[0]]
    output.scales = 30 * output.scales
    with pytest.raises(UserError, match=r"is at chance: .* on xnnpack, .* on reference; allowed"):
        check_outputs(file.to_bytes(), float_file, images, W8A8)


@pytest.mark.parametrize("bits", ["fp", "8w4a", "8w16a"])
def test_bits_without_a_recipe_are_refused(library, float_file, images, bits):
    with pytest.raises(UserError, match=f"not asked for {bits}; allowed: such as 8w8a"):
        quantized_file(float_file, images, parse_bit_width(bits))
    assert library.asked == []


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda images: images[:0], "No image was received"),
        (lambda images: images[:, :4], r"Images of shape \(64, 4, 8, 1\)"),
        (lambda images: 255 * images, "Images from 0 to 255 .* allowed: from 0 to 1"),
        # At these the library ends the process.
        (lambda images: images * np.nan, "Images from nan to nan"),
    ],
)
def test_other_images_are_refused_at_once(library, network, images, change, told):
    with pytest.raises(UserError, match=told):
        quantizer_tflite(network, change(images))
    assert library.asked == []


def test_several_outputs_are_refused(library, network, images):
    both = keras.Model(network.inputs, [network.outputs[0], network.layers[-2].output], name="two")
    with pytest.raises(UserError, match="Model 'two' has 2 outputs; allowed: one"):
        quantizer_tflite(both, images)


def test_what_the_library_refuses_is_told_in_one_line(library, float_file, images, monkeypatch):
    def refuse(self, *names):
        raise ValueError("no\n  such bits")

    quantizer = sys.modules["ai_edge_quantizer"].quantizer.Quantizer
    monkeypatch.setattr(quantizer, "add_static_config", refuse)
    with pytest.raises(UserError, match=r"^ai-edge-quantizer refuses 8w8a: no such bits$"):
        quantized_file(float_file, images, W8A8)


def test_without_the_package_a_plain_hint(monkeypatch, network, images):
    monkeypatch.setitem(sys.modules, "ai_edge_quantizer", None)
    with pytest.raises(UserError, match="pip install ai-edge-quantizer"):
        quantizer_tflite(network, images)


def test_the_library_itself(network, images):
    pytest.importorskip("ai_edge_quantizer", reason="ai-edge-quantizer is not installed")
    content = quantizer_tflite(network, images)
    expected = LiteModel(float_tflite(network))(images)
    assert np.corrcoef(LiteModel(content)(images).ravel(), expected.ravel())[0, 1] > 0.9
    for bits in ("2w8a", "6w8a"):
        with pytest.raises(UserError, match="with float32 weights"):
            quantizer_tflite(network, images, bits)
