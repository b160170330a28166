"""Files that appear whole or not at all."""

import contextlib
import errno
import fcntl
import os
import pathlib
import re
import shutil
import tempfile
from collections.abc import Iterator

from tfcq.errors import UserError

# Disks that are full, shared out, read-only or broken, and files that are too large for them.
TAKES_NO_MORE = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.EFBIG}
# What begins the names of folders in which files are being written.
UNFINISHED = ".tfcq-"
# A scheme, also as `pathlib` has it; one letter is a drive.
_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")


@contextlib.contextmanager
def whole_file(path: str | os.PathLike) -> Iterator[pathlib.Path]:
    """Gives a path to write to, which takes its final name once the block ends without an error.

    Args:
        path: the final path; its folder is made if missing.

    Raises:
        UserError: when a folder stands there, or the disk takes no more.
    """
    path = pathlib.Path(path)
    if path.is_dir():
        raise UserError(f"{path} cannot be written: a folder stands there; move it away.")
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        # In a folder of its own: what looks for files of its kind must not find it half written.
        with _unfinished(path.parent) as made:
            temporary = made / path.name
            yield temporary
            # Or else a crash of the system could leave the name without the content.
            _sync(temporary)
            os.replace(temporary, path)
            _sync(path.parent)
    except OSError as error:
        _tell_full(path, error)
        raise


@contextlib.contextmanager
def _unfinished(folder: pathlib.Path) -> Iterator[pathlib.Path]:
    """Gives a folder for what is being written; its lock ends with the process."""
    made, held = _held(folder)
    try:
        yield made
    finally:
        # Unlocked, another process could take it for left over and be faster.
        shutil.rmtree(made)
        os.close(held)


def _held(folder: pathlib.Path) -> tuple[pathlib.Path, int]:
    """Makes a folder and takes its lock."""
    while True:
        made = pathlib.Path(tempfile.mkdtemp(dir=folder, prefix=UNFINISHED))
        with contextlib.suppress(FileNotFoundError):
            held = os.open(made, os.O_RDONLY)
            # Where there are no locks, nothing is removed.
            with contextlib.suppress(OSError):
                fcntl.flock(held, fcntl.LOCK_SH)
            if made.exists():
                return made, held
            # Another process took it for left over before it was locked.
            os.close(held)


def remove_unfinished(folder: str | os.PathLike) -> None:
    """Removes what processes that were killed while they wrote have left in a folder.

    Args:
        folder: the folder; what others are writing into it stays.
    """
    for left in pathlib.Path(folder).glob(f"{UNFINISHED}*"):
        with contextlib.suppress(OSError), _opened(left) as held:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(left, ignore_errors=True)


@contextlib.contextmanager
def alone_in(folder: pathlib.Path) -> Iterator[None]:
    """Waits until no other process is within the same block for a folder, and makes the folder.

    Args:
        folder: the folder.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with _opened(folder) as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        yield


@contextlib.contextmanager
def _opened(path: str | os.PathLike) -> Iterator[int]:
    handle = os.open(path, os.O_RDONLY)
    try:
        yield handle
    finally:
        os.close(handle)


def _sync(path: str | os.PathLike) -> None:
    """Waits until a file, or the names in a folder, are on the disk."""
    with _opened(path) as opened:
        try:
            os.fsync(opened)
        except OSError:
            # Some file systems cannot do it for folders.
            if not os.path.isdir(path):
                raise


def _tell_full(path: pathlib.Path, error: OSError) -> None:
    """Raises a `UserError` where a disk takes no more; the system's error names no file."""
    if error.errno in TAKES_NO_MORE:
        raise UserError(
            f"{path} cannot be written: {error.strerror}; what stood there before is whole."
        ) from None


@contextlib.contextmanager
def whole_files(folder: str | os.PathLike) -> Iterator[pathlib.Path]:
    """Gives a folder to write into, whose content moves to its place once the block has no error.

    Args:
        folder: where the content goes, beside what is there; files of the same names are replaced.

    Raises:
        UserError: when a folder of something else, or a file in a folder's stead, has a name that
            is needed, or the disk takes no more.
    """
    folder = pathlib.Path(folder)
    try:
        with _whole_files(folder) as made:
            yield made
    except OSError as error:
        _tell_full(folder, error)
        raise


