"""Two replicas train as one device does."""

import pathlib

import numpy as np
import pytest

SCRIPT = pathlib.Path(__file__).with_name("mirrored_run.py")


@pytest.fixture(scope="module")
def run(script_output):
    """Returns what the script printed. Each replica gets the images of the single device."""
    return script_output(SCRIPT)


@pytest.mark.parametrize("recipe", ["float", "ssql"])
def test_each_replica_is_traced_at_most_once(run, recipe):
    assert run[recipe]["replicas"] == 2
    assert 1 <= run[recipe]["traces"] <= 2


@pytest.mark.parametrize("recipe", ["float", "ssql"])
def test_replicas_hold_the_same_weights(run, recipe):
    assert run[recipe]["between_replicas"] == 0


@pytest.mark.parametrize("recipe", ["float", "ssql"])
def test_losses_are_finite(run, recipe):
    assert np.isfinite(run[recipe]["mirrored_losses"]).all()


# Of the quantized recipe only the first step's loss compares: a channel's largest weight lies on a
# rounding tie, so that a last bit after the first update can move it by a whole level.
@pytest.mark.parametrize(("recipe", "steps"), [("float", 3), ("ssql", 1)])
def test_losses_are_those_of_one_device(run, recipe, steps):
    found, expected = run[recipe]["mirrored_losses"], run[recipe]["single_losses"]
    np.testing.assert_allclose(found[:steps], expected[:steps], atol=1e-5)


def test_weights_are_those_of_one_device(run):
    # Gradients are averaged over replicas, not summed.
    assert run["float"]["from_single"] < 1e-5


@pytest.mark.parametrize("recipe", ["float", "ssql"])
def test_replicas_agree_on_step_and_bits(run, recipe):
    assert run[recipe]["step"] == 3
    assert run[recipe]["bits"] == run[recipe]["single_bits"]
