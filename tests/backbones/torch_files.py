"""PyTorch files without PyTorch: of arrays, and of whatever a hostile one would hold."""

import collections
import io
import pickle
import sys
import types
import zipfile
from unittest import mock

import numpy as np


class FloatStorage:
    """What stands for PyTorch's class of that name."""


def _rebuild_tensor_v2(*arguments):
    raise AssertionError("a file is written here, not read")


FloatStorage.__module__, _rebuild_tensor_v2.__module__ = "torch", "torch._utils"


class _Pickler(pickle.Pickler):
    def __init__(self, file, arrays):
        super().__init__(file, protocol=2)
        self.arrays = arrays

    def reducer_override(self, value):
        if not isinstance(value, np.ndarray):
            return NotImplemented
        self.arrays.append(np.ascontiguousarray(value, np.float32))
        steps = tuple(step // 4 for step in self.arrays[-1].strides)
        identity = _Storage(str(len(self.arrays) - 1), value.size)
        nothing = collections.OrderedDict()
        return _rebuild_tensor_v2, (identity, 0, value.shape, steps, False, nothing)

    def persistent_id(self, value):
        if isinstance(value, _Storage):
            return "storage", FloatStorage, value.key, "cpu", value.count
        return None


class _Storage:
    def __init__(self, key, count):
        self.key, self.count = key, count


def pickled(tree) -> tuple[bytes, list[np.ndarray]]:
    """Returns the pickle of a tree of arrays as PyTorch writes it, and the arrays."""
    torch, utils = types.ModuleType("torch"), types.ModuleType("torch._utils")
    torch.FloatStorage, utils._rebuild_tensor_v2 = FloatStorage, _rebuild_tensor_v2
    arrays: list[np.ndarray] = []
    file = io.BytesIO()
    with mock.patch.dict(sys.modules, {"torch": torch, "torch._utils": utils}):
        _Pickler(file, arrays).dump(tree)
    return file.getvalue(), arrays


def write_zip(path, pickle_bytes, storages=(), compression=zipfile.ZIP_STORED, **parts):
    """Writes a file as PyTorch 1.6 and later do.

    Args:
        path: the file.
        pickle_bytes: its pickle.
        storages: bytes of each.
        compression: how they are kept; PyTorch stores them.
        **parts: further parts by name.
    """
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr("archive/data.pkl", pickle_bytes)
        for name, content in parts.items():
            archive.writestr(f"archive/{name}", content)
        for key, content in enumerate(storages):
            archive.writestr(f"archive/data/{key}", content)
    return str(path)


def write_older(path, pickle_bytes):
    """Writes a file without storages as PyTorch before 1.6 did."""
    head = [0x1950A86A20F9469CFC6C, 1001, {"little_endian": True}]
    parts = [pickle.dumps(one, 2) for one in head]
    path.write_bytes(b"".join([*parts, pickle_bytes, pickle.dumps([], 2)]))
    return str(path)


def save(tree, path) -> str:
    """Writes a tree of arrays as `torch.save` does."""
    content, arrays = pickled(tree)
    return write_zip(path, content, [one.tobytes() for one in arrays])
