"""Tensors of public files of weights, `.pth` and `.safetensors`, by name, read when asked for."""

import dataclasses
import functools
import io
import mmap
import pathlib
import struct
import sys
import zipfile
from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np

from tfcq.backbones.torch_pickle import (
    ALLOWED,
    LONGEST,
    Storage,
    Tensor,
    named_tensors,
    read_pickle,
)
from tfcq.errors import UserError
from tfcq.settings.checkpoints import SAFETENSORS

_MAGIC = 0x1950A86A20F9469CFC6C
_PROTOCOL = 1001
_COUNT = np.dtype("<i8")
# All that `zipfile` raises of files that were changed.
_BROKEN = (zipfile.BadZipFile, EOFError, RuntimeError, ValueError, OverflowError, struct.error)
_ZIP = b"PK"
_LFS = b"version https://git-lfs"
FETCH = "fetch it again."

Read = Callable[[], np.ndarray]


@dataclasses.dataclass(frozen=True, eq=False)
class Stored:
    """A tensor in a file.

    Args:
        shape: its lengths.
        read: returns it.
    """

    shape: tuple[int, ...]
    read: Read


@dataclasses.dataclass(frozen=True, eq=False)
class CheckpointFile:
    """What a file of weights holds.

    Args:
        path: the file.
        tensors: by name; of nested dictionaries joined with dots.
        metadata: texts beside them.
    """

    path: str
    tensors: dict[str, Stored]
    metadata: dict[str, str] = dataclasses.field(default_factory=dict)


def read_checkpoint(path: str) -> CheckpointFile:
    """Opens a file of weights; tensors are read when they are asked for.

    A PyTorch file is read without PyTorch, and nothing that it names is run.

    Args:
        path: the file.

    Raises:
        UserError: when it is not there, is not whole, or holds other things than tensors.
    """
    file = pathlib.Path(path)
    if not file.is_file():
        fault = "is a folder" if file.is_dir() else "does not exist"
        raise UserError(f"{path} {fault}; allowed: a file of weights.")
    try:
        with file.open("rb") as opened:
            start = opened.read(len(_LFS))
        if start == _LFS:
            raise UserError("is a pointer of Git LFS; `git lfs pull` brings the file itself.")
        if path.lower().endswith(SAFETENSORS):
            found = _safetensors(path)
        else:
            found = (_zipped if start.startswith(_ZIP) else _older)(path)
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}.") from None
    except UserError as error:
        raise UserError(f"{path} {error}") from None
    if not found.tensors:
        raise UserError(f"{path} holds no tensor; {ALLOWED}")
    return found


def _safetensors(path: str) -> CheckpointFile:
    # TensorFlow's own start is slow enough: nobody else waits for this one.
    from safetensors import SafetensorError, safe_open

    try:
        opened = safe_open(path, framework="numpy")
        tensors = {}
        for name in opened.keys():  # noqa: SIM118 - it is no dictionary
            shape = tuple(opened.get_slice(name).get_shape())
            tensors[name] = Stored(shape, functools.partial(_safe_tensor, path, opened, name))
        return CheckpointFile(path, tensors, opened.metadata() or {})
    except SafetensorError as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"cannot be read as safetensors: {reason}.") from None


