"""Tensors of a PyTorch pickle, of which nothing is run: a closed list of names, all else refused.

PyTorch's own reader of this kind needs PyTorch, some gigabytes, for files of which names, numbers
and offsets are all that is wanted here.
"""

import dataclasses
import math
import pickle
import pickletools
from typing import IO, Any, NamedTuple

from tfcq.errors import UserError

ALLOWED = (
    "allowed: tensors in lists and dictionaries, as torch.save(model.state_dict(), PATH) writes "
    "them."
)
# Of a network of 10,000 tensors it takes some megabytes.
LONGEST = 2**26
_DEEPEST = 20
# What reserves memory before it is read, or names what no file of weights needs.
_REFUSED = {"EXT1", "EXT2", "EXT4", "BYTEARRAY8", "NEXT_BUFFER", "READONLY_BUFFER"}


class Kind(NamedTuple):
    """What a storage holds: the name of a NumPy type, or bfloat16."""

    name: str


@dataclasses.dataclass(frozen=True)
class Storage:
    """Numbers beside the pickle.

    Args:
        key: their key.
        kind: name of their type.
        count: how many they are.
    """

    key: str
    kind: str
    count: int


@dataclasses.dataclass(frozen=True)
class Tensor:
    """A view of a storage.

    Args:
        storage: the storage.
        offset: where it begins there, in numbers.
        shape: its lengths.
        strides: steps along each axis, in numbers.
    """

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    def __setstate__(self, state: Any) -> None:
        raise pickle.UnpicklingError("a tensor is changed after it was made")


class _Ordered(dict):
    """A dictionary that takes no attributes from a file."""

    def __setstate__(self, state: Any) -> None:
        """Drops what PyTorch keeps beside the tensors: versions of its own layers."""


def _tensor(storage: Any, offset: Any, shape: Any, strides: Any, *_: Any) -> Tensor:
    numbers = [offset, *shape, *strides]
    whole = isinstance(storage, Storage) and all(type(n) is int and n >= 0 for n in numbers)
    if not whole or len(shape) != len(strides):
        raise pickle.UnpicklingError("a tensor is no view of a storage")
    last = sum((n - 1) * step for n, step in zip(shape, strides, strict=True))
    # Also where all numbers are one number: it would be written out.
    if math.prod(shape) > storage.count or (0 not in shape and offset + last >= storage.count):
        raise pickle.UnpicklingError("a tensor is larger than its storage")
    return Tensor(storage, offset, tuple(shape), tuple(strides))


def _parameter(tensor: Any, *_: Any) -> Any:
    return tensor


def _text(*parts: Any) -> str:
    return "torch.device"


_KINDS = {
    "Double": "float64", "Float": "float32", "Half": "float16", "BFloat16": "bfloat16",
    "Long": "int64", "Int": "int32", "Short": "int16", "Char": "int8", "Byte": "uint8",
    "Bool": "bool",
}  # fmt: skip
_KNOWN: dict[str, Any] = {
    **{f"torch.{name}Storage": Kind(kind) for name, kind in _KINDS.items()},
    **{f"torch.cuda.{name}Storage": Kind(kind) for name, kind in _KINDS.items()},
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_parameter": _parameter,
    "torch._utils._rebuild_parameter_with_state": _parameter,
    "torch.Size": tuple,
    "torch.device": _text,
    "collections.OrderedDict": _Ordered,
}


class _Reader(pickle.Unpickler):
    """An unpickler for which the names of the list above are all there is."""

    def find_class(self, module: str, name: str) -> Any:
        """Returns what stands for a name.

        Args:
            module: where PyTorch has it.
            name: its name there.

        Raises:
            UserError: on every other name.
        """
        full = f"{module}.{name}"
        if full not in _KNOWN:
            raise UserError(f"names {full[:200]!r}, which is not run for safety's sake; {ALLOWED}")
        return _KNOWN[full]

    def persistent_load(self, pid: Any) -> Storage:
        """Returns a storage by what PyTorch writes of it.

        Args:
            pid: "storage", kind, key, device, count and, in old files, a view.
        """
        match pid:
            case ("storage", Kind(kind), str(key), _, int(count)) if count >= 0:
                return Storage(key, kind, count)
            case ("storage", Kind(kind), str(key), _, int(count), None) if count >= 0:
                return Storage(key, kind, count)
        raise pickle.UnpicklingError("what is stored beside the pickle is no storage of numbers")


def read_pickle(file: IO[bytes]) -> Any:
    """Returns what the next pickle of a file holds: containers, numbers, texts and tensors.

    Args:
        file: the file, whose `read` returns no more than there is, whatever it is asked for.

    Raises:
        UserError: on a name that is not of tensors, a pickle that is not whole, or one that is
            larger than any of weights. The message has no beginning: the file.
    """
    start = file.tell()
    try:
        _check_operations(file, start)
        file.seek(start)
        return _Reader(file, encoding="utf-8").load()
    except UserError:
        raise
    except (
        pickle.UnpicklingError, ValueError, TypeError, AttributeError, LookupError, EOFError,
        OverflowError, RecursionError, ImportError,
    ) as error:  # fmt: skip
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"cannot be read as a PyTorch file ({reason}); {ALLOWED}") from None


def _check_operations(file: IO[bytes], start: int) -> None:
    """Refuses what would take memory before anything of it is read."""
    for number, (operation, argument, position) in enumerate(pickletools.genops(file)):
        place = (position or 0) - start
        if place > LONGEST:
            raise UserError(f"has a pickle of more than {LONGEST // 2**20} MB; {ALLOWED}")
        if operation.name in _REFUSED:
            raise pickle.UnpicklingError(f"operation {operation.name}")
        if operation.name.endswith("PUT") and int(argument or 0) > number:
            raise pickle.UnpicklingError("a memo beyond all that was made")


def named_tensors(tree: Any) -> dict[str, Tensor]:
    """Returns the tensors of a tree by their names, joined with dots.

    Args:
        tree: what a pickle holds.

    Raises:
        UserError: when it is nested deeper than any file of weights, or two have one name.
    """
    found: dict[str, Tensor] = {}
    # A container that stands in many places is gone through once.
    seen: set[int] = set()
    level: list[tuple[str, Any]] = [("", tree)]
    for _ in range(_DEEPEST):
        deeper: list[tuple[str, Any]] = []
        for name, node in level:
            if isinstance(node, Tensor):
                if name in found:
                    raise UserError(f"has two tensors {name!r}; allowed: one.")
                found[name] = node
            elif id(node) not in seen:
                seen.add(id(node))
                deeper += [(f"{name}.{key}" if name else str(key), one) for key, one in _in(node)]
        level = deeper
    if level:
        raise UserError(f"is nested deeper than {_DEEPEST} levels; {ALLOWED}")
    return found


def _in(node: Any) -> Any:
    if isinstance(node, dict):
        return [(key, one) for key, one in node.items() if isinstance(key, (str, int))]
    return enumerate(node) if isinstance(node, (list, tuple)) else ()
