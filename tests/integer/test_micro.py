"""The kernels of microcontrollers: their outputs, what memory they need, what they lack."""

import os
import sys
import types

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema

from tfcq.deployment.tflite import int8_tflite
from tfcq.errors import UserError
from tfcq.integer.micro import MicroModel
from tfcq.integer.runtime import LiteModel

LOG = """[RecordingMicroAllocator] Arena allocation total 200 bytes
[RecordingMicroAllocator] Arena allocation head 80 bytes
[RecordingMicroAllocator] Arena allocation tail 120 bytes
[RecordingMicroAllocator] 'Persistent buffer data' used 96 bytes with alignment overhead
"""


class Fake:
    """The runtime's interface; it doubles the pixels and lacks what `lacks` names."""

    lacks: tuple[str, ...] = ()

    @classmethod
    def from_bytes(cls, content, arena_size):
        for kind in kinds(content):
            if kind in (*cls.lacks, "DELEGATE"):
                os.write(2, f"Failed to get registration from op code {kind}\n".encode())
                raise RuntimeError("TFLM failed to allocate tensors")
        return cls()

    def set_input(self, pixels, index):
        self.pixels = pixels

    def invoke(self):
        pass

    def get_output(self, index):
        return 2.0 * self.pixels.reshape(1, -1)

    def print_allocations(self):
        os.write(2, LOG.encode())


def unpacked(content):
    return schema.ModelT.InitFromPackedBuf(content, 0)


def builtin(code):
    return max(code.builtinCode, code.deprecatedBuiltinCode)


def kinds(content):
    names = {code: name for name, code in vars(schema.BuiltinOperator).items()}
    model = unpacked(content)
    (graph,) = model.subgraphs
    return [names[builtin(model.operatorCodes[one.opcodeIndex])] for one in graph.operators]


@pytest.fixture
def fake(monkeypatch):
    runtime = types.SimpleNamespace(
        Interpreter=Fake,
        schema_fb=schema,
        convert_bytearray_to_object=unpacked,
        get_builtin_code_from_operator_code=builtin,
    )
    monkeypatch.setitem(sys.modules, "tflite_micro", types.SimpleNamespace(runtime=runtime))
    monkeypatch.setattr(Fake, "lacks", ())
    return Fake


@pytest.fixture(scope="module")
def content(network, images):
    return int8_tflite(network, images)


def test_flash_and_arena_by_kind_of_allocation(fake, content):
    model = MicroModel(content)
    assert model.flash == len(content)
    arena = model.arena
    assert (arena.total, arena.persistent, arena.non_persistent) == (200, 120, 80)
    assert arena.kinds == {"Persistent buffer data": 96}


def test_pixels_are_given_as_levels(fake, content, images):
    outputs = MicroModel(content)(images[:3])
    np.testing.assert_array_equal(outputs, 2 * np.round(images[:3] * 255).reshape(3, -1))


def test_all_operations_that_the_runtime_lacks_are_named_in_one_line(fake, content, monkeypatch):
    monkeypatch.setattr(fake, "lacks", ("ADD", "CONV_2D"))
    with pytest.raises(UserError, match=r"^tflite-micro lacks CONV_2D, ADD; allowed: .*$"):
        MicroModel(content)


def test_what_else_the_runtime_refuses_is_told(fake, content, monkeypatch, capfd):
    def invoke(self):
        os.write(2, b"\nNode CONV_2D (number 3) failed\n")
        raise RuntimeError("no")

    monkeypatch.setattr(fake, "invoke", invoke)
    with pytest.raises(UserError, match=r"^tflite-micro refuses the file: Node CONV_2D \(number"):
        MicroModel(content)
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("damage", [lambda c: b"", lambda c: c[:1000], lambda c: b"TFL3" * 300])
def test_a_damaged_file_is_refused(fake, content, damage):
    with pytest.raises(UserError, match=r"^The file is (no TFLite model|damaged) .*$"):
        MicroModel(damage(content))


def test_images_of_another_shape_are_refused(fake, content, images):
    with pytest.raises(UserError, match=r"shape \[4, 8, 1\] was received; allowed: \[8, 8, 1\]"):
        MicroModel(content)(images[:, :4])


def test_a_file_of_several_images_at_once_is_refused(fake, network, images):
    with pytest.raises(UserError, match=r"takes \[4, 8, 8, 1\]; allowed: one image at once"):
        MicroModel(int8_tflite(network, images, batch=4))


def test_without_the_package_a_plain_hint(monkeypatch, content):
    monkeypatch.setitem(sys.modules, "tflite_micro", None)
    with pytest.raises(UserError, match="pip install --pre tflite-micro"):
        MicroModel(content)


def test_outputs_equal_those_of_the_reference_kernels(content, images):
    pytest.importorskip("tflite_micro", reason="tflite-micro is not installed")
    reference = LiteModel(content, kernels="reference")(images)
    np.testing.assert_array_equal(MicroModel(content)(images), reference)
