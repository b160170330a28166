"""The starts of a run, and the line at its end."""

import os

import pytest

from tfcq.errors import UserError
from tfcq.training.starts import note_start, run_in_words, starts


def test_each_start_adds_a_row(tmp_path):
    file = tmp_path / "starts.csv"
    assert starts(file) == []
    for done in (0, 7):
        note_start(file, done)
    rows = starts(file)
    assert [row["steps_done"] for row in rows] == ["0", "7"]
    assert {row["process"] for row in rows} == {str(os.getpid())}


def test_other_files_are_left_as_they_are(tmp_path):
    file = tmp_path / "starts.csv"
    file.write_text("a,b\n1,2\n")
    with pytest.raises(UserError, match="starts.csv holds no starts of a run.*move it away"):
        note_start(file, 0)
    assert file.read_text() == "a,b\n1,2\n"


def test_the_end_tells_images_time_checkpoints_and_interruptions(tmp_path):
    history, file = tmp_path / "history.csv", tmp_path / "starts.csv"
    for name in ("ckpt-1.index", "ckpt-2+3.index"):
        (tmp_path / name).touch()
    for done in (0, 5, 9):
        note_start(file, done)
    told = "Trained: 7,200 images{}; kept ckpt-1, ckpt-2+3; interruptions: 2"
    assert run_in_words(7200, history, tmp_path, file) == told.format("")
    # As long at one rate as at the other for as many images: their harmonic mean.
    history.write_text("epoch,images_per_second\n1,1\n2,\n3,3\n")
    spent = " in 1:20:00 of steps (2 images per second)"
    assert run_in_words(7200, history, tmp_path, file) == told.format(spent)
    history.write_text("epoch,images_per_second\n1,much\n")
    assert run_in_words(7200, history, tmp_path, file) == told.format("")
