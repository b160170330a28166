"""Flag files: read in front of the command line they stand on, which therefore wins."""

import difflib
import os
import pathlib
import re

from tfcq.errors import UserError
from tfcq.files import read_text

FLAGFILE = "flagfile"


def files_first(arguments: list[str], boolean: dict[str, bool], place: str = "") -> list[str]:
    """Returns arguments with the lines of their flag files, in place of `--flagfile`, in front.

    What stands beside a `--flagfile` wins over what stands in the file, wherever on the line; so it
    is in a file that names another one. Of two files on one line the later wins.

    Args:
        arguments: what stands on the line, or in a file.
        boolean: name of every flag to whether it can stand without a value.
        place: the files that these arguments stand in, such as ` in a.cfg`; empty for the line.

    Raises:
        UserError: on a flag that does not exist or has no value, and on a file that cannot be read,
            holds something else or reads itself.
    """
    files: list[str] = []
    own: list[str] = []
    pending = iter(arguments)
    for argument in pending:
        if argument == "--":
            own += [argument, *pending]
            break
        name, separator, value = argument.lstrip("-").partition("=")
        if not argument.startswith("-") or not name:
            own.append(argument)
            continue
        _check_known(name, boolean, place)
        if not separator and not boolean.get(name, True):
            value = next(pending, "--")
            if value.startswith("--"):
                raise UserError(f"--{name}{place} has no value; allowed: --{name}=VALUE.")
            argument = f"--{name}={value}"
        if name == FLAGFILE:
            files += files_first(_lines(value, place), boolean, f"{place} in {value}")
        else:
            own.append(argument)
    return [*files, *own]


def _check_known(name: str, boolean: dict[str, bool], place: str) -> None:
    denied = name.removeprefix("no")
    if name in boolean or (denied != name and boolean.get(denied, False)):
        return
    near = difflib.get_close_matches(name[:100], boolean, n=1)
    hint = f"Did you mean --{near[0]}?" if near else "--help lists them all."
    raise UserError(f"Unknown flag --{name}{place}. {hint}")


def _lines(path: str, place: str) -> list[str]:
    """Returns the lines of a flag file that are neither empty nor comments."""
    path = os.path.expanduser(path)
    if f" in {path} " in f"{place} ":
        raise UserError(f"--{FLAGFILE}={path}{place}: it reads itself; remove that line.")
    if not pathlib.Path(path).is_file():
        what = "is no file" if os.path.exists(path) else "does not exist"
        raise UserError(
            f"--{FLAGFILE}={path}{place} {what}; allowed: a text file of flags, one a line."
            f"{_nearest_file(path)}"
        )
    lines = [line.strip() for line in read_text(path).splitlines()]
    for number, line in enumerate(lines, 1):
        if not re.fullmatch(r"|#.*|//.*|--\w+(=.*)?", line):
            nearest = re.sub(r"^-*(\w+)[\s:=]+", r"--\1=", line)
            hint = f" Did you mean {nearest!r}?" if nearest != line else ""
            raise UserError(
                f"Line {number} of flag file {path} is {line!r}; allowed: --name=value, or a "
                f"comment behind #.{hint}"
            )
    return [line for line in lines if line.startswith("--")]


def _nearest_file(path: str) -> str:
    folder, name = os.path.split(path)
    try:
        names = os.listdir(folder or ".")
        beside = [one for one in names if one.endswith(".cfg") and one != name]
    except (OSError, ValueError):
        return ""
    near = difflib.get_close_matches(name, beside, n=1)
    return f" Did you mean {os.path.join(folder, near[0])!r}?" if near else ""
