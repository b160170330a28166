"""The lock of a folder: one process at a time trains into it."""

import contextlib
import datetime
import fcntl
import os
import pathlib
import socket
from collections.abc import Iterator

from tfcq.errors import UserError
from tfcq.files import read_text, remove_unfinished

LOCK = "lock"


@contextlib.contextmanager
def locked(folder: str | os.PathLike, flag: str = "run_dir") -> Iterator[None]:
    """Keeps a folder to this process; the system gives it back however the process ends.

    What one that was killed while it wrote has left is removed.

    On a file system without locks that is told, and nothing is kept.

    Args:
        folder: the folder, which is made if missing.
        flag: what it was given with.

    Raises:
        UserError: when another process trains into it, naming it.
    """
    file = pathlib.Path(folder) / LOCK
    file.parent.mkdir(parents=True, exist_ok=True)
    with open(file, "a+", encoding="utf-8") as held:
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise _in_use(file, flag) from None
        except OSError as error:
            print(
                f"{folder} lies on a file system without locks ({error.strerror}): see to it that "
                "no second process trains into it.",
                flush=True,
            )
        else:
            now = datetime.datetime.now().astimezone().isoformat(" ", "seconds")
            owner = f"process {os.getpid()} on {socket.gethostname()}, since {now}\n"
            # Not by `write_text`: a new file would not be the one that is locked. A full disk takes
            # no name, but the lock.
            with contextlib.suppress(OSError):
                held.truncate(0)
                os.write(held.fileno(), owner.encode())
            remove_unfinished(folder)
        yield


def check_unlocked(folder: str | os.PathLike, flag: str = "run_dir") -> None:
    """Refuses a folder that another process trains into, without keeping or making it.

    Args:
        folder: the folder.
        flag: what it was given with.

    Raises:
        UserError: naming the process.
    """
    file = pathlib.Path(folder) / LOCK
    # What cannot be opened or locked is told by `locked`.
    with contextlib.suppress(OSError), open(file, encoding="utf-8") as held:
        try:
            fcntl.flock(held, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            raise _in_use(file, flag) from None


def _in_use(file: pathlib.Path, flag: str) -> UserError:
    owner = read_text(file).strip() or "another process"
    return UserError(
        f"{file.parent} is being trained into by {owner}; wait for its end, or give another "
        f"--{flag}."
    )
