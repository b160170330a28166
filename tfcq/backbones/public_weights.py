"""Weights from a public file into a network of ours, and from a network into public names."""

import keras
import numpy as np

from tfcq.backbones.checkpoint_files import CheckpointFile
from tfcq.backbones.public_names import (
    HEADS,
    POSITIONS,
    TRANSFORMER,
    Place,
    our_form,
    place_of,
    public_form,
)
from tfcq.backbones.public_networks import PublicNetwork
from tfcq.errors import UserError
from tfcq.nn.attention import TokenEmbedding, sine_cosine_positions

# PyTorch counts its batches there, profilers operations and weights; nothing is computed of them.
_COUNTERS = ("num_batches_tracked", "total_ops", "total_params")
_SHOWN = 3
# Layers of a transformer that read tokens and write something else.
_READERS = ("_queries", "_keys", "_values", "_dense1")
# Of sines and cosines in float32, of frequencies that were computed in it too.
_POSITIONS_TOLERANCE = 1e-4


def give_public_weights(
    model: keras.Model, file: CheckpointFile, network: PublicNetwork
) -> list[str]:
    """Gives a network the weights of a public file.

    Args:
        model: the network, float.
        file: the file.
        network: what the file holds, see `network_in`.

    Returns:
        Names of the tensors that were left over, without counters of batches.

    Raises:
        UserError: when a weight is missing or has another shape, or the file's network has others
            between them.
    """
    places = _places(model, network.family, network.library)
    taken = {network.prefix + place.name for *_, place in places}
    missing = sorted(name for name in taken if name not in file.tensors)
    if missing:
        raise UserError(
            f"{file.path} lacks {len(missing)} tensors of a {network.settings['backbone']} "
            f"({_first(missing)}); allowed: all weights of a backbone."
        )
    for layer, variable, place in places:
        name = network.prefix + place.name
        part = public_form(np.empty(variable.shape, np.uint8), layer, variable.name).shape
        whole = (part[0] * place.parts, *part[1:])
        if file.tensors[name].shape != whole:
            raise UserError(
                f"{file.path} is no {network.settings['backbone']}: {name!r} has shape "
                f"{file.tensors[name].shape}; allowed: {whole}."
            )
    left = [n for n in file.tensors if n not in taken and not n.endswith(_COUNTERS)]
    _check_outside(left, taken, file, network)
    turned = False
    if network.family == TRANSFORMER:
        turned = _rows_come_first(file, network)
        left = [name for name in left if name != network.prefix + POSITIONS]
    # Nothing is given before all is known to fit.
    values = {place.name: _numbers(file, network.prefix + place.name) for *_, place in places}
    for layer, variable, place in places:
        value = np.split(values[place.name], place.parts)[place.part]
        ours = our_form(value, layer, variable.name)
        variable.assign(_halves_exchanged(ours, layer, variable.name) if turned else ours)
    return left


def _check_outside(
    left: list[str], taken: set[str], file: CheckpointFile, network: PublicNetwork
) -> None:
    """Refuses weights between those that are taken, such as of squeeze-and-excitation.

    Raises:
        UserError: naming the first of them.
    """

    def root(name: str) -> str:
        return name[: name.index(".", len(network.prefix)) + 1]

    roots = tuple({root(name) for name in taken if "." in name[len(network.prefix) :]})
    inside = sorted(name for name in left if name.startswith(roots))
    if inside:
        raise UserError(
            f"{file.path} is no {network.settings['backbone']}: it has {len(inside)} more tensors "
            f"in it ({_first(inside)}); allowed: none but behind it, such as a classifier."
        )


def in_one_line(names: list[str]) -> str:
    """Returns what is told of tensors that were left over.

    Args:
        names: their names.
    """
    return f"{len(names)} tensors are left over ({_first(names)})" if names else "none is left over"


def public_weights(model: keras.Model, family: str, library: str) -> dict[str, np.ndarray]:
    """Returns the weights of a network by their public names.

    Args:
        model: the network, float.
        family: its family.
        library: whose names.

    Raises:
        UserError: on a layer with weights that has no name there.
    """
    parts: dict[str, list[np.ndarray]] = {}
    # Parts are layers in the order of the model: queries, keys, values.
    for layer, variable, place in _places(model, family, library):
        value = public_form(np.asarray(variable), layer, variable.name)
        parts.setdefault(place.name, []).append(value)
    for layer in model.layers:
        if isinstance(layer, TokenEmbedding):
            patches = np.asarray(layer.positions, np.float32)
            parts[POSITIONS] = [np.concatenate([np.zeros_like(patches[:1]), patches])[None]]
    return {n: np.ascontiguousarray(np.concatenate(values)) for n, values in parts.items()}


def _places(
    model: keras.Model, family: str, library: str
) -> list[tuple[str, keras.Variable, Place]]:
    """Returns every variable that has a place in a public file: its layer's name, it, the place.

    Normalized images have none, and a detector no classifier.

    Raises:
        UserError: on another layer that has none.
    """
    found = []
    for layer in model.layers:
        if isinstance(layer, keras.layers.Normalization):
            continue
        for variable in layer.weights:
            place = place_of(family, library, layer.name, variable.name)
            if place is not None:
                found.append((layer.name, variable, place))
            elif layer.name not in HEADS:
                raise UserError(f"Layer {layer.name!r} has no name in {library}.")
    return found


def _numbers(file: CheckpointFile, name: str) -> np.ndarray:
    numbers = np.asarray(file.tensors[name].read()).astype(np.float32)
    if not np.all(np.isfinite(numbers)):
        raise UserError(f"{file.path} has NaN or infinity in {name!r}; allowed: numbers.")
    return numbers


def _rows_come_first(file: CheckpointFile, network: PublicNetwork) -> bool:
    """Returns whether positions have their row in the first half of the width, ours in the second.

    MoCo v3's code has, since it numbers its grid along columns.

    Raises:
        UserError: when the embeddings of positions were learned: ours are computed.
    """
    found = _numbers(file, network.prefix + POSITIONS)[0]
    side = (network.size or 0) // network.settings["patch_size"]
    patches = sine_cosine_positions(side, side, found.shape[-1])
    fixed = np.concatenate([np.zeros_like(patches[:1]), patches])
    for turned in (False, True):
        if np.allclose(found, _exchanged(fixed, 1) if turned else fixed, atol=_POSITIONS_TOLERANCE):
            return turned
    raise UserError(
        f"{file.path} has learned embeddings of positions; allowed: fixed sines and cosines, as "
        "MoCo v3's."
    )


def _exchanged(value: np.ndarray, axis: int) -> np.ndarray:
    return np.roll(value, value.shape[axis] // 2, axis)


def _halves_exchanged(value: np.ndarray, layer: str, variable: str) -> np.ndarray:
    """Returns a variable of a transformer whose tokens have the halves of their width exchanged.

    Layer norms and sums do not see in which order the width comes, so the network is the same one,
    and its features come in that order.

    Args:
        value: the variable, as ours.
        layer: name of its layer.
        variable: its name.
    """
    if layer.endswith(_READERS) or layer in HEADS:
        return _exchanged(value, 0) if variable == "kernel" else value
    return _exchanged(value, value.ndim - 1)


def _first(names: list[str]) -> str:
    return ", ".join(name[:100] for name in names[:_SHOWN]) + (", ..." if names[_SHOWN:] else "")
