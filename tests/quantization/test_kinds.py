"""The table of quantizers: what a line of it says, and that a line is all that a file needs."""

import inspect
import pathlib
import shutil

import keras
import pytest

import tfcq
from tfcq.quantization.kinds import ACTIVATION_QUANTIZERS, WEIGHT_QUANTIZERS
from tfcq.quantization.quantizer import Quantizer
from tfcq.quantization.stored_scale import StoredScaleWeightQuantizer
from tfcq.settings.policies import QUANTIZERS

SCRIPT = pathlib.Path(__file__).with_name("new_quantizer_run.py")
FILE = """
import keras
import tensorflow as tf

from tfcq.quantization.quantizer import Quantizer


@keras.saving.register_keras_serializable("tfcq")
class BinaryQuantizer(Quantizer):
    def quantize(self, tensor, request):
        return tf.sign(tensor) / 2 ** (request.bits - 1)
"""
LINE = '    "binary": QuantizerKind("binary", "BinaryQuantizer", "BinaryQuantizer"),\n'


def test_a_new_quantizer_is_one_file_and_one_line(tmp_path, script_output):
    package = tmp_path / "tfcq"
    shutil.copytree(pathlib.Path(tfcq.__file__).parent, package)
    (package / "quantization/binary.py").write_text(FILE)
    table = package / "settings/policies.py"
    before, last, after = table.read_text().partition('    "dorefa": QuantizerKind(')
    table.write_text(before + LINE + last + after)
    found = script_output(SCRIPT, PYTHONPATH=str(tmp_path))
    # The policy's 8 bits of the first layer.
    values = [-(2**-7), 2**-7]
    assert (found.pop("kernel"), found.pop("activations")) == (values, values)
    assert found == {"differs": True, "stored": True, "loaded": True}


CLASSES = {*WEIGHT_QUANTIZERS.values(), *ACTIVATION_QUANTIZERS.values(), StoredScaleWeightQuantizer}


@pytest.mark.parametrize("kind", sorted(CLASSES, key=lambda kind: kind.__name__))
def test_every_quantizer_is_registered_and_has_the_call_of_all(kind):
    assert keras.saving.get_registered_object(f"tfcq>{kind.__name__}") is kind
    assert kind.__call__ is Quantizer.__call__
    assert kind.build is Quantizer.build
    assert list(inspect.signature(kind.quantize).parameters) == ["self", "tensor", "request"]


@pytest.mark.parametrize("name", QUANTIZERS)
def test_a_line_names_the_weight_that_a_kind_learns(name):
    for kinds, axes in ((WEIGHT_QUANTIZERS, [0]), (ACTIVATION_QUANTIZERS, None)):
        if name not in kinds:
            continue
        learned = kinds[name]().build(keras.layers.Layer(), (3, 2), axes)
        assert getattr(learned, "name", None) == QUANTIZERS[name].scale
        assert kinds[name].learns_scale == (learned is not None)
