"""A run that is killed and started again is the run that was not interrupted."""

import pathlib
import signal
import subprocess
import sys
import time

import numpy as np

EPOCHS = 4


def _start(run_dir: pathlib.Path) -> subprocess.Popen:
    flags = [
        "--dataset=digits",
        "--train_images=128",
        "--backbone=cifar_resnet8",
        "--width=2",
        "--projection_width=8",
        "--predictor_width=8",
        "--batch_size=32",
        # Three epochs of four steps and a last one of two.
        "--duration=14steps",
        "--deterministic",
        "--seed=3",
        f"--run_dir={run_dir}",
    ]
    command = [sys.executable, "-m", "tfcq.train", *flags]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def _finish(process: subprocess.Popen) -> str:
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output
    return output


def _weights(run_dir: pathlib.Path) -> list[np.ndarray]:
    import tfcq

    return tfcq.load(run_dir / "backbone.keras").get_weights()


def _epochs(run_dir: pathlib.Path) -> list[str]:
    return [line.split(",")[0] for line in (run_dir / "history.csv").read_text().splitlines()[1:]]


def test_killed_run_ends_with_bit_identical_weights(tmp_path):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    first, second = _start(whole), _start(killed)
    deadline = time.monotonic() + 300
    # Killed once a first epoch is saved, while a later one is being trained.
    while not list((killed / "checkpoints").glob("ckpt-1.index")):
        assert second.poll() is None and time.monotonic() < deadline
        time.sleep(0.005)
    second.send_signal(signal.SIGKILL)
    second.wait()
    assert not (killed / "backbone.keras").exists()
    assert 1 <= len(_epochs(killed)) < EPOCHS
    _finish(_start(killed))
    _finish(first)
    for ours, theirs in zip(_weights(killed), _weights(whole), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert _epochs(killed) == _epochs(whole) == [str(i + 1) for i in range(EPOCHS)]
    before = (whole / "backbone.keras").read_bytes()
    assert f"all {EPOCHS} epochs are trained" in _finish(_start(whole))
    assert (whole / "backbone.keras").read_bytes() == before
