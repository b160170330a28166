"""A file that ends LiteRT's process is told by its operation, and any other is left to run."""

import numpy as np
import pytest

from tests.integer.lite_files import chain, constant, levels, real
from tfcq.errors import UserError
from tfcq.integer import trial
from tfcq.integer.trial import check_runs
from tfcq.settings.kernels import KERNELS


def softmax(scale):
    source, inner = levels((1, 4), scale), levels((1, 4), scale, name="inner")
    return chain(
        source,
        ("ADD", [source, constant(np.ones((1, 4), np.int8), scale)], [inner], {}, 2),
        ("SOFTMAX", [inner], [levels((1, 4), 1 / 256, -128, name="shares")], {"beta": 1.0}, 2),
    )


def test_kernels_and_operation_that_end_the_process_are_named():
    # Reference kernels need a scale above 2^-26.
    with pytest.raises(
        UserError,
        match=r"LiteRT's reference kernels end the process that runs my\.tflite, at 'shares' "
        r"\(SOFTMAX, whose inputs have the scale 1.4e-08\)",
    ):
        check_runs(softmax(1.4e-8).to_bytes(), "my.tflite", KERNELS)
    check_runs(softmax(1.4e-8).to_bytes(), "my.tflite", ["xnnpack", "optimized"])
    check_runs(softmax(1.6e-8).to_bytes(), "my.tflite", KERNELS)


def test_what_litert_refuses_in_words_is_left_to_who_runs_it():
    source = real((1, 4))
    file = chain(source, ("ELU", [source], [real((1, 4))], {}, 1))
    check_runs(file.to_bytes(), "my.tflite", KERNELS)


def test_the_file_itself_is_run_even_where_it_could_not_be_written_again(tmp_path, monkeypatch):
    seen = tmp_path / "seen"
    monkeypatch.setattr(trial, "_CHILD", "import sys; open(" + repr(str(seen)) + ", 'ab').write("
                        "open(sys.argv[1] + '/whole', 'rb').read())")  # fmt: skip
    check_runs(b"no file that we write", "my.tflite", KERNELS)
    assert seen.read_bytes() == b"no file that we write"
    seen.unlink()
    check_runs(b"no file that we write", "my.tflite", [])
    assert not seen.exists()


@pytest.mark.parametrize(
    ("child", "told"),
    [
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", "code -9: no word"),
        ("print('BUILTIN:whole', flush=True); import os; os.kill(os.getpid(), 9)", "code -9: no"),
        ("raise ImportError('no runtime')", "code 1: ImportError: no runtime"),
        ("import os; os.abort()", "code -6"),
    ],
)
def test_a_process_that_ends_for_other_reasons_is_no_verdict_on_the_file(child, told, monkeypatch):
    monkeypatch.setattr(trial, "_CHILD", child)
    with pytest.raises(UserError, match=f"LiteRT's own process ended with {told}"):
        check_runs(softmax(1.6e-8).to_bytes(), "my.tflite", KERNELS)
