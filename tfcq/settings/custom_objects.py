"""Classes and functions of the user's that a command makes known to the models that it reads.

The file is run, so it is named on the command line alone: no folder of a run brings one.
"""

import ast
import importlib.machinery
import os
import sys
import traceback
from types import FunctionType, ModuleType
from typing import Any

from tfcq.errors import UserError
from tfcq.files import read_text

FLAG = "custom_objects"
# Not the file's own name, which may be that of a library.
_MODULE = "tfcq_custom_objects"


def check_file(path: str) -> None:
    """Refuses a file that is missing or holds no Python, before TensorFlow's start-up.

    Args:
        path: the file.

    Raises:
        UserError: saying what is wrong, and in which line.
    """
    try:
        ast.parse(read_text(path))
    except UserError as error:
        raise UserError(f"--{FLAG}: {error}") from None
    except SyntaxError as error:
        where = f", line {error.lineno}" if error.lineno else ""
        raise UserError(f"--{FLAG}={path}{where}: {error.msg}.") from None
    except (ValueError, RecursionError, MemoryError) as error:
        raise UserError(f"--{FLAG}={path} is no Python: {error or 'too deep'}.") from None


def add_defined(path: str, known: dict[str, Any]) -> None:
    """Runs a Python file, and adds its classes and functions to those that models are read with.

    Args:
        path: the file.
        known: Keras's own dictionary of classes and functions by name.

    Raises:
        UserError: when it fails, naming the line, or has no class and no function.
    """
    before = set(known)
    found = vars(_run(path)).items()
    # Imported ones, too, as they stand in the file under a name.
    known |= {name: one for name, one in found if isinstance(one, (type, FunctionType))}
    if set(known) == before:
        raise UserError(f"--{FLAG}={path} has no class and no function; allowed: those of a model.")


def _run(path: str) -> ModuleType:
    """Runs a file as an import would, so that what stands under `__main__` is left out."""
    whole = os.path.abspath(path)
    loader = importlib.machinery.SourceFileLoader(_MODULE, whole)
    module = ModuleType(_MODULE)
    module.__file__ = whole
    sys.modules[_MODULE] = module
    # Files beside it are found as when it is run by itself.
    sys.path.append(os.path.dirname(whole))
    try:
        loader.exec_module(module)
    except (Exception, SystemExit) as error:
        frames = traceback.extract_tb(error.__traceback__)
        lines = [frame.lineno for frame in frames if frame.filename == whole]
        where = f", line {lines[-1]}" if lines else ""
        raise UserError(f"--{FLAG}={path}{where}: {type(error).__name__}: {error}") from None
    return module
