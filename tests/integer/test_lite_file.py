"""Files read and written: nothing lost, aligned, and refused in a line where damaged."""

import dataclasses

import flatbuffers
import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema

from tests.integer.lite_files import constant, levels, pictures, single
from tfcq.deployment.tflite import int8_tflite
from tfcq.errors import UserError
from tfcq.integer.lite_file import LiteFile
from tfcq.integer.runtime import LiteModel, every_tensor


@pytest.fixture(scope="module")
def content(network, images):
    return int8_tflite(network, images)


def dense(weights, dtype="int8"):
    """Returns a file of a dense layer."""
    kernel = constant(weights, np.full(len(weights), 0.05))
    kernel.dtype = dtype
    bias = constant(np.zeros(len(weights), np.int32), 1.0)
    inputs = [levels((1, weights.shape[1]), 0.1), kernel, bias]
    return single("FULLY_CONNECTED", inputs, levels((1, len(weights)), 0.2), 7)


def test_a_file_that_is_read_and_written_holds_the_same(content):
    first = LiteFile.read(content)
    second = LiteFile.read(first.to_bytes())
    for one, other in zip(first.tensors, second.tensors, strict=True):
        for field in dataclasses.fields(one):
            a, b = getattr(one, field.name), getattr(other, field.name)
            np.testing.assert_array_equal(a, b, err_msg=f"{one.name} {field.name}", strict=True)
    assert first.inputs == second.inputs and first.outputs == second.outputs
    for one, other in zip(first.operations, second.operations, strict=True):
        assert vars(one) == vars(other)


def test_a_file_that_is_read_and_written_computes_the_same(content, images):
    written = LiteFile.read(content).to_bytes()
    np.testing.assert_array_equal(LiteModel(content)(images), LiteModel(written)(images))


def test_notes_are_kept(content):
    file = LiteFile.read(content)
    file.notes = {"labels": b"cat\ndog", "any": bytes(range(256))}
    assert LiteFile.read(file.to_bytes()).notes == file.notes


def test_values_stand_at_multiples_of_sixteen_bytes():
    rng = np.random.default_rng(0)
    for outputs, width in [(3, 7), (5, 33), (1, 1001)]:
        weights = rng.integers(-127, 128, (outputs, width)).astype(np.int8)
        written = dense(weights).to_bytes()
        assert written.find(weights.tobytes()) % 16 == 0


def test_two_levels_of_four_bits_share_a_byte():
    weights = np.arange(-8, 7, dtype=np.int8).reshape(3, 5)
    file = dense(weights, "int4")
    written = file.to_bytes()
    # The first of two is the low half; the last is alone.
    assert bytes([0x98, 0xBA, 0xDC, 0xFE, 0x10, 0x32, 0x54, 0x06]) in written
    np.testing.assert_array_equal(LiteFile.read(written).tensors[1].data, weights)


def test_four_bits_compute_what_eight_do():
    weights = np.random.default_rng(0).integers(-8, 8, (6, 10)).astype(np.int8)
    images = pictures(levels((1, 10), 0.1))
    found = [
        every_tensor(dense(weights, dtype), images, "reference")[-1] for dtype in ("int8", "int4")
    ]
    np.testing.assert_array_equal(*found)


def test_a_grid_without_zero_points_has_them_at_zero():
    file = dense(np.ones((2, 4), np.int8))
    file.tensors[0].zero_points = np.zeros(0, np.int64)
    assert LiteFile.read(file.to_bytes()).tensors[0].zero_point == 0


def test_a_name_that_is_no_text_is_told_in_a_line(content):
    name = LiteFile.read(content).tensors[0].name.encode()
    with pytest.raises(UserError, match="^LiteRT cannot run the file on xnnpack kernels: [^\n]*$"):
        LiteModel(content.replace(name, b"\xff" * len(name)))


@pytest.mark.parametrize("read", [LiteFile.read, LiteModel])
def test_bytes_that_are_no_model_are_told_in_a_line(content, read):
    for foreign in (b"", b"TFL3", b"\0" * 100, b"PK\x03\x04" * 50, content[1:]):
        with pytest.raises(UserError, match=r"^The file is no TFLite model \(\d+ bytes\)") as told:
            read(foreign)
        assert "\n" not in str(told.value)


@pytest.mark.parametrize("read", [LiteFile.read, LiteModel])
def test_a_file_cut_short_is_told_in_a_line(content, read):
    rng = np.random.default_rng(0)
    lengths = [8, 12, 100, len(content) - 1000, *rng.integers(100, len(content) - 1000, 12)]
    for length in lengths:
        with pytest.raises(UserError, match="damaged or cut short") as told:
            read(content[:length])
        assert "\n" not in str(told.value)


def test_a_file_that_litert_does_not_run_is_told_in_a_line():
    file = dense(np.ones((2, 4), np.int8))
    file.operations[0].version = 99
    with pytest.raises(
        UserError, match="^LiteRT cannot [^\n]* on reference kernels: [^\n]*'99'[^\n]*$"
    ):
        LiteModel(file.to_bytes(), kernels="reference")


def test_a_file_of_two_inputs_is_told():
    file = dense(np.ones((2, 4), np.int8))
    file.inputs = [0, 0]
    with pytest.raises(UserError, match="The file has 2 inputs; allowed: one, the images"):
        LiteModel(file.to_bytes())


def test_unknown_kernels_are_told(content):
    with pytest.raises(UserError, match="Unknown kernels 'ruy'; allowed: xnnpack, optimized, ref"):
        LiteModel(content, kernels="ruy")


def test_names_of_outputs_may_have_no_number():
    file = dense(np.ones((2, 4), np.int8))
    file.tensors[-1].name = "Identity"
    assert LiteModel(file.to_bytes())(np.zeros((3, 4))).shape == (3, 2)


def test_what_cannot_be_written_is_named():
    file = dense(np.ones((2, 4), np.int8))
    file.operations[0].kind = "FlexErf"
    with pytest.raises(UserError, match="Operation FlexErf is none of TFLite's own"):
        file.to_bytes()
    file.operations[0].kind, file.operations[0].options = "ATAN2", {"speed": 1}
    with pytest.raises(UserError, match=r"The options of ATAN2 \(speed\) cannot be written"):
        file.to_bytes()


def test_four_levels_of_two_bits_share_a_byte():
    weights = np.array([[-2, -1, 0], [1, 1, 0]], np.int8)
    written = dense(weights, "int2").to_bytes()
    # The first of four stands lowest; the last two are alone.
    assert bytes([0b01_00_11_10, 0b00_01]) in written
    np.testing.assert_array_equal(LiteFile.read(written).tensors[1].data, weights)


def test_values_behind_the_rest_of_a_file_are_read(content):
    """Some tools put large buffers behind the part that offsets of 32 bits reach."""
    first = LiteFile.read(content)
    model = schema.ModelT.InitFromPackedBuf(content, 0)
    sizes = [0 if one.data is None else len(one.data) for one in model.buffers]
    place = int(np.argmax(sizes))
    data = bytes(model.buffers[place].data)
    model.buffers[place].data = None
    start = 10**6
    model.buffers[place].offset, model.buffers[place].size = start, len(data)
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
    behind = bytes(builder.Output()).ljust(start, b"\0") + data
    for one, other in zip(first.tensors, LiteFile.read(behind).tensors, strict=True):
        np.testing.assert_array_equal(one.data, other.data, err_msg=one.name)
    with pytest.raises(UserError, match="damaged or cut short"):
        LiteFile.read(behind[:-1])
