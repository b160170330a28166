"""A report takes only a folder of its own, whole or not at all."""

import os
import pathlib

import pytest

from tfcq.errors import UserError
from tfcq.reporting.report_folder import check_report_folder, write_report

FILES = {"report.html": b"one", "pictures/a.png": b"a"}


def names(folder):
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())


def test_files_are_written_and_nothing_else_is_left(tmp_path):
    write_report(tmp_path / "x" / "out", FILES, False)
    assert names(tmp_path) == ["x/out/pictures/a.png", "x/out/report.html", "x/out/report.json"]


def test_earlier_report_is_replaced_only_when_asked(tmp_path):
    write_report(tmp_path / "out", FILES, False)
    with pytest.raises(UserError, match="earlier report; give --overwrite"):
        write_report(tmp_path / "out", {"report.html": b"two"}, False)
    assert (tmp_path / "out" / "report.html").read_bytes() == b"one"
    write_report(tmp_path / "out", {"report.html": b"two"}, True)
    assert names(tmp_path) == ["out/report.html", "out/report.json"]
    assert (tmp_path / "out" / "report.html").read_bytes() == b"two"


@pytest.mark.parametrize("other", ["notes.txt", "pictures/mine.png", "report.html"])
def test_folder_with_other_files_is_refused_even_with_overwrite(tmp_path, other):
    out = tmp_path / "out"
    if other != "report.html":
        write_report(out, FILES, False)
    (out / other).parent.mkdir(parents=True, exist_ok=True)
    (out / other).write_text("mine")
    with pytest.raises(UserError, match=f"holds other files, such as {other}"):
        check_report_folder(out, overwrite=True)
    assert (out / other).read_text() == "mine"


def test_empty_folder_is_taken_and_a_file_is_refused(tmp_path):
    (tmp_path / "out").mkdir()
    write_report(tmp_path / "out", FILES, False)
    (tmp_path / "file").write_text("x")
    with pytest.raises(UserError, match="is no folder"):
        check_report_folder(tmp_path / "file", True)


def test_failure_in_the_middle_leaves_the_earlier_report(tmp_path, monkeypatch):
    write_report(tmp_path / "out", FILES, False)

    def full_disk(self, content):
        raise OSError("No space left on device")

    monkeypatch.setattr(pathlib.Path, "write_bytes", full_disk)
    with pytest.raises(OSError, match="No space"):
        write_report(tmp_path / "out", {"report.html": b"two"}, True)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert (tmp_path / "out" / "report.html").read_bytes() == b"one"


def test_failure_of_the_last_move_puts_the_earlier_report_back(tmp_path, monkeypatch):
    write_report(tmp_path / "out", FILES, False)
    replace, moves = os.replace, []

    def fails_second(source, target):
        moves.append(target)
        if len(moves) == 2:
            raise OSError("Permission denied")
        replace(source, target)

    monkeypatch.setattr(os, "replace", fails_second)
    with pytest.raises(OSError, match="Permission denied"):
        write_report(tmp_path / "out", {"report.html": b"two"}, True)
    assert (tmp_path / "out" / "report.html").read_bytes() == b"one"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
