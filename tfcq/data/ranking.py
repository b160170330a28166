"""An order of images that nothing but a seed and each image's own name decides."""

import hashlib
from collections.abc import Sequence

import numpy as np


def ranks(names: Sequence[str], seed: int) -> np.ndarray:
    """Returns a number of each name, uint64 [names], which no other name changes.

        the first 8 bytes of SHA-256 of "seed/name"

    Args:
        names: of the images.
        seed: another seed gives another order.
    """
    digests = (
        hashlib.sha256(f"{seed}/{name}".encode("utf-8", "surrogateescape")).digest()
        for name in names
    )
    return np.array([int.from_bytes(digest[:8]) for digest in digests], np.uint64)
