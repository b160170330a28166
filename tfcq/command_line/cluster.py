"""The cluster that the environment names, of which a command takes one machine alone."""

import os

from tfcq.errors import UserError
from tfcq.files import parse_json


def check_one_process() -> None:
    """Refuses `TF_CONFIG` of several processes, each of which would do the whole work.

    Raises:
        UserError: when it names more than one process, or cannot be read.
    """
    text = os.environ.get("TF_CONFIG")
    if not text:
        return
    config = parse_json(text, "TF_CONFIG")
    try:
        processes = sum(len(addresses) for addresses in config.get("cluster", {}).values())
    except (AttributeError, TypeError):
        raise UserError(
            f"TF_CONFIG is {text[:100]!r}; allowed: TensorFlow's form, or no such variable."
        ) from None
    if processes > 1:
        raise UserError(
            f"TF_CONFIG names {processes} processes, and each would do the whole work; allowed: "
            "one process, whose accelerators --strategy=mirrored takes. Unset TF_CONFIG."
        )
