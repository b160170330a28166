"""Ctrl-C that ends a command whatever it is doing: within 5 seconds, and at once the second time.

Python raises KeyboardInterrupt between two of its own instructions, which native code that reads
data, builds a graph or computes may keep from coming for minutes. A thread therefore waits for the
signal too: where the command has not ended 4 seconds after it, the process ends.
"""

import os
import signal
import socket
import sys
import threading
import time

EXIT_CODE = 130
SECONDS = 4.0
_NAME = "interruption"
_told = threading.Lock()


def watch() -> None:
    """Lets Ctrl-C end this process in time; further calls, and other threads', change nothing."""
    main = threading.current_thread() is threading.main_thread()
    if not main or any(thread.name == _NAME for thread in threading.enumerate()):
        return
    # Standard error as it is now: it is hidden while native libraries start.
    terminal = os.dup(2)
    receiver, sender = socket.socketpair()
    sender.setblocking(False)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.set_wakeup_fd(sender.fileno(), warn_on_full_buffer=False)
    # Kept with the thread, or else the sender would be closed.
    arguments = (receiver, sender, terminal)
    threading.Thread(target=_wait, args=arguments, daemon=True, name=_NAME).start()


def tell(descriptor: int = 2) -> None:
    """Says in one line that the command was interrupted, once.

    Args:
        descriptor: file descriptor of standard error.
    """
    if _told.acquire(blocking=False):
        start = "\n" if os.isatty(descriptor) else ""
        text = f"{start}interrupted; files written so far are whole\n"
        try:
            os.write(descriptor, text.encode())
        except OSError:
            # Nobody reads it any more.
            return


def leave() -> None:
    """Ends the process of a command that was interrupted."""
    tell()
    sys.stdout.flush()
    # Not sys.exit: threads of native libraries may take long to end.
    os._exit(EXIT_CODE)


def _wait(receiver: socket.socket, _sender: socket.socket, terminal: int) -> None:
    interrupts, until = 0, None
    while until is None or time.monotonic() < until:
        receiver.settimeout(None if until is None else max(0.01, until - time.monotonic()))
        try:
            received = receiver.recv(64)
        except TimeoutError:
            continue
        interrupts += received.count(signal.SIGINT)
        if interrupts > 1:
            break
        if interrupts and until is None:
            until = time.monotonic() + SECONDS
    tell(terminal)
    os._exit(EXIT_CODE)
