"""The kernels of a saved backbone, read without TensorFlow: the only file that imports h5py."""

import dataclasses
import io
import pathlib
import zipfile
from typing import TYPE_CHECKING, Any

from tfcq.errors import UserError
from tfcq.nn.loading import check_whole
from tfcq.parsing import parse_json
from tfcq.settings.bitwidths import HIGHEST_BITS, LOWEST_BITS

if TYPE_CHECKING:
    import numpy as np


@dataclasses.dataclass(frozen=True)
class SavedBackbone:
    """What a `.keras` file says about a backbone.

    Args:
        input_shape: height, width and channels of an image; None where any is allowed.
        kernels: layer to its kernel, float array of at least two dimensions, in the model's order.
    """

    input_shape: tuple[int | None, ...]
    kernels: "dict[str, np.ndarray]"


def read_backbone(file: pathlib.Path) -> SavedBackbone:
    """Returns what a saved backbone holds.

    Args:
        file: the `.keras` file.

    Raises:
        UserError: when it cannot be read as one.
    """
    import h5py

    try:
        check_whole(file)
        with zipfile.ZipFile(file) as opened:
            config = parse_json(opened.read("config.json").decode(), "config.json")
            weights = opened.read("model.weights.h5")
        with h5py.File(io.BytesIO(weights)) as tree:
            # Without the name of the whole model, which would only lengthen every layer's.
            own = [_kernels(member, "") for name, member in tree.items() if name != "vars"]
            found = {layer: kernel for kernels in own for layer, kernel in kernels.items()}
        order = {name: place for place, name in enumerate(_layer_names(config))}
    except (OSError, ValueError, KeyError, TypeError, zipfile.BadZipFile) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{file} cannot be read as a saved Keras model: {reason}.") from None

    def place(name: str) -> int:
        # A layer inside a layer, such as an attention's projection, stands at its outer one.
        known = [order[part] for part in name.split("/") if part in order]
        return known[-1] if known else len(order)

    return SavedBackbone(
        _input_shape(config), {name: found[name] for name in sorted(found, key=place)}
    )


def _kernels(group: Any, path: str) -> "dict[str, np.ndarray]":
    """Returns the kernels below a group of the weights file, by the names of their layers."""
    import h5py

    own = group["vars"].attrs.get("name") if isinstance(group.get("vars"), h5py.Group) else None
    if own is not None:
        path = f"{path}/{own}".lstrip("/")
    found: dict[str, np.ndarray] = {}
    for name, member in group.items():
        if not isinstance(member, h5py.Group):
            continue
        if name != "vars":
            found |= _kernels(member, path)
            continue
        matrices = [number for number in sorted(member, key=int) if _is_kernel(member[number])]
        for number in matrices:
            key = path or name
            found[key if len(matrices) == 1 else f"{key}:{number}"] = member[number][()]
    return found


def _is_kernel(variable: Any) -> bool:
    # A scale per channel has several dimensions too, but only one that is longer than 1, and
    # before it perhaps a row for each number of bits; a 1x1 kernel from one channel cannot be told
    # from it by its shape, and has no outliers to tell.
    rows = HIGHEST_BITS - LOWEST_BITS + 1
    shape = variable.shape[1:] if variable.shape[:1] == (rows,) else variable.shape
    return (
        variable.dtype.kind == "f"
        and variable.ndim >= 2
        and sum(length > 1 for length in shape) >= (1 if variable.ndim == 2 else 2)
        and sum(length > 1 for length in variable.shape) >= 2
    )


def _layers(config: dict[str, Any]) -> list[dict[str, Any]]:
    return config.get("config", {}).get("layers", [])


def _layer_names(config: dict[str, Any]) -> list[str]:
    names = []
    for layer in _layers(config):
        names += [layer["config"]["name"], *_layer_names(layer)]
    return names


def _input_shape(config: dict[str, Any]) -> tuple[int | None, ...]:
    for layer in _layers(config):
        if layer.get("class_name") == "InputLayer":
            return tuple(layer["config"]["batch_shape"][1:])
    return ()
