"""Two replicas train as one device does with the same global batch."""

import pathlib

import numpy as np
import pytest

SCRIPT = pathlib.Path(__file__).with_name("mirrored_run.py")
CASES = ("float", "mocov3_ssql", "simclr_cq_c", "byol_cq_c")


@pytest.fixture(scope="module")
def run(script_output):
    """Returns what the script printed. Each replica gets other images."""
    return script_output(SCRIPT)


@pytest.mark.parametrize("case", ["float", "mocov3_ssql"])
def test_each_replica_is_traced_at_most_once(run, case):
    assert run[case]["replicas"] == 2
    assert 1 <= run[case]["traces"] <= 2


@pytest.mark.parametrize("case", CASES)
def test_replicas_hold_the_same_weights(run, case):
    assert run[case]["between_replicas"] == 0


@pytest.mark.parametrize("case", CASES)
def test_loss_and_spread_are_those_of_one_device(run, case):
    for single, mirrored in run[case]["figures"].values():
        np.testing.assert_allclose(mirrored, single, rtol=1e-5)


@pytest.mark.parametrize("case", CASES)
def test_weights_are_those_of_one_device(run, case):
    # Of the distance that they moved; gradients are averaged over replicas, not summed.
    assert run[case]["apart"] < 1e-9


def test_a_step_that_overflows_on_one_replica_is_skipped_on_all(run):
    assert run["after_infinity"] == [1.0, 2.0]


def test_local_ranges_train_otherwise(run):
    assert run["local_ranges"]["between_replicas"] == 0
    assert run["local_ranges"]["apart"] > 1e-2


@pytest.mark.parametrize("case", CASES)
def test_replicas_agree_on_step_and_bits(run, case):
    assert run[case]["step"] == (3 if case == "float" else 1)
    assert run[case]["bits"] == run[case]["single_bits"]
