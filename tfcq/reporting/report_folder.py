"""The folder of a report: refused where it would touch other files, written whole or not at all."""

import json
import os
import pathlib
import shutil
import tempfile

from tfcq.errors import UserError
from tfcq.files import check_writable, read_text
from tfcq.parsing import parse_json

MANIFEST = "report.json"


def check_report_folder(path: str | os.PathLike, overwrite: bool) -> None:
    """Refuses a folder that a report must not take.

    Args:
        path: the folder.
        overwrite: whether an earlier report there may be replaced.

    Raises:
        UserError: when it holds other files, or an earlier report that may not be replaced.
    """
    path = pathlib.Path(path)
    if path.is_symlink() or (path.exists() and not path.is_dir()):
        raise UserError(f"--output={path} is no folder; allowed: a new or empty folder.")
    check_writable(path, "output")
    present = _files(path)
    if not present:
        return
    others = sorted(present - _made_by_report(path))
    if others:
        raise UserError(
            f"--output={path} holds other files, such as {others[0]}; allowed: a new or empty "
            "folder, or an earlier report."
        )
    if not overwrite:
        raise UserError(
            f"--output={path} holds an earlier report; give --overwrite to replace it, or another "
            "folder."
        )


def write_report(path: str | os.PathLike, files: dict[str, bytes], overwrite: bool) -> None:
    """Writes a report's files, which all appear at once.

    Args:
        path: the folder.
        files: path inside the folder to content.
        overwrite: whether an earlier report there may be replaced.

    Raises:
        UserError: as `check_report_folder`.
    """
    check_report_folder(path, overwrite)
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # Beside its final place, so that taking it is one move on one disk.
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}-") as temporary:
        new, old = pathlib.Path(temporary) / "new", pathlib.Path(temporary) / "old"
        new.mkdir()
        for name, content in {**files, MANIFEST: _manifest(files)}.items():
            (new / name).parent.mkdir(parents=True, exist_ok=True)
            (new / name).write_bytes(content)
        if path.exists():
            os.replace(path, old)
        try:
            os.replace(new, path)
        except OSError:
            if old.exists():
                shutil.move(old, path)
            raise


def _manifest(files: dict[str, bytes]) -> bytes:
    text = {"made_by": "tfcq.report", "files": sorted([*files, MANIFEST])}
    return (json.dumps(text, indent=2) + "\n").encode()


def _files(path: pathlib.Path) -> set[str]:
    """Returns everything below a folder that is no folder itself, and empty folders."""
    if not path.exists():
        return set()
    return {
        str(file.relative_to(path))
        for file in path.rglob("*")
        if file.is_symlink() or not file.is_dir() or not any(file.iterdir())
    }


def _made_by_report(path: pathlib.Path) -> set[str]:
    try:
        manifest = parse_json(read_text(path / MANIFEST), MANIFEST)
        return set(manifest["files"]) if manifest["made_by"] == "tfcq.report" else set()
    except (OSError, ValueError, KeyError, TypeError):
        return set()
