"""Contrastive losses, queues and shuffling over two replicas are those of the global batch."""

import pathlib

import numpy as np
import pytest

SCRIPT = pathlib.Path(__file__).with_name("replicas_run.py")


@pytest.fixture(scope="module")
def run(script_output):
    """Returns what the script printed."""
    return script_output(SCRIPT)


@pytest.mark.parametrize("name", ["nt_xent", "mocov3"])
def test_loss_and_gradients_are_those_of_the_global_batch(run, name):
    found, expected = run[name], run[f"{name}_whole"]
    np.testing.assert_allclose(found["loss"], expected["loss"], rtol=1e-5)
    for side in ("to_a", "to_b"):
        np.testing.assert_allclose(found[side], expected[side], rtol=1e-3, atol=1e-6)


def test_every_replica_holds_the_keys_of_all(run):
    assert run["queue_between_replicas"] == 0
    assert run["queue_from_keys"] < 1e-6


def test_shuffled_images_cross_replicas_and_their_keys_come_back(run):
    assert run["shuffled_is_permutation"]
    assert run["crossed_replicas"]
    assert run["back"] == 0


def test_momentum_network_follows_on_every_replica_and_takes_over_learned_scales(run):
    found = run["momentum"]
    assert np.isfinite(found["loss"])
    assert found["from_followed"] < 1e-6 and found["scales_copied"]
    assert found["between_replicas"] == 0
