"""Fixtures that every test may use."""

import contextlib
import json
import os
import pathlib
import signal
import subprocess
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import pytest

# Started under nohup, tests and the processes that they start would ignore it.
signal.signal(signal.SIGHUP, signal.SIG_DFL)
REFERENCE = pathlib.Path(
    os.environ.get("TFCQ_REFERENCE_DIR", pathlib.Path(__file__).parent / "reference")
)
REPOSITORY = pathlib.Path(__file__).parents[1]


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup():
    """Seeds what a test draws without a seed of its own, so that it always draws the same."""
    keras.utils.set_random_seed(0)


@pytest.fixture(scope="session")
def reference():
    """Returns a function that reads a file of float64 reference vectors."""
    return lambda name: dict(np.load(REFERENCE / f"{name}.npz"))


@pytest.fixture(scope="session")
def floatx():
    """Returns a context manager that makes Keras create layers of a dtype for a while."""

    @contextlib.contextmanager
    def changed(dtype: str):
        before = keras.config.floatx(), keras.config.dtype_policy()
        keras.config.set_floatx(dtype)
        # Once any test has set a policy, layers follow it instead.
        keras.config.set_dtype_policy(dtype)
        try:
            yield
        finally:
            keras.config.set_floatx(before[0])
            keras.config.set_dtype_policy(before[1])

    return changed


@pytest.fixture
def float64(floatx):
    """Makes Keras create float64 layers for the length of a test."""
    with floatx("float64"):
        yield


@pytest.fixture
def dtype_policy():
    """Returns a function that sets Keras's global dtype policy for the length of a test."""
    before = keras.config.dtype_policy()
    yield keras.config.set_dtype_policy
    keras.config.set_dtype_policy(before)


@pytest.fixture(scope="session")
def script_output():
    """Returns a function that runs a script in a process of its own and reads the JSON it prints.

    For what must be set before TensorFlow starts, or cannot be taken back.
    """

    def run(script: pathlib.Path, **environment: str):
        ended = subprocess.run(
            [sys.executable, script], capture_output=True, text=True, check=False,
            env={**os.environ, "PYTHONPATH": str(REPOSITORY), **environment},
        )  # fmt: skip
        assert ended.returncode == 0, ended.stderr[-3000:]
        return json.loads(ended.stdout.splitlines()[-1])

    return run
