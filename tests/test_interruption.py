"""Ctrl-C ends a command whatever it is doing, with one line and exit code 130."""

import os
import pathlib
import signal
import subprocess
import sys

import pytest

from tfcq import interruption

ROOT = pathlib.Path(__file__).parent.parent
LINE = "interrupted; files written so far are whole\n"
# What a command does when Ctrl-C comes, and how often it has to.
DOING = {
    "waiting in Python": ("time.sleep(600)", 1),
    "ignoring it": ("interruption.SECONDS = 0.2\nwhile True:\n    ignore(time.sleep, 600)", 1),
    # Native code, which no exception ends.
    "computing": ("interruption.SECONDS = 0.2\nhashlib.pbkdf2_hmac(*hashed)", 1),
    "computing, and it comes twice": ("hashlib.pbkdf2_hmac(*hashed)", 2),
    "hiding messages": (
        "with native_messages.hidden():\n    os.write(2, b'x')\n    time.sleep(600)",
        1,
    ),
}
PROGRAM = """
import hashlib, os, sys, time
from tfcq import command_line, interruption, native_messages
hashed = "sha256", b"x", b"x", 10**9

def ignore(function, *arguments):
    try:
        function(*arguments)
    except KeyboardInterrupt:
        pass

def main(command):
    print("begun", flush=True)
    exec(sys.argv.pop())

sys.argv.insert(1, "--seed=1")
doing, sys.argv[2:] = sys.argv[2], []
flags = command_line.FlagSet("Waits.")
flags.add("General", "seed", int, 0, "a number")
def begin(command):
    sys.argv.append(doing)
    main(command)
command_line.run(flags, begin)
"""


@pytest.mark.parametrize(("doing", "times"), DOING.values(), ids=DOING)
def test_command_ends_with_one_line(doing, times):
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, doing], text=True, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert process.stdout.readline() == "begun\n"
    for _ in range(times):
        process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=120)
    assert (process.returncode, errors) == (interruption.EXIT_CODE, LINE)
