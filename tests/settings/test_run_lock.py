"""One process at a time trains into a folder."""

import fcntl
import os
import re
import signal
import socket
import subprocess
import sys

import pytest

from tfcq.errors import UserError
from tfcq.settings.run_folder import RunFolder
from tfcq.settings.run_lock import locked
from tfcq.settings.training import Config

HOLDS = """
import sys, time
from tfcq.settings.run_lock import locked

with locked(sys.argv[1]):
    print("held", flush=True)
    time.sleep(600)
"""


def test_second_process_is_refused_until_the_first_has_died(tmp_path):
    folder = tmp_path / "run [1]"
    first = subprocess.Popen(
        [sys.executable, "-c", HOLDS, folder], text=True, stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )  # fmt: skip
    try:
        assert first.stdout.readline() == "held\n"
        told = re.escape(f"by process {first.pid} on {socket.gethostname()}, since 20")
        with pytest.raises(UserError, match=rf"{told}.*; wait .* another --output_dir\.$"):
            locked(folder, "output_dir").__enter__()
    finally:
        first.send_signal(signal.SIGKILL)
        first.wait()
    for _ in range(2):
        with locked(folder):
            assert f"process {os.getpid()} on" in (folder / "lock").read_text()
        assert len((folder / "lock").read_text().splitlines()) == 1
    # What the lock left is no reason to refuse the run that it was for.
    RunFolder(folder).check(Config())


def test_what_a_killed_process_had_not_written_whole_neither_stays_nor_stops_the_next(tmp_path):
    killed = """
import os, signal, sys
from tfcq.files import whole_file
from tfcq.settings.run_lock import locked

with locked(sys.argv[1]), whole_file(sys.argv[1] + "/config.json"):
    os.kill(os.getpid(), signal.SIGKILL)
"""
    folder, own = tmp_path / "run", tmp_path / "run" / ".keep"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run([sys.executable, "-c", killed, folder], env=environment, check=False)
    assert len(list(folder.iterdir())) == 2
    RunFolder(folder).check(Config())
    own.touch()
    with locked(folder):
        assert sorted(folder.iterdir()) == [own, folder / "lock"]


def test_file_system_without_locks_is_told_and_taken(tmp_path, monkeypatch, capsys):
    def flock(file, operation):
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr(fcntl, "flock", flock)
    with locked(tmp_path):
        told = capsys.readouterr().out
    assert told.startswith(f"{tmp_path} lies on a file system without locks (Function not impl")
