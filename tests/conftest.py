"""Fixtures that every test may use."""

import os
import pathlib

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import pytest

REFERENCE = pathlib.Path(
    os.environ.get("TFCQ_REFERENCE_DIR", pathlib.Path(__file__).parent / "data")
)


@pytest.fixture
def reference():
    """Returns a function that reads a file of float64 reference vectors."""
    return lambda name: dict(np.load(REFERENCE / f"{name}.npz"))


@pytest.fixture
def float64():
    """Makes Keras create float64 layers for the length of a test."""
    before = keras.config.floatx()
    keras.config.set_floatx("float64")
    yield
    keras.config.set_floatx(before)
