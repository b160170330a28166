"""Start of a command: TensorFlow without its chatter, and what is done meanwhile."""

import logging
import os
import pathlib

from tfcq import native_messages
from tfcq.command_line.cluster import join_cluster

_OWN = pathlib.Path(__file__).parent.parent
_BACKEND = "tensorflow"


def stage(text: str) -> None:
    """Prints what is done now and takes a while.

    Args:
        text: what it is.
    """
    print(f"{text} ...", flush=True)


def _is_own(record: logging.LogRecord) -> bool:
    """Whether a message of a log comes from this project."""
    return _OWN in pathlib.Path(record.pathname).parents


def _configure_keras() -> None:
    """Gives Keras the defaults that networks are recorded with, whatever keras.json has."""
    import keras

    keras.config.set_image_data_format("channels_last")
    keras.config.set_floatx("float32")
    keras.config.set_dtype_policy("float32")


def quiet_start_up(
    verbosity: int, deterministic: bool = False, doing: str = "", strategy: str | None = "single"
) -> None:
    """Imports TensorFlow without its chatter, unless that is asked for.

    Args:
        verbosity: the flag of that name.
        deterministic: whether the process must repeat its results to the last bit.
        doing: what is told before, as the import takes seconds; empty for nothing.
        strategy: how the work is shared with other processes; None for no work.

    Raises:
        UserError: when the environment names other processes than the strategy takes.
    """
    join_cluster(strategy)
    if (backend := os.environ.get("KERAS_BACKEND", _BACKEND)) != _BACKEND:
        print(f"KERAS_BACKEND={backend} is left aside: tfcq runs on Keras's TensorFlow backend.")
    # Whatever the user's keras.json says.
    os.environ["KERAS_BACKEND"] = _BACKEND
    if doing:
        stage(doing)
    if deterministic:
        # Seen with oneDNN: gradients of a strided 1x1 convolution that differ from run to run.
        os.environ["TF_ENABLE_ONEDNN_OPTS"] = "0"
    else:
        # TensorFlow leaves it off on some CPUs where a step was seen to take 1.5 times as long.
        os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
    if verbosity >= 1:
        _configure_keras()
        return
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    with native_messages.hidden():
        _configure_keras()
        import tensorflow as tf
    # Libraries log on absl's logger too, which nobody who runs a command can mend.
    logging.getLogger("absl").addFilter(_is_own)
    # It would tell of functions that are traced anew on purpose.
    tf.get_logger().setLevel("ERROR")
