"""Training that was made deterministic repeats to the last bit."""

import pathlib

SCRIPT = pathlib.Path(__file__).with_name("determinism_run.py")


def test_runs_with_the_same_seed_end_with_the_same_bits(script_output):
    assert all(script_output(SCRIPT, TF_ENABLE_ONEDNN_OPTS="0")["equal_to_first"])
