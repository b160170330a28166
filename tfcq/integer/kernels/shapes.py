"""Operations that move values and compute none."""

import numpy as np

from tfcq.integer.kernels.rounding import Array
from tfcq.integer.kernels.step import Step


def reshape(step: Step) -> Array:
    """Returns the values in another shape."""
    return step.value(0).reshape(-1, *step.output.shape)


def pad(step: Step) -> Array:
    """Returns values with zeros, or another value, around them."""
    around = [(0, 0), *(tuple(pair) for pair in step.constant(1).tolist())]
    if step.has(2):
        filling = step.constant(2).ravel()[0]
    else:
        filling = step.tensor(0).zero_point if step.is_integer() else 0
    return np.pad(step.value(0), around, constant_values=filling)


RULES = {
    "RESHAPE": reshape, "SQUEEZE": reshape, "EXPAND_DIMS": reshape, "PAD": pad, "PADV2": pad,
}  # fmt: skip
