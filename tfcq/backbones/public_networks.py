"""Which network a public file of weights holds: found from the names and shapes in it."""

import dataclasses
import math
import re
from typing import Any

from tfcq.backbones.checkpoint_files import CheckpointFile, Stored, read_checkpoint
from tfcq.backbones.public_names import (
    MOBILENET,
    POSITIONS,
    RESNET,
    SEQUENTIAL,
    TIMM,
    TORCHVISION,
    TRANSFORMER,
    layer_name,
)
from tfcq.errors import UserError
from tfcq.settings.backbones import NORMALIZATION, normalization
from tfcq.settings.checkpoints import IMAGENET

# A tensor that each family has, behind whatever prefix. None by detectron2's names: its own files
# are of blue, green and red pixels, and have the stride in another layer.
_ANCHORS = (
    ("layer1.0.conv1.weight", RESNET, TORCHVISION),
    ("4.0.conv1.weight", RESNET, SEQUENTIAL),
    ("features.1.conv.0.0.weight", MOBILENET, TORCHVISION),
    ("blocks.1.0.conv_pwl.weight", MOBILENET, TIMM),
    ("blocks.0.attn.qkv.weight", TRANSFORMER, TIMM),
)
# Words in the names of networks that follow the trained one.
_FOLLOWERS = {"momentum", "target", "teacher", "ema", "key", "k"}
_DEPTHS = (18, 34, 50)
_STAGES = 4
_TRANSFORMER_BLOCKS = 12
# Settings that a file tells.
TAKEN = {*NORMALIZATION, "backbone", "stem", "width", "patch_size"}
_TINY = 192
_KNOWN = "allowed: ResNet-18, 34 and 50, MobileNetV2, and MoCo v3's Vision Transformers"


@dataclasses.dataclass(frozen=True)
class PublicNetwork:
    """A network of ours in a public file.

    Args:
        family: the family of networks.
        library: whose names its tensors have.
        prefix: what stands before those names.
        settings: settings of the network by name, its backbone among them.
        channels: channels of the images.
        size: height and width of the images in pixels where the file tells, else None.
    """

    family: str
    library: str
    prefix: str
    settings: dict[str, Any]
    channels: int
    size: int | None = None


def network_in(file: CheckpointFile) -> PublicNetwork:
    """Returns the network that a file holds.

    Args:
        file: the file.

    Raises:
        UserError: when it holds none of ours, or several.
    """
    try:
        family, library, prefix = _found(file)
        return _READERS[family](file, library, prefix)
    except UserError as error:
        raise UserError(f"{file.path} {error}") from None


def network_of_checkpoint(
    file: CheckpointFile, given: dict[str, Any]
) -> tuple[PublicNetwork, dict[str, Any]]:
    """Returns what a file holds, as settings of a network.

    Args:
        file: the file.
        given: settings that the user set, by name; they stay, and must agree with the file.

    Returns:
        The network, and the settings that were not given.

    Raises:
        UserError: when the file holds no network of ours, another one than asked for, or does not
            tell how images are normalized.
    """
    network = network_in(file)
    for name, seen in network.settings.items():
        # Strides of a MobileNetV2 are no weights: that of its stem is the user's to tell.
        free = name == "stem" and network.family == MOBILENET
        if given.get(name, seen) != seen and not free:
            raise UserError(
                f"{file.path} holds a network with --{name}={seen}, and --{name}={given[name]} was "
                "given; leave it out."
            )
    numbers = {} if given.keys() & NORMALIZATION else _normalization(file, network)
    found = {**network.settings, **numbers}
    return network, {n: value for n, value in found.items() if n not in given}


def settings_of_start(values: dict[str, Any], given: set[str]) -> dict[str, Any]:
    """Returns the settings of the network that a run takes over with a public file of weights.

    Args:
        values: the settings by name; `start` names the file.
        given: names of those that the user set, which stay.

    Raises:
        UserError: as `network_of_checkpoint` does.
    """
    file = read_checkpoint(values["start"])
    _, found = network_of_checkpoint(file, {name: values[name] for name in given & TAKEN})
    return found


def _normalization(file: CheckpointFile, network: PublicNetwork) -> dict[str, Any]:
    """Returns mean and deviation of the images, or nothing where they are as they are."""
    mean, deviation = (file.metadata.get(name) for name in ("input_mean", "input_std"))
    if mean is not None and deviation is not None:
        means, deviations = normalization(mean, deviation) or ((), ())
        plain = set(means) == {0} and set(deviations) == {1}
        return {} if plain else {"input_mean": mean, "input_std": deviation}
    if network.channels == 3 and network.settings.get("stem") != "cifar":
        return dict(IMAGENET)
    raise UserError(
        f"{file.path} does not tell how its images were normalized; give --input_mean and "
        "--input_std, such as 0 and 1 for images in [0, 1] as they are."
    )


