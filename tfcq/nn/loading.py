"""Reads a model from a `.keras` file, and says why where it cannot be read."""

import difflib
import json
import os
import re
import struct
import zipfile
import zlib
from typing import Any

import keras

from tfcq.errors import UserError
from tfcq.nn import attention, quantizable  # noqa: F401 - register their classes
from tfcq.settings.checkpoints import is_checkpoint

_HDF5 = b"\x89HDF\r\n\x1a\n"
_TFLITE = b"TFL3"
# Keras stores parts as they are; weights that somebody compressed shrink by a few times.
_INFLATED = 100
# What `zipfile` raises of an archive that is damaged, such as by a method that it does not know.
_BROKEN = (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, ValueError, struct.error)
# What Keras calls `tfcq.Pretrainer`, which stands on a floor above.
_TRAINING = "tfcq>Pretrainer"
_RESAVE = "allowed: a .keras file; load it with Keras and save it with model.save('name.keras')."


def load(
    path: str | os.PathLike,
    custom_objects: dict[str, Any] | None = None,
    whole_training: bool = False,
) -> keras.Model:
    """Returns a model saved with `model.save("name.keras")`.

    Args:
        path: the file.
        custom_objects: classes and functions of the user's that the file names, by their names, as
            for `keras.saving.load_model`.
        whole_training: read a `Pretrainer`, with its optimizer, too; it is refused otherwise.

    Raises:
        UserError: when it cannot be read, names a class or function that is not known here, or
            holds a whole training.
    """
    if os.path.isdir(path) and os.path.exists(os.path.join(path, "saved_model.pb")):
        raise UserError(f"{path} is a SavedModel, which runs but cannot be quantized; {_RESAVE}")
    if not os.path.isfile(path):
        raise UserError(f"{path} does not exist; allowed: a .keras file.")
    if is_checkpoint(str(path)):
        raise UserError(
            f"{path} holds weights by another library's names, which --start of tfcq.train and "
            "--model of tfcq.evaluate and tfcq.detect read; allowed here: a .keras file."
        )
    if not zipfile.is_zipfile(path):
        with open(path, "rb") as file:
            start = file.read(len(_HDF5))
        if start == _HDF5:
            raise UserError(f"{path} is a file in Keras's older HDF5 form; {_RESAVE}")
        if start[4:8] == _TFLITE:
            raise UserError(f"{path} is a TFLite model, which is run as it is; name it .tflite.")
        raise UserError(f"{path} cannot be read as a Keras model: it is not whole.")
    try:
        check_whole(path)
        whole = _class_of(path) == _TRAINING
        if whole and not whole_training:
            raise UserError(
                f"{path} holds a whole training; allowed here: its network, which Python saves "
                f"with tfcq.load({str(path)!r}).backbone.save('encoder.keras')."
            )
        return keras.models.load_model(path, custom_objects, compile=whole)
    except UserError:
        raise
    except (OSError, ValueError, TypeError, KeyError, zipfile.BadZipFile) as error:
        raise UserError(_why_unread(path, " ".join(str(error).split()))) from None


def _class_of(path: str | os.PathLike) -> str | None:
    """Returns the registered name of the class of a file's model; None where it says none."""
    with zipfile.ZipFile(path) as archive:
        config = json.loads(archive.read("config.json"))
    return config.get("registered_name") if isinstance(config, dict) else None


def check_whole(path: str | os.PathLike) -> None:
    """Refuses a zip file that is damaged, or whose parts are so large that they fill the memory.

    Keras itself reads weights that do not match their checksum, part by part.

    Args:
        path: the file.

    Raises:
        UserError: naming what is damaged, or both sizes.
    """
    held = os.path.getsize(path)
    try:
        with zipfile.ZipFile(path) as opened:
            inflated = sum(info.file_size for info in opened.infolist())
            damaged = opened.testzip() if inflated <= _INFLATED * held else None
    except _BROKEN as error:
        raise UserError(f"{path} is damaged: {error}.") from None
    if inflated > _INFLATED * held:
        raise UserError(
            f"{path} has {held:,} bytes and would become {inflated:,}; allowed: at most "
            f"{_INFLATED} times its size."
        )
    if damaged is not None:
        raise UserError(f"{path} is damaged: its {damaged} is not what was written.")


def _why_unread(path: str | os.PathLike, reason: str) -> str:
    unknown = re.search(r"Could not (?:locate|find|deserialize) (class|function) '([^']+)'", reason)
    if unknown:
        kind, name = unknown.groups()
        known = [known.rpartition(">")[2] for known in keras.saving.get_custom_objects()]
        near = difflib.get_close_matches(name, known, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        return (
            f"{path} names the {kind} {name!r}, which is not known here; allowed: "
            f"--custom_objects=FILE.py of the commands, a file that defines it, or in Python "
            f"tfcq.load(path, custom_objects={{{name!r}: {name}}}).{hint}"
        )
    if "lambda" in reason or "identifier: {'value'" in reason:
        return (
            f"{path} holds a Python lambda, which is not read for safety's sake; allowed: a named "
            "function, or a class with get_config."
        )
    if "`__init__()`" in reason or "unexpected keyword argument" in reason:
        # What comes last is what failed first.
        reason = reason[-300:]
    return f"{path} cannot be read as a Keras model: {reason[:300]}"
