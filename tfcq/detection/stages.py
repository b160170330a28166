"""Which networks a detector can be built on, by the names of their layers."""

from collections.abc import Collection

from tfcq.errors import UserError


def check_stages(backbone: str, layers: Collection[str]) -> None:
    """Refuses a network that is no ResNet of this library with the stem for large images.

    Args:
        backbone: its name.
        layers: names of its layers.

    Raises:
        UserError: saying what it lacks.
    """
    if not {"stage1_block1_relu", "stage4_block1_relu"} <= set(layers):
        raise UserError(
            f"Backbone {backbone!r} has no four stages to detect with; allowed: resnet18, "
            "resnet34 or resnet50."
        )
    if "stem_pool" not in layers:
        raise UserError(
            f"Backbone {backbone!r} has the stem for small images, whose features are too "
            "fine for a detector; allowed: a backbone trained with --stem=imagenet."
        )
