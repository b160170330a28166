"""Two replicas train as one device does."""

import json
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest

SCRIPT = pathlib.Path(__file__).with_name("mirrored_run.py")


@pytest.fixture(scope="module")
def run():
    """Returns what the script printed. Each replica gets the images of the single device."""
    ended = subprocess.run(
        [sys.executable, SCRIPT], capture_output=True, text=True, check=False,
        env={**os.environ, "PYTHONPATH": str(SCRIPT.parents[2])},
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr[-3000:]
    return json.loads(ended.stdout.splitlines()[-1])


def test_each_replica_is_traced_at_most_once(run):
    assert run["replicas"] == 2
    assert 1 <= run["traces"] <= 2


def test_replicas_hold_the_same_weights(run):
    assert run["between_replicas"] == 0


def test_losses_are_finite_and_those_of_one_device(run):
    assert np.isfinite(run["mirrored_losses"]).all()
    np.testing.assert_allclose(run["mirrored_losses"], run["single_losses"], atol=1e-4)


def test_weights_are_those_of_one_device(run):
    # Gradients are averaged over replicas, not summed.
    assert run["from_single"] < 1e-4


def test_replicas_agree_on_step_and_bits(run):
    assert run["step"] == 3
    assert run["bits"] == run["single_bits"]