def _safe_tensor(path: str, opened: Any, name: str) -> np.ndarray:
    try:
        return opened.get_tensor(name)
    except (TypeError, ValueError, AttributeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{path} has {name!r} of numbers that are not read: {reason}.") from None


def _zipped(path: str) -> CheckpointFile:
    try:
        archive = zipfile.ZipFile(path)
        sizes = {info.filename: info.file_size for info in archive.infolist()}
        if max(sizes.values(), default=0) > pathlib.Path(path).stat().st_size:
            raise UserError(f"has a part that is larger than the file; {FETCH}")
        (index, *_) = [*(name for name in sizes if name.endswith("/data.pkl")), ""]
        if not index:
            raise UserError(f"is no PyTorch file: it holds no data.pkl; {ALLOWED}")
        root = index.removesuffix("data.pkl")
        if f"{root}constants.pkl" in sizes:
            raise UserError(f"is a TorchScript program, which is not run; {ALLOWED}")
        if _entry(archive, f"{root}byteorder", "little") != b"little":
            raise UserError("holds numbers of another byte order; allowed: little-endian ones.")
        if sizes[index] > LONGEST:
            raise UserError(f"has a pickle of more than {LONGEST // 2**20} MB; {ALLOWED}")
        tree = read_pickle(io.BytesIO(_entry(archive, index)))
    except _BROKEN as error:
        raise _told(error) from None

    def content(storage: Storage) -> bytes:
        return _entry(archive, f"{folder}{storage.key}")

    folder = f"{root}data/"
    held = {n.removeprefix(folder): size for n, size in sizes.items() if n.startswith(folder)}
    return _named(path, tree, held, content)


def _entry(archive: zipfile.ZipFile, name: str, usual: str | None = None) -> bytes:
    """Returns a part of an archive, or what is usual where there is none."""
    if usual is not None and name not in archive.namelist():
        return usual.encode()
    info = archive.getinfo(name)
    if info.compress_type != zipfile.ZIP_STORED:
        raise UserError(
            f"has a compressed part {name[:100]!r}; allowed: stored ones, as PyTorch's."
        )
    try:
        return archive.read(info)
    except _BROKEN as error:
        raise _told(error) from None


def _told(error: Exception) -> UserError:
    if isinstance(error, UserError):
        return error
    return UserError(f"is not whole ({' '.join(str(error).split())[:200]}); {FETCH}")


def _older(path: str) -> CheckpointFile:
    """Reads a file as PyTorch before 1.6 wrote it: five pickles, and storages behind them."""
    with open(path, "rb") as opened:
        if not opened.read(1):
            raise UserError(f"is empty; {FETCH}")
        # Unlike a file it returns no more than there is, whatever is asked for.
        content = mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ)
    file: Any = content
    if content[:1] != b"\x80" or read_pickle(file) != _MAGIC or read_pickle(file) != _PROTOCOL:
        raise UserError(f"is no PyTorch file; {ALLOWED}")
    system = read_pickle(file)
    if not isinstance(system, dict) or system.get("little_endian") is not True:
        raise UserError("holds numbers of another byte order; allowed: little-endian ones.")
    tree, keys = read_pickle(file), read_pickle(file)
    kinds = {tensor.storage.key: tensor.storage for tensor in named_tensors(tree).values()}
    places: dict[str, int] = {}
    position = content.tell()
    for key in keys if isinstance(keys, list) else []:
        storage = kinds.get(key)
        if storage is None:
            # Of what is no tensor by name; how many bytes each number has is not known.
            raise UserError("holds storages that no tensor names; save the tensors alone.")
        begin = position + _COUNT.itemsize
        count = int.from_bytes(content[position:begin], sys.byteorder, signed=True)
        position = begin + storage.count * _type(storage).itemsize
        if count != storage.count or position > len(content):
            raise UserError(f"is not whole (storage {key[:100]!r}); {FETCH}")
        places[key] = begin

    def numbers(storage: Storage) -> bytes:
        begin = places[storage.key]
        return content[begin : begin + storage.count * _type(storage).itemsize]

    held = {key: kinds[key].count * _type(kinds[key]).itemsize for key in places}
    return _named(path, tree, held, numbers)


def _named(
    path: str, tree: Any, held: dict[str, int], content: Callable[[Storage], bytes]
) -> CheckpointFile:
    """Returns the tensors of a tree, each of a storage that is as large as the tensor says.

    Args:
        path: the file.
        tree: what its pickle holds.
        held: bytes of each storage.
        content: returns those bytes.
    """
    tensors = {}
    for name, tensor in named_tensors(tree).items():
        storage = tensor.storage
        size = storage.count * _type(storage).itemsize
        if held.get(storage.key, -1) < size:
            raise UserError(
                f"is not whole: {name[:100]!r} wants {size} bytes, and {held.get(storage.key, 0)} "
                f"are there; {FETCH}"
            )
        tensors[name] = Stored(tensor.shape, functools.partial(_array, path, tensor, content))
    return CheckpointFile(path, tensors)


def _type(storage: Storage) -> np.dtype:
    return np.dtype(ml_dtypes.bfloat16 if storage.kind == "bfloat16" else storage.kind)


def _array(path: str, tensor: Tensor, content: Callable[[Storage], bytes]) -> np.ndarray:
    kind = _type(tensor.storage)
    try:
        numbers = np.frombuffer(content(tensor.storage), kind, tensor.storage.count)
    except UserError as error:
        raise UserError(f"{path} {error}") from None
    steps = [step * kind.itemsize for step in tensor.strides]
    # That it lies inside its storage was made sure of when it was named.
    return np.lib.stride_tricks.as_strided(
        numbers[tensor.offset :], tensor.shape, steps, writeable=False
    )
