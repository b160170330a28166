"""Refuses what an evaluation names and is not there, before TensorFlow's start-up."""

import pathlib

from tfcq.errors import UserError
from tfcq.files import check_writable
from tfcq.settings.backbones import APPLICATION
from tfcq.settings.checkpoints import CHECKPOINTS_HELP, is_checkpoint
from tfcq.settings.datasets import check_dataset_name
from tfcq.settings.evaluation import EvaluationConfig
from tfcq.settings.kernels import FILE_ENDING
from tfcq.settings.protocols import STARTS
from tfcq.settings.run_folder import RunFolder


def check_files(config: EvaluationConfig) -> None:
    """Refuses a subject, a start or a data set that is not there.

    Args:
        config: the settings.

    Raises:
        UserError: saying what is missing.
    """
    subject, start = config.subject, config.measurement.start
    if config.data.dataset is not None:
        check_dataset_name(config.data.dataset)
    if start not in STARTS and not pathlib.Path(start).is_file():
        raise UserError(
            f"--start={start} does not exist; allowed: {', '.join(STARTS)}, or a .keras file that "
            "--keep_classifiers saved."
        )
    if subject.run_dir is not None:
        folder = RunFolder(subject.run_dir)
        if subject.checkpoint is None:
            folder.load()
        else:
            folder.load_unfinished()
            folder.position_of(subject.checkpoint)
        return
    model = subject.model or ""
    kind, _, name = model.partition(":")
    if kind == APPLICATION and name:
        _check_weights_file(subject.weights)
        return
    if model.endswith(".weights.h5"):
        raise UserError(
            f"{model} holds weights without their network; allowed: a .keras file, which "
            "model.save('name.keras') writes once the network has them."
        )
    if model.endswith((".h5", ".hdf5")):
        raise UserError(
            f"{model} is named as a file in Keras's older HDF5 form; allowed: a .keras file; load "
            "it with Keras and save it with model.save('name.keras')."
        )
    public = is_checkpoint(model)
    if not (model.endswith(".keras") or config.scores_file or public):
        raise UserError(
            f"Unknown model {model!r}; allowed: PATH.keras, PATH{FILE_ENDING}, {CHECKPOINTS_HELP}, "
            f"or {APPLICATION}:NAME such as {APPLICATION}:MobileNetV2."
        )
    if not pathlib.Path(model).is_file():
        kind = FILE_ENDING if config.scores_file else pathlib.Path(model).suffix
        fault = "is a folder" if pathlib.Path(model).is_dir() else "does not exist"
        raise UserError(f"{model} {fault}; allowed: a {kind} file.")


def check_output(config: EvaluationConfig) -> None:
    """Refuses a place in which results cannot be written, before the work that they cost.

    Args:
        config: the settings.

    Raises:
        UserError: naming it.
    """
    subject = config.subject
    if subject.output_dir is not None:
        check_writable(subject.output_dir, "output_dir")
    else:
        check_writable(str(subject.run_dir))


def _check_weights_file(weights: str | None) -> None:
    if weights in (None, "imagenet"):
        return
    if not weights.endswith(".weights.h5"):
        raise UserError(f"Unknown weights {weights!r}; allowed: imagenet, or PATH.weights.h5.")
    if not pathlib.Path(weights).is_file():
        raise UserError(f"{weights} does not exist; allowed: imagenet, or a .weights.h5 file.")