@contextlib.contextmanager
def _whole_files(folder: pathlib.Path) -> Iterator[pathlib.Path]:
    folder.mkdir(parents=True, exist_ok=True)
    with _unfinished(folder) as temporary:
        made, replaced = temporary / "made", temporary / "replaced"
        made.mkdir()
        replaced.mkdir()
        yield made
        members = sorted(made.iterdir())
        for file in made.rglob("*"):
            _sync(file)
        for member in members:
            _check_replaceable(folder / member.name, member)
        try:
            for member in members:
                if (folder / member.name).exists():
                    os.replace(folder / member.name, replaced / member.name)
                os.replace(member, folder / member.name)
            _sync(folder)
        except OSError:
            for earlier in replaced.iterdir():
                place = folder / earlier.name
                if place.is_dir():
                    os.replace(place, made / earlier.name)
                os.replace(earlier, place)
            raise


def _check_replaceable(place: pathlib.Path, made: pathlib.Path) -> None:
    if made.is_dir() and place.is_dir() and not place.is_symlink():
        others = sorted(
            {one.name for one in place.iterdir()} - {one.name for one in made.iterdir()}
        )
        stands = f"{others[0]!r} stands in it" if others else ""
    else:
        free = not place.exists() and not place.is_symlink()
        stands = (
            "" if free or (place.is_file() and made.is_file()) else "something else stands there"
        )
    if stands:
        raise UserError(f"{place} cannot be written: {stands}; move it away.")


def check_writable(path: str | os.PathLike, name: str = "") -> None:
    """Refuses a place in which nothing can be made.

    Args:
        path: a folder, which may not exist yet.
        name: the flag that it was given with; empty where it was given otherwise.

    Raises:
        UserError: naming it.
    """
    check_local(path, name)
    path = pathlib.Path(path)
    told = f"--{name}={path}" if name else path
    nearest = path
    try:
        nearest = next(one for one in (path, *path.absolute().parents) if one.exists())
        if not nearest.is_dir():
            raise UserError(f"{told} cannot be made: {nearest} is a file; allowed: a folder.")
        # Permissions do not tell of all: some file systems take no file from anybody.
        tempfile.TemporaryDirectory(dir=nearest, prefix=UNFINISHED).cleanup()
    except OSError as error:
        raise UserError(
            f"{told} cannot be written to: {nearest} is not a writable folder ({error.strerror})."
        ) from None


def check_local(path: str | os.PathLike, name: str = "") -> None:
    """Refuses an address such as `gs://bucket/run`, which would become a folder `gs:`.

    Args:
        path: a file or folder.
        name: the flag that it was given with; empty where it was given otherwise.

    Raises:
        UserError: naming it.
    """
    if _ADDRESS.match(os.fspath(path)):
        told = f"--{name}={path}" if name else path
        raise UserError(
            f"{told} is an address; allowed: paths on a disk, or on a bucket that is mounted as "
            "one, such as by gcsfuse."
        )


def write_text(path: str | os.PathLike, text: str) -> None:
    """Writes a text file, whole or not at all.

    Args:
        path: the file.
        text: its content.
    """
    with whole_file(path) as temporary:
        temporary.write_text(text)


def read_text(path: str | os.PathLike) -> str:
    """Returns the content of a text file.

    Args:
        path: the file.

    Raises:
        UserError: when it cannot be read, or is not UTF-8.
    """
    try:
        # Without the mark that some editors begin with. Line ends stay: csv reads them by itself.
        with open(path, encoding="utf-8-sig", newline="") as file:
            return file.read()
    except UnicodeDecodeError as error:
        raise UserError(
            f"{path} is no text in UTF-8 (byte {error.start}); allowed: UTF-8."
        ) from None
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}.") from None
