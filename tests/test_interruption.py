"""Signals end a command whatever it is doing, with one line and an exit code of their own."""

import os
import pathlib
import signal
import subprocess
import sys

import pytest

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
from tfcq import command_line, native_messages
from tfcq.command_line import interruption
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


def started(doing):
    """Returns the process of a command that has begun."""
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, doing], text=True, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert process.stdout.readline() == "begun\n"
    return process


READY = "print('ready', flush=True)\n"
SAVES = f"""
with interruption.noted(lambda: True) as came:
    interruption.SECONDS = 0.1
    {READY}
    while not came:
        time.sleep(0.1)
    time.sleep(0.5)
    raise interruption.Terminated(came[0], "saved")
"""
# An exception in there is told by Python and forgotten.
DELETES = f"""
class Held:
    def __del__(self):
        {READY.strip()}
        time.sleep(600)

Held()
time.sleep(600)
"""
IDLE = f"with interruption.noted(lambda: False):\n    {READY}\n    time.sleep(600)"


@pytest.mark.parametrize(
    ("doing", "number", "told"),
    [
        (f"{READY}time.sleep(600)", signal.SIGTERM, "files written so far are whole"),
        (f"{READY}hashlib.pbkdf2_hmac(*hashed)", signal.SIGHUP, "files written so far are whole"),
        (DELETES, signal.SIGTERM, "files written so far are whole"),
        (SAVES, signal.SIGTERM, "saved"),
        (IDLE, signal.SIGHUP, "files written so far are whole"),
    ],
    ids=["waiting", "computing", "ending an object", "saving", "with nothing to save"],
)
def test_schedulers_end_a_command_with_the_code_they_expect(doing, number, told):
    process = started(doing)
    assert process.stdout.readline() == "ready\n"
    process.send_signal(number)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == {signal.SIGTERM: 143, signal.SIGHUP: 129}[number]
    assert errors == f"ended by {number.name}; {told}\n"


def test_command_under_nohup_outlives_its_terminal():
    # A process inherits what is ignored.
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    process = started("time.sleep(1)")
    signal.signal(signal.SIGHUP, before)
    process.send_signal(signal.SIGHUP)
    assert process.communicate(timeout=120)[1] == "" and process.returncode == 0


@pytest.mark.parametrize(("doing", "times"), DOING.values(), ids=DOING)
def test_command_ends_with_one_line(doing, times):
    process = started(doing)
    for _ in range(times):
        process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=120)
    assert (process.returncode, errors) == (130, LINE)
