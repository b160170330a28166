"""Every tool starts and explains itself."""

import os
import pathlib
import runpy
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parent.parent
PYTHON_TOOLS = [
    path.name for path in sorted((ROOT / "tools").iterdir())
    if path.is_file() and "python" in path.read_text().splitlines()[0]
]  # fmt: skip


@pytest.mark.parametrize("name", PYTHON_TOOLS)
def test_tool_tells_its_options(name, capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", [name, "--help"])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(ROOT / "tools" / name), run_name="__main__")
    assert ended.value.code == 0
    assert "--help" in capsys.readouterr().out


def test_tool_starts_in_a_process_of_its_own():
    ended = subprocess.run(
        [sys.executable, ROOT / "tools" / "evidence", "--help"], capture_output=True, text=True,
        check=False, env={**os.environ, "PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "3"},
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr[-2000:]
    assert "--seeds" in ended.stdout
