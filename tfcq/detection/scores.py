"""Average precision of detections in every form: over all classes, and of each."""

from collections.abc import Sequence
from typing import Any

from tfcq.detection.average_precision import Detections, Truth, voc_figures_by_class
from tfcq.detection.coco_precision import coco_figures_by_class

BY_CLASS = "by_class"


def scores(
    truths: Sequence[Truth], found: Sequence[Detections], names: Sequence[str]
) -> dict[str, dict[str, Any]]:
    """Returns average precision in percent, in COCO's form and in that of VOC 2007.

    Of masks, where there are any, in COCO's form too.

    Args:
        truths: the boxes of each image.
        found: what was found in each.
        names: names of the classes.

    Returns:
        Figures by name for each form, `coco`, `voc07` and perhaps `coco_masks`; and `by_class`,
        the same of each class by its name, of which a class without a box has None.
    """
    count = len(names)
    forms = {
        "coco": coco_figures_by_class(truths, found, count),
        "voc07": voc_figures_by_class(truths, found, count),
    }
    if any(one.masks is not None for one in truths):
        forms["coco_masks"] = coco_figures_by_class(truths, found, count, masks=True)
    by_class = {
        name: {form: of_classes[number] for form, (_, of_classes) in forms.items()}
        for number, name in enumerate(names)
    }
    return {**{form: figures for form, (figures, _) in forms.items()}, BY_CLASS: by_class}
