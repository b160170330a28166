"""Signals that end a command whatever it is doing: Ctrl-C, SIGTERM and SIGHUP.

Python raises an exception between two of its own instructions, which native code that reads
data, builds a graph or computes may keep from coming for minutes. A thread therefore waits for the
signal too: where the command has not ended 4 seconds after it, or Ctrl-C comes a second time, the
process ends. A command that has work to save takes SIGTERM and SIGHUP as a request, see `noted`.
"""

import contextlib
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

SECONDS = 4.0
# What ends jobs: schedulers and terminals that close.
REQUESTS = (signal.SIGTERM, signal.SIGHUP)
_WHOLE = "files written so far are whole"
_NAME = "interruption"
_told = threading.Lock()
_has_work: list[Callable[[], bool]] = []


class Terminated(BaseException):
    """SIGTERM or SIGHUP ends the command.

    Args:
        number: of the signal.
        told: what became of the work.
    """

    def __init__(self, number: int, told: str = _WHOLE) -> None:
        super().__init__(number, told)
        self.number, self.told = number, told


def exit_code(number: int) -> int:
    """Returns the exit code of a command that a signal ended, as shells have it: 128 + number.

    Args:
        number: of the signal: 130 of Ctrl-C, 143 of SIGTERM, 129 of SIGHUP.
    """
    return 128 + number


def watch() -> None:
    """Lets signals end this process in time; further calls, and other threads', change nothing."""
    main = threading.current_thread() is threading.main_thread()
    if not main or any(thread.name == _NAME for thread in threading.enumerate()):
        return
    # Standard error as it is now: it is hidden while native libraries start.
    terminal = os.dup(2)
    receiver, sender = socket.socketpair()
    sender.setblocking(False)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    _handle(_raise)
    told_before = sys.unraisablehook

    def unraisable(raised: Any) -> None:
        # In a `__del__` or a callback of native code an exception ends nothing.
        if isinstance(raised.exc_value, (KeyboardInterrupt, Terminated)):
            leave(raised.exc_value)
        told_before(raised)

    sys.unraisablehook = unraisable
    signal.set_wakeup_fd(sender.fileno(), warn_on_full_buffer=False)
    # Kept with the thread, or else the sender would be closed.
    arguments = (receiver, sender, terminal)
    threading.Thread(target=_wait, args=arguments, daemon=True, name=_NAME).start()


@contextlib.contextmanager
def noted(has_work: Callable[[], bool]) -> Iterator[list[int]]:
    """Within, SIGTERM and SIGHUP are noted while there is work to save, which then ends by itself.

    Args:
        has_work: whether there is; otherwise such a signal raises `Terminated` as ever.

    Returns:
        The numbers of the signals that came.
    """
    came: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield came
        return

    def note(number: int, frame: Any) -> None:
        came.append(number)
        if not has_work():
            raise Terminated(number)

    before = _handle(note)
    _has_work.append(has_work)
    try:
        yield came
    finally:
        _has_work.pop()
        for number, handler in before.items():
            signal.signal(number, handler)


def tell(number: int = signal.SIGINT, told: str = _WHOLE, descriptor: int = 2) -> None:
    """Says in one line that the command was ended, once.

    Args:
        number: of the signal.
        told: what became of the work.
        descriptor: file descriptor of standard error.
    """
    if _told.acquire(blocking=False):
        start = "\n" if os.isatty(descriptor) else ""
        name = signal.Signals(number).name
        ended = "interrupted" if number == signal.SIGINT else f"ended by {name}"
        # Perhaps nobody reads it any more.
        with contextlib.suppress(OSError):
            os.write(descriptor, f"{start}{ended}; {told}\n".encode())


def leave(ended: KeyboardInterrupt | Terminated) -> None:
    """Ends the process of a command that a signal ended.

    Args:
        ended: what it raised.
    """
    number, told = signal.SIGINT.value, _WHOLE
    if isinstance(ended, Terminated):
        number, told = ended.number, ended.told
    tell(number, told)
    with contextlib.suppress(OSError):
        sys.stdout.flush()
    # Not sys.exit: threads of native libraries may take long to end.
    os._exit(exit_code(number))


def _raise(number: int, frame: Any) -> None:
    raise Terminated(number)


def _handle(handler: Callable[[int, Any], None]) -> dict[int, Any]:
    """Sets the handler of requests, but of those that are ignored, as under nohup."""
    found: dict[int, Any] = {number: signal.getsignal(number) for number in REQUESTS}
    before = {n: one for n, one in found.items() if one not in (signal.SIG_IGN, None)}
    for number in before:
        signal.signal(number, handler)
    return before


def _wait(receiver: socket.socket, _sender: socket.socket, terminal: int) -> None:
    interrupts, until, ending = 0, None, signal.SIGINT.value
    while until is None or time.monotonic() < until:
        receiver.settimeout(None if until is None else max(0.01, until - time.monotonic()))
        try:
            received = receiver.recv(64)
        except TimeoutError:
            continue
        interrupts += received.count(signal.SIGINT)
        if interrupts > 1:
            ending = signal.SIGINT.value
            break
        requests = [number for number in REQUESTS if number in received]
        # Work to save may take longer, and ends by itself.
        if requests and any(has_work() for has_work in _has_work):
            requests = []
        if until is None and (interrupts or requests):
            ending = requests[0].value if requests else ending
            until = time.monotonic() + SECONDS
    tell(ending, descriptor=terminal)
    os._exit(exit_code(ending))
