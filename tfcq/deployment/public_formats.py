"""The weights of a network by the names of torchvision, timm and detectron2, for those who go on
there."""

import dataclasses
import importlib.metadata
import pathlib
import pickle
from typing import Any

import keras
import numpy as np

from tfcq.backbones.build import backbone_from
from tfcq.backbones.checkpoint_files import CheckpointFile, Stored
from tfcq.backbones.public_names import (
    DETECTRON2,
    HEADS,
    MOBILENET,
    RESNET,
    TORCHVISION,
    TRANSFORMER,
    layer_name,
    libraries_of,
)
from tfcq.backbones.public_networks import PublicNetwork, network_of_checkpoint
from tfcq.backbones.public_weights import give_public_weights, public_weights
from tfcq.errors import UserError
from tfcq.files import whole_file, write_text
from tfcq.nn.float_model import float_model
from tfcq.nn.quantizable import QuantizableModel
from tfcq.settings.backbones import UNIT_RANGE, standard_width
from tfcq.settings.training_groups import NetworkSettings

# A layer that each family has.
_FAMILIES = {
    "stage1_block1_depthwise": MOBILENET,
    "stage1_block1_conv1": RESNET,
    "block1_attention_queries": TRANSFORMER,
}
_ANY_SIZE = 64
_PIXELS = 255
# Of detectron2's stem, and of its ResNets without bottlenecks.
_STEM, _DETECTOR_WIDTH = 7, 64
# Of our small Vision Transformer, as MoCo v3 has it, and of timm's.
_OUR_HEADS, _TIMM_HEADS = 12, 6


@dataclasses.dataclass(frozen=True, eq=False)
class PublicWeights:
    """A network by its public names.

    Args:
        library: whose names.
        family: the family of networks.
        settings: settings of the network by name, its backbone among them.
        tensors: float32 arrays by name, as PyTorch's layers have them.
        metadata: which pixels it takes, and what it is.
        told: how it differs from the library's own network; empty where it does not.
    """

    library: str
    family: str
    settings: dict[str, Any]
    tensors: dict[str, np.ndarray]
    metadata: dict[str, str]
    told: str = ""

    def with_classifier(self, kernel: np.ndarray, bias: np.ndarray) -> "PublicWeights":
        """Returns the same with a dense layer behind the features; a detector has none.

        Args:
            kernel: float [width, classes].
            bias: float [classes].
        """
        name = layer_name(self.family, self.library, HEADS[0])
        if name is None:
            return self
        head = {f"{name}.weight": np.ascontiguousarray(kernel.T), f"{name}.bias": bias}
        head = {name: np.asarray(value, np.float32) for name, value in head.items()}
        return dataclasses.replace(self, tensors={**self.tensors, **head})


def in_public_names(model: keras.Model, library: str) -> PublicWeights:
    """Returns the weights of a network of ours by their public names.

    A network is built anew of what is returned, as reading does, and must compute the same.

    Args:
        model: the network, of images in [0, 1], quantizable or not.
        library: whose names.

    Raises:
        UserError: when the library has no names for it.
    """
    plain = float_model(model) if isinstance(model, QuantizableModel) else model
    names = {layer.name for layer in plain.layers}
    family = next((family for layer, family in _FAMILIES.items() if layer in names), None)
    if family is None:
        raise UserError(
            f"--format={library}: network {model.name!r} is none that has public names; allowed: "
            "ResNets, MobileNetV2 and Vision Transformers as tfcq.train makes them."
        )
    libraries = libraries_of(family)
    if library == DETECTRON2 and DETECTRON2 in libraries:
        _check_detector(plain)
    if library not in libraries:
        raise UserError(f"--format={library} has no {family}; allowed: {', '.join(libraries)}.")
    # The names of detectron2 are those of torchvision, renamed.
    read = TORCHVISION if library == DETECTRON2 else library
    known = public_weights(plain, family, read)
    mean, deviation = _normalization(plain)
    metadata = {
        "format": "pt",
        "written_by": f"tfcq {importlib.metadata.version('tfcq')}",
        "input_range": UNIT_RANGE,
        "channels": "RGB" if plain.input_shape[-1] == 3 else str(plain.input_shape[-1]),
        "input_mean": mean,
        "input_std": deviation,
    }
    if family == MOBILENET:
        small = plain.get_layer("stem").strides[0] == 1
        metadata["stem"] = "cifar" if small else "imagenet"
    stored = {n: Stored(v.shape, v.copy) for n, v in known.items()}
    file = CheckpointFile(f"--format={library}", stored, metadata)
    network, found = network_of_checkpoint(file, {})
    _check_same(plain, file, network, found)
    metadata |= {name: str(value) for name, value in network.settings.items()}
    told = _difference(library, network)
    tensors = known if read == library else public_weights(plain, family, library)
    return PublicWeights(library, family, network.settings, tensors, metadata, told)


def _normalization(model: keras.Model) -> tuple[str, str]:
    """Returns mean and deviation that the layers before the first kernel make 0 and 1."""
    scale, offset = np.ones(model.input_shape[-1]), np.zeros(model.input_shape[-1])
    for layer in model.layers:
        if isinstance(layer, keras.layers.Rescaling):
            step, shift = np.asarray(layer.scale), np.asarray(layer.offset)
        elif isinstance(layer, keras.layers.Normalization):
            step = 1 / np.sqrt(np.ravel(layer.variance).astype(np.float64))
            shift = -np.ravel(layer.mean).astype(np.float64) * step
        elif layer.weights:
            break
        else:
            continue
        scale, offset = scale * step, offset * step + shift
    # As many digits as float32 has: 0.225 instead of what its square's root is.
    mean, deviation = ([f"{n + 0:.7g}" for n in v] for v in (-offset / scale, 1 / scale))
    return ",".join(mean), ",".join(deviation)


