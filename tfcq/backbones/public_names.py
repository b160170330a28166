"""What layers and variables of ours are called in torchvision, timm and detectron2."""

import re
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

RESNET, MOBILENET, TRANSFORMER = "ResNet", "MobileNetV2", "Vision Transformer"
TORCHVISION, TIMM, DETECTRON2, SEQUENTIAL = "torchvision", "timm", "detectron2", "sequential"
# Names of the layer behind the features, ours and by names of theirs.
HEADS = ("classifier", "logits")
_HEADS = {
    (RESNET, TORCHVISION): "fc",
    (RESNET, TIMM): "fc",
    (MOBILENET, TORCHVISION): "classifier.1",
    (MOBILENET, TIMM): "classifier",
    (TRANSFORMER, TIMM): "head",
}
_VARIABLES = {
    "kernel": "weight", "bias": "bias", "gamma": "weight", "beta": "bias",
    "moving_mean": "running_mean", "moving_variance": "running_var",
}  # fmt: skip
# Number of the first block of each stage of MobileNetV2 in torchvision, which counts on.
_FIRST_FEATURES = (1, 2, 4, 7, 11, 14, 17)
POSITIONS = "pos_embed"


class Place(NamedTuple):
    """Where a variable stands: a tensor, or one of equal parts of it along its first axis."""

    name: str
    part: int = 0
    parts: int = 1


def _resnet(layer: str) -> str | None:
    if layer in ("stem", "stem_norm"):
        return "bn1" if layer.endswith("_norm") else "conv1"
    found = re.fullmatch(r"stage(\d+)_block(\d+)_(?:conv(\d)|shortcut)(_norm)?", layer)
    if found is None:
        return None
    stage, block, number, norm = found.groups()
    place = f"layer{stage}.{int(block) - 1}"
    if number is None:
        return f"{place}.downsample.{1 if norm else 0}"
    return f"{place}.{'bn' if norm else 'conv'}{number}"


def _detectron2(layer: str) -> str | None:
    """As detectron2's tools/convert-torchvision-to-d2.py renames what torchvision has."""
    name = _resnet(layer)
    if name is None:
        return None
    name = name if name.startswith("layer") else f"stem.{name}"
    name = re.sub(r"layer(\d)", lambda found: f"res{int(found[1]) + 1}", name)
    name = re.sub(r"bn(\d)", r"conv\1.norm", name)
    return name.replace("downsample.0", "shortcut").replace("downsample.1", "shortcut.norm")


def _sequential(layer: str) -> str | None:
    """As `nn.Sequential(*resnet.children())` numbers what torchvision has."""
    name = _resnet(layer)
    if name is None:
        return None
    first, _, rest = name.partition(".")
    number = {"conv1": 0, "bn1": 1}.get(first)
    return f"{int(first.removeprefix('layer')) + 3}.{rest}" if number is None else str(number)


def _mobilenet_part(layer: str) -> tuple[int, int, str, bool] | None:
    found = re.fullmatch(r"stage(\d)_block(\d+)_(expand|depthwise|project)(_norm)?", layer)
    return found and (int(found[1]), int(found[2]), found[3], bool(found[4]))


def _mobilenet(layer: str) -> str | None:
    ends = {"stem": 0, "last": 18}
    root = layer.removesuffix("_norm")
    if root in ends:
        return f"features.{ends[root]}.{int(layer != root)}"
    part = _mobilenet_part(layer)
    if part is None:
        return None
    stage, block, kind, norm = part
    place = f"features.{_FIRST_FEATURES[stage - 1] + block - 1}.conv"
    expanded = int(stage > 1)
    if kind == "project":
        return f"{place}.{expanded + 1 + norm}"
    return f"{place}.{expanded if kind == 'depthwise' else 0}.{int(norm)}"


