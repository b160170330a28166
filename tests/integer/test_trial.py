"""A file that ends LiteRT's process is told by its operation, and any other is left to run."""

import numpy as np
import pytest

from tests.integer.lite_files import chain, constant, levels, real
from tfcq.errors import UserError
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
        check_runs(softmax(1.4e-8), "my.tflite", KERNELS)
    check_runs(softmax(1.4e-8), "my.tflite", ["xnnpack", "optimized"])
    check_runs(softmax(1.6e-8), "my.tflite", KERNELS)


def test_what_litert_refuses_in_words_is_left_to_who_runs_it():
    source = real((1, 4))
    check_runs(chain(source, ("ELU", [source], [real((1, 4))], {}, 1)), "my.tflite", KERNELS)
