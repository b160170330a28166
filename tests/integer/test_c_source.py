"""A model as a C array: its bytes, alignment, constants and labels, as a compiler sees them."""

import re
import shutil
import subprocess

import numpy as np
import pytest

from tfcq.deployment.tflite import float_tflite, int8_tflite
from tfcq.errors import UserError
from tfcq.integer.c_source import c_array
from tfcq.integer.lite_file import LiteFile

LABELS = ["cat", 'a "dog"\\', "Straße", "what??!", "1\n2"]
MAIN = r"""
#include <stdint.h>
#include <stdio.h>
#include "net.h"
int main(void) {
  unsigned long sum = 0;
  for (int i = 0; i < NET_BYTES; ++i) sum = (sum * 31 + net[i]) % 1000003;
  printf("%lu %d %.9e %d %.9e %d\n", sum, (int)((uintptr_t)net % 16), NET_INPUT_SCALE,
         NET_INPUT_ZERO_POINT, NET_OUTPUT_SCALE, NET_OUTPUT_ZERO_POINT);
  for (int i = 0; i < NET_LABELS; ++i) printf("%s%c", net_labels[i], 0);
  return 0;
}
"""


@pytest.fixture(scope="module")
def content(network, images):
    return int8_tflite(network, images)


def widened(labels, content):
    """Returns as many labels as the model has scores."""
    file = LiteFile.read(content)
    count = file.tensors[file.outputs[0]].shape[-1]
    return [*labels, *map(str, range(count - len(labels)))]


@pytest.mark.parametrize(("compiler", "ending"), [("gcc", "c"), ("g++", "cc")])
def test_a_compiler_reads_the_same_bytes_scales_and_labels(content, tmp_path, compiler, ending):
    if shutil.which(compiler) is None:
        pytest.skip(f"{compiler} is not installed")
    labels = widened(LABELS, content)
    source, header = c_array(content, "net", labels)
    files = {f"net.{ending}": source, "net.h": header, f"main.{ending}": MAIN}
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    standard = "-std=c11" if ending == "c" else "-std=c++17"
    command = [compiler, standard, "-Wall", "-Wextra", "-Werror", "-trigraphs", "-o", "net"]
    subprocess.run(
        [*command, f"net.{ending}", f"main.{ending}"], cwd=tmp_path, check=True, text=True
    )
    told = subprocess.run([tmp_path / "net"], capture_output=True, check=True).stdout.decode()
    first, _, texts = told.partition("\n")
    total = 0
    for byte in content:
        total = (total * 31 + byte) % 1000003
    file = LiteFile.read(content)
    (taken,), scores = file.inputs, file.tensors[file.operations[-1].inputs[0]]
    found = first.split()
    assert [int(found[0]), int(found[1])] == [total, 0]
    assert np.float32(found[2]) == file.tensors[taken].scale
    assert int(found[3]) == 0
    assert np.float32(found[4]) == scores.scale
    assert int(found[5]) == scores.zero_point
    assert texts.split("\0")[:-1] == labels


def test_the_array_is_the_file(content):
    source, header = c_array(content, "net")
    inside = re.search(r"\{\n(.*)\n\};", source, re.DOTALL)
    assert bytes(int(v) for v in re.findall(r"\d+", inside[1])) == content
    assert "labels" not in header and "labels" not in source
    assert "// uint8 [1, 8, 8, 1]\n#define NET_INPUT_VALUES 64\n" in header


def test_a_float_model_has_no_scales(network):
    header = c_array(float_tflite(network), "net")[1]
    assert "SCALE" not in header and "NET_OUTPUT_VALUES" in header


@pytest.mark.parametrize(
    ("name", "near"),
    [("my-net", "my_net"), ("2d", "model_2d"), ("int", "model_int"), ("", "model"),
     ("class", "model_class"), ("é", "model__"), ("_x", "model__x"), ("a b", "a_b")],
)  # fmt: skip
def test_what_is_no_name_in_c_is_refused_with_the_nearest_that_is(content, name, near):
    with pytest.raises(UserError, match=f"such as {near!r}"):
        c_array(content, name)
    c_array(content, near)


def test_other_than_one_label_a_score_are_refused(content):
    with pytest.raises(UserError, match="^2 labels were received; allowed: "):
        c_array(content, "net", ["a", "b"])


def test_what_is_no_model_is_refused():
    with pytest.raises(UserError, match="no TFLite model"):
        c_array(b"x" * 100, "net")
