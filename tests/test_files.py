"""Files that appear whole or not at all, and places for them."""

import errno
import fcntl
import os
import pathlib
import stat

import pytest

from tfcq.errors import UserError
from tfcq.files import (
    UNFINISHED,
    check_writable,
    remove_unfinished,
    whole_file,
    whole_files,
    write_text,
)
from tfcq.settings.run_folder import RunFolder


def test_file_appears_with_its_folders_and_the_usual_permissions(tmp_path):
    path = tmp_path / "a" / "b.txt"
    umask = os.umask(0o027)
    try:
        write_text(path, "text")
    finally:
        os.umask(umask)
    assert path.read_text() == "text"
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert [p.name for p in path.parent.iterdir()] == ["b.txt"]


def test_failure_leaves_the_old_file_and_no_other(tmp_path):
    path = tmp_path / "a.json"
    write_text(path, "old")
    with pytest.raises(RuntimeError), whole_file(path) as temporary:
        temporary.write_text("half")
        assert temporary.name == "a.json"
        # Nor does who looks for such files find it.
        assert list(tmp_path.glob("*.json")) == [path]
        raise RuntimeError
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]


def test_new_content_shows_only_at_the_end(tmp_path):
    path = tmp_path / "a.txt"
    write_text(path, "old")
    with whole_file(path) as temporary:
        temporary.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"


def test_several_files_appear_together_or_not_at_all(tmp_path):
    def write(text, fail=False):
        with whole_files(tmp_path / "out") as made:
            (made / "a.txt").write_text(text)
            (made / "form").mkdir()
            (made / "form" / "part").write_text(text)
            assert text == "old" or (tmp_path / "out" / "a.txt").read_text() == "old"
            if fail:
                raise RuntimeError

    def content():
        files = sorted(path for path in tmp_path.rglob("*") if path.is_file())
        return {path.name: path.read_text() for path in files}

    write("old")
    (tmp_path / "out" / "mine").write_text("mine")
    with pytest.raises(RuntimeError):
        write("half", fail=True)
    assert content() == {"a.txt": "old", "mine": "mine", "part": "old"}
    write("new")
    assert content() == {"a.txt": "new", "mine": "mine", "part": "new"}


def test_what_a_killed_process_left_is_removed_and_what_is_being_written_stays(tmp_path):
    killed = tmp_path / f"{UNFINISHED}killed"
    killed.mkdir()
    (killed / "half.txt").write_text("ha")
    with whole_file(tmp_path / "a.txt") as one, whole_files(tmp_path) as several:
        one.write_text("a")
        (several / "b.txt").write_text("b")
        remove_unfinished(tmp_path)
        assert not killed.exists()
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {
        "a.txt": "a", "b.txt": "b",
    }  # fmt: skip


def test_nothing_is_removed_where_there_are_no_locks(tmp_path, monkeypatch):
    def none(handle, operation):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", none)
    with whole_file(tmp_path / "a.txt") as one:
        one.write_text("a")
        remove_unfinished(tmp_path)
    assert (tmp_path / "a.txt").read_text() == "a"


def test_a_folder_that_was_taken_for_left_over_before_it_was_locked_is_made_anew(
    tmp_path, monkeypatch
):
    flock, taken = fcntl.flock, []

    def late(held, operation):
        if operation == fcntl.LOCK_SH and not taken:
            taken.append(True)
            remove_unfinished(tmp_path)
            assert not list(tmp_path.iterdir())
        flock(held, operation)

    monkeypatch.setattr(fcntl, "flock", late)
    with whole_file(tmp_path / "file.txt") as temporary:
        temporary.write_text("new")
    assert taken and [file.name for file in tmp_path.iterdir()] == ["file.txt"]


