"""What Python code inside a `tf.data` pipeline raises, told as what it was."""

import contextlib
import re
from collections.abc import Iterator

import tensorflow as tf

from tfcq.errors import UserError


@contextlib.contextmanager
def user_errors_of_pipelines() -> Iterator[None]:
    """Raises a `UserError` that TensorFlow hands on as one of its own errors, and a traceback.

    Raises:
        UserError: what code inside a data set raised.
    """
    try:
        yield
    except tf.errors.OpError as error:
        found = re.search(r"UserError: (.*)", str(error))
        if found is None:
            raise
        raise UserError(found[1]) from None
