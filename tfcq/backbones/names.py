"""Which names a backbone can have and which settings each kind takes. Needs no TensorFlow."""

import re

from tfcq.errors import UserError, unknown_choice

APPLICATION, FILE = "applications", "file"
_SETTINGS = {
    "resnet18": {"stem", "width"},
    "resnet34": {"stem", "width"},
    "resnet50": {"stem", "width"},
    "mobilenet_v2": {"stem", "width"},
    "vit_tiny": {"width", "patch_size", "frozen_patch_projection"},
    "vit_small": {"width", "patch_size", "frozen_patch_projection"},
}
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
    match = re.fullmatch(rf"{_CIFAR_RESNET}(\d+)", name)
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
        return {"width", "shortcut"}
    return _SETTINGS.get(name, set())
