"""Sends the figures of every epoch to an experiment tracker beside the run's own files."""

import importlib
import pathlib
from typing import Any

import keras

from tfcq.errors import UserError
from tfcq.files import read_text, write_text

PROJECT = "tfcq"


def tracker(
    name: str, file: pathlib.Path, title: str, settings: dict[str, Any]
) -> keras.callbacks.Callback:
    """Returns the callback that sends what `fit` reports of every epoch.

    Which account, server or folder receives them is the library's to know, as by its environment
    variables.

    Args:
        name: `"wandb"` or `"mlflow"`.
        file: where the number of the tracked run is kept, so that a run that goes on is one run.
        title: what the tracked run is called.
        settings: value of each setting, which are sent once.

    Raises:
        UserError: when the library is not installed.
    """
    try:
        library: Any = importlib.import_module(name)
    except ImportError:
        raise UserError(f"--tracker={name} needs the package {name}: pip install {name}.") from None
    kept = read_text(file).strip() if file.exists() else None
    if name == "wandb":
        run = library.init(
            project=PROJECT, name=title, config=settings, id=kept, resume="allow", dir=file.parent
        )
        number, log = run.id, run.log
    else:
        library.set_experiment(PROJECT)
        run = library.start_run(run_id=kept, run_name=title)
        if kept is None:
            library.log_params(settings)
        number, log = run.info.run_id, library.log_metrics
    write_text(file, f"{number}\n")
    return keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: log(
            {name: float(value) for name, value in logs.items()}, step=epoch + 1
        )
    )
