"""Every framework by its name."""

from collections.abc import Callable
from typing import Any

import keras

from tfcq.errors import UserError
from tfcq.pretraining.byol import byol
from tfcq.pretraining.framework import Framework
from tfcq.pretraining.moco import mocov2, mocov3
from tfcq.pretraining.simclr import simclr
from tfcq.pretraining.simsiam import simsiam
from tfcq.settings.frameworks import framework_settings
from tfcq.settings.policies import Policy

FRAMEWORKS: dict[str, Callable[..., Framework]] = {
    "simsiam": simsiam,
    "simclr": simclr,
    "byol": byol,
    "mocov2": mocov2,
    "mocov3": mocov3,
}


def build_framework(
    framework: str | Framework,
    settings: dict[str, Any],
    backbone: keras.Model,
    projector_policy: Policy,
) -> Framework:
    """Returns a framework with heads that fit a backbone; one that is built already as it is.

    Args:
        framework: a name in `FRAMEWORKS`, or a `Framework`.
        settings: settings of a framework given by name; the paper's where none is given.
        backbone: the backbone, to features [batch, width].
        projector_policy: how the projector is quantized.

    Raises:
        UserError: on an unknown name or setting, a setting of a framework that is built already,
            or a backbone whose output is not a vector of features.
    """
    if not isinstance(framework, str):
        if settings:
            raise UserError(
                f"{next(iter(settings))} has no effect: the framework is built already."
            )
        return framework
    settings = framework_settings(framework, settings)
    inputs, outputs = len(backbone.inputs), len(backbone.outputs)
    if (inputs, outputs) != (1, 1):
        raise UserError(
            f"Backbone {backbone.name!r} has {inputs} inputs and {outputs} outputs; allowed: one "
            "of images and one of features, as keras.Model(images, features)."
        )
    shape = backbone.output_shape
    if len(shape) != 2 or shape[-1] is None:
        raise UserError(
            f"Backbone {backbone.name!r} returns shape {shape}; allowed: [batch, width]. "
            "Add keras.layers.GlobalAveragePooling2D()."
        )
    return FRAMEWORKS[framework](shape[-1], projector_policy=projector_policy, **settings)