def _check_same(
    model: keras.Model, file: CheckpointFile, network: PublicNetwork, found: dict[str, Any]
) -> None:
    """Refuses a network that another one than ours has become.

    Raises:
        UserError: saying of which network it has the names.
    """
    backbone = next(
        (layer.output for layer in model.layers if layer.name == "features"), model.outputs[0]
    )
    height, width, channels = model.input_shape[1:]
    shape = (height or _ANY_SIZE, width or _ANY_SIZE, channels)
    again = backbone_from(NetworkSettings(**found), shape)
    give_public_weights(again, file, network)
    images = np.random.default_rng(0).random((2, *shape), np.float32)
    expected = np.asarray(keras.Model(model.inputs[0], backbone)(images))
    seen = np.asarray(again(images))
    if seen.shape != expected.shape or not np.allclose(
        seen, expected, rtol=1e-3, atol=1e-4 * float(np.max(np.abs(expected)))
    ):
        raise UserError(
            f"{file.path}: network {model.name!r} has the layers of a {found['backbone']} and "
            "computes something else; allowed: the network as tfcq.train makes it."
        )


def _difference(library: str, network: PublicNetwork) -> str:
    """Returns what of a network is another than the library's own, in one line."""
    settings = network.settings
    pairs = [
        ("stem", settings.get("stem", "imagenet"), "imagenet"),
        ("width", settings["width"], standard_width(settings["backbone"])),
        ("channels", network.channels, 3),
    ]
    if settings["backbone"] == "vit_small":
        pairs.append(("heads", _OUR_HEADS, _TIMM_HEADS))
    other = [f"{name} {ours} (not {theirs})" for name, ours, theirs in pairs if ours != theirs]
    if not other or library == DETECTRON2:
        return ""
    return (
        f"The names are those of {library}, whose own {settings['backbone']} is another network: "
        f"this one has {', '.join(other)}."
    )


def _check_detector(model: keras.Model) -> None:
    """Refuses a backbone that detectron2 cannot be told of.

    Raises:
        UserError: saying what it has.
    """
    stem = model.get_layer("stem")
    bottleneck = any(layer.name == "stage1_block1_conv3" for layer in model.layers)
    if stem.kernel_size[0] != _STEM or (not bottleneck and stem.filters != _DETECTOR_WIDTH):
        raise UserError(
            f"--format=detectron2 has no ResNet with a stem of {stem.kernel_size[0]} x "
            f"{stem.kernel_size[1]} pixels and width {stem.filters}; allowed: --stem=imagenet, and "
            f"--width={_DETECTOR_WIDTH} for a ResNet-18 or 34."
        )


def write_public(weights: PublicWeights, plain: pathlib.Path) -> list[pathlib.Path]:
    """Writes weights by their public names: safetensors, or what detectron2 reads.

    Args:
        weights: the weights.
        plain: path of the float file, without suffix.
    """
    place = plain.with_name(f"{plain.name}_{weights.library}")
    if weights.told:
        print(weights.told, flush=True)
    if weights.library == DETECTRON2:
        return _detectron2(weights, place)
    # Where it is needed, as where files are read.
    from safetensors.numpy import save_file

    path = place.with_suffix(".safetensors")
    with whole_file(path) as temporary:
        save_file(weights.tensors, temporary, weights.metadata)
    return [path]


class _Pickler(pickle.Pickler):
    """Arrays by what every NumPy has; its own pickles name modules that moved in NumPy 2."""

    def reducer_override(self, value: Any) -> Any:
        """Returns how an array is made again.

        Args:
            value: what is pickled.
        """
        if isinstance(value, np.ndarray):
            return np.ndarray, (value.shape, value.dtype.str, bytearray(value.tobytes()))
        return NotImplemented


def _detectron2(weights: PublicWeights, place: pathlib.Path) -> list[pathlib.Path]:
    """Writes a backbone as detectron2's own converter does, and the configuration beside it."""
    paths = [place.with_suffix(".pkl"), place.with_suffix(".yaml")]
    whole = {
        "model": weights.tensors,
        "__author__": "tfcq",
        "matching_heuristics": True,
        "metadata": weights.metadata,
    }
    with whole_file(paths[0]) as temporary, temporary.open("wb") as opened:
        _Pickler(opened, protocol=4).dump(whole)
    write_text(paths[1], _configuration(weights, paths[0].name))
    return paths


def _configuration(weights: PublicWeights, name: str) -> str:
    """Returns what detectron2 must be told of the network and its pixels, as YAML."""
    depth, width = int(weights.settings["backbone"][6:]), weights.settings["width"]
    mean, deviation = (
        [_PIXELS * float(n) for n in weights.metadata[key].split(",")]
        for key in ("input_mean", "input_std")
    )
    bottleneck = depth >= 50
    channels = {
        "DEPTH": depth,
        "STRIDE_IN_1X1": "false",
        "STEM_OUT_CHANNELS": width,
        "RES2_OUT_CHANNELS": width * (4 if bottleneck else 1),
        **({"WIDTH_PER_GROUP": width} if bottleneck else {}),
    }
    numbers = [", ".join(f"{n:.6g}" for n in values) for values in (mean, deviation)]
    lines = [
        "# Beside a configuration of detectron2: the backbone, and the pixels that it takes.",
        "MODEL:",
        f"  WEIGHTS: {name}",
        f"  PIXEL_MEAN: [{numbers[0]}]",
        f"  PIXEL_STD: [{numbers[1]}]",
        "  RESNETS:",
        *(f"    {key}: {value}" for key, value in channels.items()),
        "INPUT:",
        f"  FORMAT: {'RGB' if len(mean) == 3 else 'L'}",
    ]
    return "\n".join(lines) + "\n"
