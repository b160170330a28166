"""Run of a command: its exit code, errors in one line, the command to try next."""

import io
import os
import pathlib
import select
import shlex
import shutil
import signal
import sys
from collections.abc import Callable
from typing import Any, NoReturn

from tfcq import __version__
from tfcq.command_line.flags import Command, FlagSet
from tfcq.command_line.interruption import Terminated, exit_code, leave, watch
from tfcq.errors import TrainingStopped, UserError

USER_ERROR = 2
FAILURE = 1
# Longer words are cut in messages: paths are not.
_LONGEST_WORD = 400


def tell_next(command: str, *arguments: Any, **named: Any) -> None:
    """Prints the command to try next.

    Args:
        command: its name.
        *arguments: what it takes besides flags.
        **named: values of its flags; None to leave one out.
    """
    flags = (f"--{name}={value}" for name, value in named.items() if value is not None)
    words = [*map(str, arguments), *flags]
    print(f"Next: {_python()} -m tfcq.{command} {shlex.join(words)}")


def _python() -> str:
    """Returns the word that starts this Python: `python` where that is the one on the path."""
    own = pathlib.Path(sys.executable)
    # Not resolved: the Python of an environment is a link to one that has none of its packages.
    if shutil.which("python") == str(own):
        return "python"
    here = pathlib.Path.cwd()
    if not own.is_relative_to(here):
        return shlex.quote(str(own))
    # Without a folder in front another one would be found on the path.
    within = own.relative_to(here)
    return shlex.quote(str(within) if len(within.parts) > 1 else f"./{within}")


def _in_words(error: Exception) -> str:
    """Returns what an error says, of one of the system without its number."""
    if not isinstance(error, OSError) or error.strerror is None:
        return str(error)
    return f"{error.strerror}: {error.filename}." if error.filename else f"{error.strerror}."


def _one_line(text: str) -> str:
    """Returns a message in one line of printable characters, its longest words cut."""
    words = "".join(c if c.isprintable() or c.isspace() else ascii(c)[1:-1] for c in text).split()
    cut = (word if len(word) <= _LONGEST_WORD else f"{word[:60]}...{word[-20:]}" for word in words)
    return " ".join(cut)


def end(code: int, text: str | None = None) -> NoReturn:
    """Prints what is left to print and exits, in silence where nobody reads it any more.

    Args:
        code: the exit code; where what was printed is lost 0 becomes 141, that of SIGPIPE, or 2
            where it can be written nowhere, as to a disk that is full.
        text: printed before.
    """
    try:
        if text is not None:
            print(text)
        sys.stdout.flush()
    except OSError as error:
        # Or else Python would tell of it as it ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if not code:
            code = exit_code(signal.SIGPIPE)
            if not isinstance(error, BrokenPipeError):
                code = USER_ERROR
                print(f"error: {_in_words(error)}", file=sys.stderr)
    sys.exit(code)


def _is_read() -> bool:
    """Whether standard output has not lost its reader, as a pipe may."""
    try:
        watched = select.poll()
        watched.register(sys.stdout.fileno(), 0)
    except (OSError, ValueError, AttributeError):
        # Of no file, or on a system without `poll`.
        return True
    return not any(event & select.POLLERR for _, event in watched.poll(0))


def run(flag_set: FlagSet, main: Callable[[Command], int | None]) -> None:
    """Parses the process's arguments, runs a command and exits with its code.

    Exit codes: what `main` returns (None is 0), 1 when training had to stop, 2 on a user error, 128
    and the number of a signal that ended it: 130 of Ctrl-C, 143 of SIGTERM, 129 of SIGHUP, 141 of
    SIGPIPE where nobody reads its standard output any more.

    Args:
        flag_set: the command's flags.
        main: takes the parsed command line.
    """
    watch()
    # Of what a terminal cannot show, such as a file name that is no text, its number is shown.
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        if flag_set.examples and not sys.argv[1:]:
            usage = "\n    ".join((flag_set.usage, *flag_set.examples))
            end(USER_ERROR, f"{usage}\n--help lists all flags.")
        command = flag_set.parse(sys.argv[1:])
        if command.values["help"]:
            end(0, flag_set.help_text())
        if command.values["version"]:
            end(0, f"tfcq {__version__}")
        end(main(command) or 0)
    except (UserError, OSError) as error:
        if isinstance(error, BrokenPipeError) and not _is_read():
            end(exit_code(signal.SIGPIPE))
        print(f"error: {_one_line(_in_words(error))}", file=sys.stderr)
        end(USER_ERROR)
    except TrainingStopped as error:
        print(f"stopped: {_one_line(str(error))}", file=sys.stderr)
        end(FAILURE)
    except (KeyboardInterrupt, Terminated) as ended:
        leave(ended)
