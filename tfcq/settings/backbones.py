"""Which names a backbone can have and which settings each kind takes."""

import math
import re
import sys
from typing import Any

from tfcq.errors import UserError, unknown_choice

APPLICATION, FILE = "applications", "file"
STEMS = ("cifar", "imagenet")
# Height and width of views, in pixels, from which on the first layers are those of large images.
LARGE_IMAGE = 64
SHORTCUTS = ("identity", "projection")
KERNEL_INITIALIZERS = ("uniform_fan_in", "normal_fan_out")
_RESIDUAL = {"kernel_initializer", "zero_init_residual"}
# Of a layer in front of any network of ours.
NORMALIZATION = {"input_mean", "input_std"}
_WIDTHS = {
    **dict.fromkeys(("resnet18", "resnet34", "resnet50"), 64),
    "mobilenet_v2": 32,
    "vit_tiny": 192,
    "vit_small": 384,
}
_SETTINGS = {
    "resnet18": {"stem", "width", *_RESIDUAL, *NORMALIZATION},
    "resnet34": {"stem", "width", *_RESIDUAL, *NORMALIZATION},
    "resnet50": {"stem", "width", *_RESIDUAL, *NORMALIZATION},
    "mobilenet_v2": {"stem", "width", "kernel_initializer", *NORMALIZATION},
    "vit_tiny": {"width", "patch_size", "frozen_patch_projection", *NORMALIZATION},
    "vit_small": {"width", "patch_size", "frozen_patch_projection", *NORMALIZATION},
}
# The pixels that a network takes, lowest and highest value.
UNIT_RANGE = "0-1"
INPUT_RANGES = {UNIT_RANGE: (0.0, 1.0), "0-255": (0.0, 255.0), "-1-1": (-1.0, 1.0)}
_CIFAR_RESNET = "cifar_resnet"
BACKBONE_SETTINGS = frozenset().union(*_SETTINGS.values(), {"shortcut"})
BACKBONE_HELP = (
    f"{', '.join(_SETTINGS)}, {_CIFAR_RESNET}N (N = 20, 32, ..., 152), {APPLICATION}:NAME of "
    f"keras.applications, or {FILE}:PATH.keras"
)


def check_backbone_name(name: str) -> None:
    """Refuses a name that no backbone has.

    Args:
        name: the name.

    Raises:
        UserError: naming the nearest valid one.
    """
    if name in _SETTINGS or cifar_depth(name) is not None:
        return
    kind, _, rest = name.partition(":")
    if kind in (APPLICATION, FILE) and rest:
        return
    examples = (f"{_CIFAR_RESNET}20", f"{_CIFAR_RESNET}110", f"{APPLICATION}:MobileNetV2")
    raise unknown_choice("backbone", name, (*_SETTINGS, *examples, f"{FILE}:PATH.keras"))


def cifar_depth(name: str) -> int | None:
    """Returns the depth of a CIFAR ResNet, None for another backbone.

    Args:
        name: name of a backbone.

    Raises:
        UserError: on a depth that is not 6n+2.
    """
    match = re.fullmatch(rf"{_CIFAR_RESNET}(\d{{1,4}})", name)
    if not match:
        return None
    depth = int(match[1])
    nearest = max(8, 6 * round((depth - 2) / 6) + 2)
    if depth != nearest:
        raise UserError(
            f"Unknown backbone {name!r}; allowed depths are 6n+2: 20, 32, 44, 56, 74, 110, 152, "
            f"... Did you mean '{_CIFAR_RESNET}{nearest}'?"
        )
    return depth


def settings_of(name: str) -> set[str]:
    """Returns the settings that a backbone takes.

    Args:
        name: name of a backbone.
    """
    if cifar_depth(name) is not None:
        return {"width", "shortcut", *_RESIDUAL, *NORMALIZATION}
    return _SETTINGS.get(name, set())


def standard_width(name: str) -> int | None:
    """Returns the width that a backbone has in its paper; None for one that takes none.

    Args:
        name: name of a backbone.
    """
    return 16 if cifar_depth(name) is not None else _WIDTHS.get(name)


def standard_stem(image_size: int) -> str:
    """Returns the first layers that a network has for views of a size.

    Args:
        image_size: height and width of the views, in pixels.
    """
    return "imagenet" if image_size >= LARGE_IMAGE else "cifar"


def standard_start(stem: str | None) -> dict[str, Any]:
    """Returns how the sources start a network of convolutions, by setting.

    PyTorch's own start where images are small; torchvision's with the stem for large ones, and the
    last batch norm of a residual branch at zero, as SSQL's authors and SimSiam have it.

    Args:
        stem: `"cifar"` or `"imagenet"`; None for a network that has one stem, that of small images.
    """
    large = stem == "imagenet"
    initializer = "normal_fan_out" if large else "uniform_fan_in"
    return {"kernel_initializer": initializer, "zero_init_residual": large}


def normalization(
    mean: str | None, deviation: str | None
) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
    """Reads mean and standard deviation of channels, such as `0.485,0.456,0.406`.

    Args:
        mean: the setting `input_mean`.
        deviation: the setting `input_std`.

    Returns:
        The numbers of both; None where neither is given.

    Raises:
        UserError: on one without the other, another form, or a deviation that is not positive.
    """
    if (mean is None) != (deviation is None):
        raise UserError(f"--input_mean={mean} with --input_std={deviation}; allowed: both or none.")
    if mean is None or deviation is None:
        return None
    means = _numbers("input_mean", mean, 0, "of pixels, which lie in 0 to 1")
    return means, _numbers("input_std", deviation, sys.float_info.min, "above 0 to 1")


def _numbers(name: str, text: str, least: float, allowed: str) -> tuple[float, ...]:
    try:
        numbers = tuple(float(part) for part in text.split(","))
    except ValueError:
        numbers = (math.nan,)
    if not all(least <= value <= 1 for value in numbers):
        raise UserError(f"--{name}={text}; allowed: numbers {allowed}, such as 0.5 or 0.2,0.3,0.2.")
    return numbers
