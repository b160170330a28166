"""The history file and the progress line."""

import io

import pytest

from tfcq.errors import UserError
from tfcq.settings.durations import parse_duration
from tfcq.training import history
from tfcq.training.history import HistoryFile, Progress


def test_rows_count_from_one_and_columns_are_united(tmp_path):
    written = HistoryFile(tmp_path / "run" / "history.csv")
    written.on_epoch_end(0, {"loss": 0.5})
    written.on_epoch_end(1, {"loss": -0.25, "images_per_second": 1234.5678})
    assert (tmp_path / "run" / "history.csv").read_text() == (
        "epoch,loss,images_per_second\n1,0.5,\n2,-0.25,1234.57\n"
    )


def test_rows_of_epochs_that_were_not_saved_are_dropped(tmp_path):
    path = tmp_path / "history.csv"
    path.write_text("epoch,loss\n1,0.5\n2,0.4\n3,0.3\n")
    written = HistoryFile(path, epochs_done=2)
    written.on_epoch_end(2, {"loss": 0.35})
    assert path.read_text() == "epoch,loss\n1,0.5\n2,0.4\n3,0.35\n"


def test_new_run_drops_every_old_row(tmp_path):
    path = tmp_path / "history.csv"
    path.write_text("epoch,loss\n1,0.5\n")
    HistoryFile(path).on_epoch_end(0, {"loss": 0.9})
    assert path.read_text() == "epoch,loss\n1,0.9\n"


def test_history_that_lost_rows_is_told_and_left_as_it_is(tmp_path, capsys):
    path = tmp_path / "history.csv"
    for rows, held in (("1,0.5\n", "1"), ("1,0.5\n3,0.3\n", "1, 3"), ("", "no row")):
        path.write_text(f"epoch,loss\n{rows}")
        with pytest.raises(UserError, match=rf"has lost rows: of 3 epochs it holds {held}\. Put"):
            HistoryFile(path, epochs_done=3)
        assert path.read_text() == f"epoch,loss\n{rows}"
    path.unlink()
    HistoryFile(path, epochs_done=3).on_epoch_end(3, {"loss": 0.2})
    assert "history.csv is gone: its rows begin anew with epoch 4." in capsys.readouterr().out
    HistoryFile(path, epochs_done=4).on_epoch_end(4, {"loss": 0.1})
    assert path.read_text() == "epoch,loss\n4,0.2\n5,0.1\n"


class Terminal(io.StringIO):
    def isatty(self):
        return True


def train(progress, epochs, steps, first=0):
    for epoch in range(first, epochs):
        for step in range(steps):
            progress.on_train_batch_end(step, {"loss": 0.1})
        progress.on_epoch_end(epoch, {"loss": -0.5, "unknown": 3.0})


@pytest.mark.parametrize(("epochs", "lines"), [(3, 3), (20, 11), (25, 11)])
def test_log_file_gets_a_line_for_the_first_epoch_and_each_tenth(epochs, lines):
    stream = io.StringIO()
    train(Progress(2 * epochs, 2, stream=stream), epochs, 2)
    written = stream.getvalue().splitlines()
    assert len(written) == lines
    assert written[-1].startswith(f"epoch {epochs}/{epochs} [{'=' * 24}] ETA 0:00 loss=-0.5")
    assert "unknown" not in written[-1]


@pytest.mark.parametrize("columns", [20, 60, 80, 130, 200])
def test_terminal_keeps_one_line_within_its_width(columns, monkeypatch):
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setenv("TERM", "xterm")
    stream = Terminal()
    progress = Progress(40, 2, stream=stream)
    train(progress, 20, 2)
    for _ in range(2):
        progress._show({name: -1.0 / 3 for name in history.SHOWN}, end="")
    assert stream.getvalue().count("\n") == 1
    lines = [line.rstrip("\n") for line in stream.getvalue().split("\r")]
    # Whole lines, so that nothing of a longer one before stays.
    assert lines[0] == "" and {len(line) for line in lines[1:]} == {columns - 1}
    assert lines[-1].startswith("epoch 20/20")
    assert ("images_per_second=-0.3333" in lines[-1]) == (columns > 115)
    assert ("[=" in lines[-1]) == (columns == 200)


@pytest.mark.parametrize("columns", range(1, 140, 3))
def test_no_figure_is_cut_within_its_digits(columns, monkeypatch):
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setenv("TERM", "xterm")
    stream = Terminal()
    figures = {name: 1234.0 for name in history.SHOWN}
    Progress(40, 2, stream=stream)._show(figures, end="")
    line = stream.getvalue().removeprefix("\r")
    assert len(line) == columns - 1
    whole = {"epoch", "0/20", f"[{'.' * 24}]", "ETA", "--:--", *(f"{n}=1234" for n in figures)}
    assert set(line.split()) <= whole or columns - 1 < len("epoch 0/20")


def test_dumb_terminal_gets_the_lines_of_a_log_file(monkeypatch):
    monkeypatch.setenv("TERM", "dumb")
    stream = Terminal()
    train(Progress(40, 2, stream=stream), 20, 2)
    assert "\r" not in stream.getvalue() and stream.getvalue().count("\n") == 11


@pytest.mark.parametrize(
    ("length", "told"),
    [
        ("20steps", ["step 5/20", "step 20/20"]),
        ("159examples", ["example 40/159", "example 159/159"]),
        ("4epochs", ["epoch 1/4", "epoch 4/4"]),
    ],
)
def test_a_run_is_counted_in_the_unit_of_its_length(length, told):
    stream = io.StringIO()
    train(Progress(20, 5, stream=stream, length=parse_duration(length)), 4, 5)
    written = stream.getvalue().splitlines()
    assert [written[0].split(" [")[0], written[-1].split(" [")[0]] == told


def test_a_run_of_one_step_ends_with_no_time_left():
    stream = io.StringIO()
    train(Progress(1, 1, stream=stream), 1, 1)
    assert "] ETA 0:00 loss=-0.5" in stream.getvalue()


def test_resumed_run_counts_from_where_it_was():
    stream = io.StringIO()
    progress = Progress(20, 5, first_step=12, stream=stream)
    # Three steps are left of the third epoch.
    train(progress, 3, 3, first=2)
    train(progress, 4, 5, first=3)
    written = stream.getvalue().splitlines()
    assert written[0].startswith(f"epoch 3/4 [{'=' * 18}{'.' * 6}]")
    assert written[-1].startswith("epoch 4/4")


@pytest.mark.parametrize(
    "content", ["loss\n1\n", "epoch\none\n", f"epoch\n{'9' * 5000}\n", "epoch,loss\n1\n"]
)
def test_file_that_is_no_history_is_told(content, tmp_path):
    path = tmp_path / "history.csv"
    path.write_text(content)
    with pytest.raises(UserError, match=r"history\.csv"):
        HistoryFile(path, 1)
