"""The table: every kind of quantizer by its name, as the classes of weights and activations.

Its lines are `tfcq.settings.policies.QUANTIZERS`, which needs no TensorFlow. Importing this file
registers every class for `tfcq.load`.
"""

import importlib

from tfcq.quantization import stored_scale  # noqa: F401 - registers what no policy names
from tfcq.quantization.quantizer import Quantizer
from tfcq.settings.policies import QUANTIZERS


def _classes(of: str) -> dict[str, type[Quantizer]]:
    return {
        name: getattr(importlib.import_module(f"tfcq.quantization.{kind.file}"), getattr(kind, of))
        for name, kind in QUANTIZERS.items()
        if getattr(kind, of) is not None
    }


WEIGHT_QUANTIZERS = _classes("weights")
ACTIVATION_QUANTIZERS = _classes("activations")