def _found(file: CheckpointFile) -> tuple[str, str, str]:
    """Returns family, library and prefix of the one trained network of a file."""
    found = [
        (family, library, name.removesuffix(anchor))
        for anchor, family, library in _ANCHORS
        for name in file.tensors
        if name == anchor or name.endswith(f".{anchor}")
    ]
    trained = [one for one in found if not _FOLLOWERS & set(re.split(r"[._]", one[2]))]
    chosen = trained or found
    if not chosen:
        first = ", ".join(name[:60] for name in list(file.tensors)[:3])
        raise UserError(f"holds no network that is known here ({first}, ...); {_KNOWN}.")
    if len(chosen) > 1:
        names = ", ".join(repr(prefix.removesuffix(".")) for *_, prefix in chosen[:5])
        raise UserError(
            f"holds several networks ({names}); allowed: one, and those that follow it."
        )
    return chosen[0]


def _tensor(file: CheckpointFile, name: str, axes: int) -> Stored:
    tensor = file.tensors.get(name)
    if tensor is None:
        raise UserError(f"lacks {name!r}; allowed: all weights of a backbone.")
    if len(tensor.shape) != axes or 0 in tensor.shape:
        raise UserError(f"has {name!r} of shape {tensor.shape}; allowed: {axes} lengths above 0.")
    return tensor


def _resnet(file: CheckpointFile, library: str, prefix: str) -> PublicNetwork:
    def has(layer: str) -> bool:
        return f"{prefix}{layer_name(RESNET, library, layer)}.weight" in file.tensors

    width, channels, kernel, _ = _tensor(
        file, f"{prefix}{layer_name(RESNET, library, 'stem')}.weight", 4
    ).shape
    blocks = []
    for stage in range(1, _STAGES + 1):
        count = 0
        while has(f"stage{stage}_block{count + 1}_conv1"):
            count += 1
        blocks.append(count)
    depth = sum(blocks) * (3 if has("stage1_block1_conv3") else 2) + 2
    if 0 in blocks or depth not in _DEPTHS:
        raise UserError(f"holds a ResNet with {blocks} blocks, of depth {depth}; {_KNOWN}.")
    if kernel not in (3, 7):
        raise UserError(f"has a stem of {kernel} x {kernel} pixels; allowed: 7 x 7, or 3 x 3.")
    stem = "imagenet" if kernel == 7 else "cifar"
    settings = {"backbone": f"resnet{depth}", "stem": stem, "width": width}
    return PublicNetwork(RESNET, library, prefix, settings, channels)


def _mobilenet(file: CheckpointFile, library: str, prefix: str) -> PublicNetwork:
    stem = f"{prefix}{layer_name(MOBILENET, library, 'stem')}.weight"
    width, channels, *_ = _tensor(file, stem, 4).shape
    # Strides are no weights: those of large images, unless it was written here.
    told = file.metadata.get("stem", "imagenet")
    settings = {"backbone": "mobilenet_v2", "stem": told, "width": width}
    return PublicNetwork(MOBILENET, library, prefix, settings, channels)


def _transformer(file: CheckpointFile, library: str, prefix: str) -> PublicNetwork:
    width, channels, patch, _ = _tensor(file, f"{prefix}patch_embed.proj.weight", 4).shape
    _, tokens, _ = _tensor(file, f"{prefix}{POSITIONS}", 3).shape
    side = math.isqrt(tokens - 1)
    blocks = 0
    while f"{prefix}blocks.{blocks}.attn.qkv.weight" in file.tensors:
        blocks += 1
    whole = f"{prefix}cls_token" in file.tensors and side * side == tokens - 1
    if not whole or blocks != _TRANSFORMER_BLOCKS:
        raise UserError(
            f"holds a Vision Transformer of {blocks} blocks and {tokens} tokens; allowed: "
            f"{_TRANSFORMER_BLOCKS} blocks, a class token and a square of patches."
        )
    name = "vit_tiny" if width == _TINY else "vit_small"
    settings = {"backbone": name, "width": width, "patch_size": patch}
    return PublicNetwork(TRANSFORMER, library, prefix, settings, channels, side * patch)


_READERS = {RESNET: _resnet, MOBILENET: _mobilenet, TRANSFORMER: _transformer}