def test_what_was_replaced_comes_back_where_a_later_file_cannot_be_moved(tmp_path, monkeypatch):
    (tmp_path / "form").mkdir()
    (tmp_path / "form" / "part").write_text("old")
    (tmp_path / "a.txt").write_text("old")
    replace, moved = os.replace, []

    def failing(source, target):
        if pathlib.Path(target) == tmp_path / "z.txt":
            raise PermissionError("no")
        moved.append(target)
        replace(source, target)

    monkeypatch.setattr(os, "replace", failing)
    with pytest.raises(PermissionError), whole_files(tmp_path) as made:
        for name in ("a.txt", "z.txt"):
            (made / name).write_text("new")
        (made / "form").mkdir()
        (made / "form" / "part").write_text("new")
    assert tmp_path / "form" in moved
    left = sorted(path for path in tmp_path.rglob("*") if path.is_file())
    assert [path.read_text() for path in left] == ["old", "old"]


def test_a_folder_is_replaced_by_one_that_holds_all_that_it_held(tmp_path):
    (tmp_path / "form").mkdir()
    (tmp_path / "form" / "part").write_text("old")
    with whole_files(tmp_path) as made:
        (made / "form").mkdir()
        for name in ("part", "new"):
            (made / "form" / name).write_text("new")
    assert sorted(path.name for path in (tmp_path / "form").iterdir()) == ["new", "part"]


@pytest.mark.parametrize("taken", ["a.txt/else", "form/else", "form"])
def test_nothing_is_written_where_something_else_has_one_of_the_names(tmp_path, taken):
    (tmp_path / taken).parent.mkdir(exist_ok=True)
    (tmp_path / taken).write_text("mine")
    told = "cannot be written: .* stands (there|in it); move it away"
    with pytest.raises(UserError, match=told), whole_files(tmp_path) as made:
        (made / "a.txt").write_text("new")
        (made / "b.txt").write_text("new")
        (made / "form").mkdir()
        (made / "form" / "part").write_text("new")
    assert [path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*")
            if path.is_file()] == [taken]  # fmt: skip


@pytest.mark.parametrize("name", ["", "output_dir"])
def test_a_place_in_which_nothing_can_be_made_is_told_with_its_flag(tmp_path, name):
    (tmp_path / "file").write_text("")
    check_writable(tmp_path / "new" / "deep", name)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    flag = "--output_dir=" if name else ""
    with pytest.raises(UserError, match=rf"^{flag}\S*file/x cannot be made: \S*/file is a file"):
        check_writable(tmp_path / "file" / "x", name)
    with pytest.raises(UserError, match=rf"^{flag}/proc/x cannot be written to: /proc is not a wr"):
        check_writable("/proc/x", name)


@pytest.mark.parametrize("several", [False, True])
def test_content_is_on_the_disk_before_it_has_its_name(tmp_path, monkeypatch, several):
    events, sync, replace = [], os.fsync, os.replace

    def synced(opened):
        events.append("folder" if stat.S_ISDIR(os.fstat(opened).st_mode) else "file")
        sync(opened)

    def replaced(source, target):
        events.append("named")
        replace(source, target)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(os, "replace", replaced)
    if several:
        with whole_files(tmp_path) as made:
            (made / "a").write_text("a")
    else:
        write_text(tmp_path / "a", "a")
    assert events == ["file", "named", "folder"]


@pytest.mark.parametrize("writer", [whole_file, whole_files])
def test_full_disk_is_told_with_the_file_that_it_did_not_take(tmp_path, writer):
    told = pytest.raises(UserError, match=r"a\.csv cannot be written: No space left on device;")
    with told, writer(tmp_path / "a.csv"):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    # Other errors are of other files.
    with pytest.raises(FileNotFoundError), writer(tmp_path / "a.csv"):
        (tmp_path / "other").read_text()


@pytest.mark.parametrize("path", ["gs://bucket/run", pathlib.Path("s3://bucket/run")])
def test_address_is_no_folder(path):
    with pytest.raises(UserError, match=r"^--output_dir=\S+ is an address; allowed: paths on a"):
        check_writable(path, "output_dir")
    with pytest.raises(UserError, match=r"^(gs|s3):\S+ is an address"):
        RunFolder(path)
    assert RunFolder("runs/a:b/c").path.name == "c"
