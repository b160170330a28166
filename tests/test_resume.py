"""A run that is killed and started again is the run that was not interrupted."""

import pathlib
import signal
import subprocess
import sys

import numpy as np

from tfcq.settings.run_folder import RunFolder
from tfcq.settings.training import config_from_flat

EPOCHS = 4
# Killed in the third epoch, when two are saved and its second step of four is done.
KILLED_AT = 10
KILL = f"""
import os, signal
from tfcq import command_line, train

def started(*arguments, start=command_line.flags.quiet_start_up):
    start(*arguments)
    from tfcq.training.history import Progress

    step = Progress.on_train_batch_end

    def step_or_die(self, batch, logs=None):
        step(self, batch, logs)
        if self.done == {KILLED_AT}:
            os.kill(os.getpid(), signal.SIGKILL)

    Progress.on_train_batch_end = step_or_die

command_line.flags.quiet_start_up = started
command_line.run(train.flag_set(), train.main)
"""


def _start(run_dir: pathlib.Path, *program: str) -> subprocess.Popen:
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
    command = [sys.executable, *(program or ("-m", "tfcq.train")), *flags]
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


def test_killed_run_goes_on_in_the_middle_and_ends_with_bit_identical_weights(tmp_path):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    first, second = _start(whole), _start(killed, "-c", KILL)
    second.communicate(timeout=300)
    assert second.returncode == -signal.SIGKILL
    assert not (killed / "backbone.keras").exists()
    assert _epochs(killed) == ["1", "2"]
    resumed, uninterrupted = _finish(_start(killed)), _finish(first)
    assert f"epochs 2 to {EPOCHS}" in resumed and "interruptions: 1\n" in resumed
    assert f"epochs 0 to {EPOCHS}" in uninterrupted and "interruptions: 0\n" in uninterrupted
    assert "Trained: 448 images" in resumed
    for ours, theirs in zip(_weights(killed), _weights(whole), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert _epochs(killed) == _epochs(whole) == [str(i + 1) for i in range(EPOCHS)]


def test_run_that_has_ended_says_so_and_keeps_its_backbone(tmp_path, monkeypatch, capsys):
    from tfcq.pretraining import run
    from tfcq.training.checkpoints import RunCheckpoints

    small = {"train_images": 64, "backbone": "cifar_resnet8", "width": 2, "batch_size": 32}
    config, folder = config_from_flat({**small, "epochs": 2}), RunFolder(tmp_path)
    folder.begin(config)
    folder.backbone.write_text("trained")

    def restore_newest(self, witnesses):
        self.done = 4

    monkeypatch.setattr(RunCheckpoints, "restore_newest", restore_newest)
    run.train(config, folder)
    assert "all 2 epochs are trained" in capsys.readouterr().out
    assert folder.backbone.read_text() == "trained"
