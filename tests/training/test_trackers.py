"""Figures that experiment trackers receive."""

import sys
import types

import pytest

from tfcq.errors import UserError
from tfcq.training.trackers import tracker

SETTINGS = {"epochs": 2, "recipe": "ssql"}


class Library(types.ModuleType):
    """What is used of W&B and of MLflow, which keeps what it was told."""

    def __init__(self, name):
        super().__init__(name)
        self.told = []

    def init(self, **values):
        self.told.append(("begun", values["id"], values["config"]))
        return types.SimpleNamespace(id="one", log=self.log_metrics)

    def set_experiment(self, name):
        pass

    def start_run(self, run_id, run_name):
        self.told.append(("begun", run_id))
        return types.SimpleNamespace(info=types.SimpleNamespace(run_id="one"))

    def log_params(self, settings):
        self.told.append(("settings", settings))

    def log_metrics(self, figures, step):
        self.told.append((step, figures))


@pytest.fixture(params=["wandb", "mlflow"])
def library(request, monkeypatch):
    monkeypatch.setitem(sys.modules, request.param, made := Library(request.param))
    return made


def test_epochs_count_from_one_and_a_run_that_goes_on_is_one_run(library, tmp_path):
    file = tmp_path / "tracked_run.txt"
    first = tracker(library.__name__, file, "run", SETTINGS)
    first.on_epoch_end(0, {"loss": 0.5})
    assert library.told[-1] == (1, {"loss": 0.5})
    assert any(SETTINGS in told for told in library.told)
    assert [told[1] for told in library.told if told[0] == "begun"] == [None]
    again = tracker(library.__name__, file, "run", SETTINGS)
    again.on_epoch_end(1, {"loss": 0.25})
    assert [told[1] for told in library.told if told[0] == "begun"] == [None, "one"]
    assert library.told[-1] == (2, {"loss": 0.25})


@pytest.mark.parametrize("name", ["wandb", "mlflow"])
def test_absent_library_says_how_to_install_it(name, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(UserError, match=f"pip install {name}"):
        tracker(name, tmp_path / "file", "run", SETTINGS)
