"""The settings of each framework, with the values of its paper."""

from typing import Any

from tfcq.errors import UserError, unknown_choice

MOMENTUM_SCHEDULES = ("constant", "cosine")
TARGET_UPDATES = ("after_step", "before_targets")
REGRESSION_LOSSES = ("normalized_mse", "negative_cosine")
PROJECTION_NORMS = ("none", "fixed", "affine")

# Of frameworks whose public codes differ in the projector's depth and end.
_PROJECTOR = {"projection_layers": 2, "projection_norm": "none"}
# Of frameworks whose targets come from a slowly moving copy of the network.
_MOMENTUM = {"target_momentum_schedule": "constant", "target_update": "after_step"}

FRAMEWORK_SETTINGS: dict[str, dict[str, Any]] = {
    # Chen and He 2021, Sec. 3.
    "simsiam": {"projection_width": 2048, "predictor_width": 512},
    # Chen et al. 2020, Sec. 4.2 and Appendix B.
    "simclr": {
        "projection_width": 128,
        "projection_hidden": 2048,
        **_PROJECTOR,
        "temperature": 0.5,
    },
    # Grill et al. 2020, Sec. 3.3.
    "byol": {
        "projection_width": 256,
        "projection_hidden": 4096,
        **_PROJECTOR,
        "predictor_width": 4096,
        "regression_loss": "normalized_mse",
        "target_momentum": 0.996,
        **_MOMENTUM,
        "target_momentum_schedule": "cosine",
    },
    # He et al. 2020, Sec. 3.3, and Chen et al. 2020 (MoCo v2).
    "mocov2": {
        "projection_width": 128,
        "projection_hidden": 2048,
        "temperature": 0.2,
        "queue_size": 65536,
        "target_momentum": 0.999,
        **_MOMENTUM,
    },
    # Chen, Xie and He 2021, Algorithm 1 and Sec. 4.
    "mocov3": {
        "projection_width": 256,
        "projection_hidden": 4096,
        "predictor_width": 4096,
        "temperature": 0.2,
        "target_momentum": 0.99,
        **_MOMENTUM,
        "target_momentum_schedule": "cosine",
    },
}

_CHOICES = {
    "target_momentum_schedule": MOMENTUM_SCHEDULES,
    "target_update": TARGET_UPDATES,
    "regression_loss": REGRESSION_LOSSES,
    "projection_norm": PROJECTION_NORMS,
}


def framework_settings(framework: str, given: dict[str, Any]) -> dict[str, Any]:
    """Returns every setting of a framework: those given, then the paper's.

    Args:
        framework: a name in `FRAMEWORK_SETTINGS`.
        given: values by setting; None stands for the paper's.

    Raises:
        UserError: on an unknown framework, a setting that it does not have, or a value that
            cannot be used.
    """
    if framework not in FRAMEWORK_SETTINGS:
        raise unknown_choice("framework", framework, FRAMEWORK_SETTINGS)
    settings = dict(FRAMEWORK_SETTINGS[framework])
    for name, value in given.items():
        if value is None:
            continue
        owners = [other for other, own in FRAMEWORK_SETTINGS.items() if name in own]
        if name not in settings and owners:
            raise UserError(
                f"{name} has no effect with framework {framework!r}, which has none; leave it out, "
                f"or choose one of {', '.join(owners)}."
            )
        if name not in settings:
            raise unknown_choice(f"setting of framework {framework!r}", name, settings)
        settings[name] = value
    check_settings(settings)
    return settings


def check_settings(settings: dict[str, Any]) -> None:
    """Refuses values that no framework can use.

    Args:
        settings: values by setting.

    Raises:
        UserError: naming the first of them and what is allowed.
    """
    for name, value in settings.items():
        if name in _CHOICES:
            if value not in _CHOICES[name]:
                raise unknown_choice(name, value, _CHOICES[name])
        elif name == "target_momentum":
            if not isinstance(value, (int, float)) or not 0 <= value < 1:
                raise UserError(f"target_momentum={value} cannot be used; allowed: 0 to below 1.")
        elif name == "temperature":
            if not isinstance(value, (int, float)) or not value > 0:
                raise UserError(f"temperature={value} cannot be used; allowed: above zero.")
        elif type(value) is not int or value < 1:
            raise UserError(f"{name}={value} cannot be used; allowed: 1 and above, such as 1.")
