"""Files that appear whole or not at all, and native messages that stay away."""

import os
import stat

import pytest

from tfcq import native_messages
from tfcq.files import whole_file, write_text


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
        assert temporary.suffix == ".json"
        assert temporary.parent == tmp_path
        temporary.write_text("half")
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


def test_native_messages_are_hidden(capfd):
    with native_messages.hidden():
        os.write(2, b"chatter\n")
    os.write(2, b"after\n")
    assert capfd.readouterr().err == "after\n"


def test_native_messages_are_shown_after_all_when_something_fails(capfd):
    with pytest.raises(RuntimeError), native_messages.hidden():
        os.write(2, b"the reason\n")
        raise RuntimeError
    os.write(2, b"after\n")
    assert capfd.readouterr().err == "the reason\nafter\n"
