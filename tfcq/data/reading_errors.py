"""What TensorFlow hands on as an error of its own, told as what it was."""

import contextlib
import os
import re
from collections.abc import Iterator

import tensorflow as tf

from tfcq.errors import UserError
from tfcq.files import TAKES_NO_MORE

_DISK = "|".join(map(os.strerror, sorted(TAKES_NO_MORE)))


def disk_fault(error: Exception) -> str | None:
    """Returns what a disk refused, in its own words; None for another error.

    Args:
        error: what TensorFlow raised.
    """
    found = re.search(rf"([^{{}};]+); ({_DISK})", str(error))
    return None if found is None else f"{found[1].strip()}: {found[2]}"


@contextlib.contextmanager
def user_errors_of_pipelines() -> Iterator[None]:
    """Raises a `UserError` that TensorFlow hands on as one of its own errors, and a traceback.

    Raises:
        UserError: what code inside a data set raised, or a disk that takes no more.
    """
    try:
        yield
    except tf.errors.OpError as error:
        found = re.search(r"UserError: (.*)", str(error))
        if found is None:
            if (fault := disk_fault(error)) is not None:
                raise UserError(f"Nothing more can be written: {fault}.") from None
            raise
        raise UserError(found[1]) from None