def _timm_mobilenet(layer: str) -> str | None:
    ends = {"stem": "conv_stem", "stem_norm": "bn1", "last": "conv_head", "last_norm": "bn2"}
    if layer in ends:
        return ends[layer]
    part = _mobilenet_part(layer)
    if part is None:
        return None
    stage, block, kind, norm = part
    kinds = {"expand": "conv_pw", "depthwise": "conv_dw", "project": "conv_pwl"}
    if stage == 1:
        kinds = {"depthwise": "conv_dw", "project": "conv_pw"}
    name = f"bn{list(kinds).index(kind) + 1}" if norm else kinds[kind]
    return f"blocks.{stage - 1}.{block - 1}.{name}"


def _transformer(layer: str) -> str | None:
    ends = {"patch_projection": "patch_embed.proj", "tokens": "cls_token", "features": "norm"}
    if layer in ends:
        return ends[layer]
    parts = {
        "attention_norm": "norm1", "attention_queries": "attn.qkv", "attention_keys": "attn.qkv",
        "attention_values": "attn.qkv", "attention_projection": "attn.proj", "mlp_norm": "norm2",
        "mlp_dense1": "mlp.fc1", "mlp_dense2": "mlp.fc2",
    }  # fmt: skip
    found = re.fullmatch(r"block(\d+)_(\w+)", layer)
    if found is None or found[2] not in parts:
        return None
    return f"blocks.{int(found[1]) - 1}.{parts[found[2]]}"


_LAYERS: dict[tuple[str, str], Callable[[str], str | None]] = {
    (RESNET, TORCHVISION): _resnet,
    (RESNET, TIMM): _resnet,
    (RESNET, DETECTRON2): _detectron2,
    (RESNET, SEQUENTIAL): _sequential,
    (MOBILENET, TORCHVISION): _mobilenet,
    (MOBILENET, TIMM): _timm_mobilenet,
    (TRANSFORMER, TIMM): _transformer,
}


def libraries_of(family: str) -> list[str]:
    """Returns the libraries that have names for a family of networks.

    Args:
        family: the family.
    """
    return [library for one, library in _LAYERS if one == family and library != SEQUENTIAL]


def layer_name(family: str, library: str, layer: str) -> str | None:
    """Returns what a layer of ours is called; None for one that has no name there.

    Args:
        family: the family of networks.
        library: whose names.
        layer: our name.
    """
    if layer in HEADS:
        return _HEADS.get((family, library))
    return _LAYERS[family, library](layer)


def place_of(family: str, library: str, layer: str, variable: str) -> Place | None:
    """Returns where a variable of ours stands; None for one that has no name there.

    Args:
        family: the family of networks.
        library: whose names.
        layer: name of our layer.
        variable: name of its variable.
    """
    name = layer_name(family, library, layer)
    if name is None or variable == "class_token":
        return None if name is None else Place(name)
    if variable not in _VARIABLES:
        return None
    place = f"{name}.{_VARIABLES[variable]}"
    thirds = [f"_attention_{part}" for part in ("queries", "keys", "values")]
    part = next((n for n, ending in enumerate(thirds) if layer.endswith(ending)), None)
    return Place(place) if part is None else Place(place, part, len(thirds))


def public_form(value: np.ndarray, layer: str, variable: str) -> np.ndarray:
    """Returns a variable as PyTorch's layers have it.

    Args:
        value: kernels of convolutions [height, width, inputs, outputs], of depthwise ones [height,
            width, channels, 1], of dense layers [inputs, outputs]; others as they are.
        layer: name of our layer.
        variable: name of its variable.
    """
    if variable == "class_token":
        return value.reshape(1, 1, -1)
    if value.ndim == 4:
        return value.transpose((2, 3, 0, 1) if layer.endswith("_depthwise") else (3, 2, 0, 1))
    return value.T


def our_form(value: np.ndarray, layer: str, variable: str) -> np.ndarray:
    """Returns a variable as ours: the inverse of `public_form`.

    Args:
        value: as `public_form` returns it.
        layer: name of our layer.
        variable: name of its variable.
    """
    if variable == "class_token":
        return value.reshape(-1)
    if value.ndim == 4:
        return value.transpose((2, 3, 0, 1) if layer.endswith("_depthwise") else (2, 3, 1, 0))
    return value.T
