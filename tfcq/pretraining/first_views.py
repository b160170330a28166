"""The views that the first step of a run sees, as one picture."""

from collections.abc import Iterable

import numpy as np

from tfcq.data.augmentation import augmentation_from
from tfcq.data.split import Split, view_size
from tfcq.data.views import view_batches
from tfcq.settings.recipes import recipe_named
from tfcq.settings.training import Config

PLAIN = 0
_ROWS = 8
# Smaller views are drawn with several pixels for each of theirs.
_LEAST_SIDE = 96
_GAP = 4


def first_views(config: Config, split: Split) -> dict[int, np.ndarray]:
    """Returns the first images of a run's first step, plain and as its views.

    Args:
        config: the settings of the run.
        split: its images.

    Returns:
        Float [images, size, size, channels] in [0, 1] by the number of the view.
    """
    size, channels = view_size(split, config.data.image_size), split.image_shape[2]
    augmentation = augmentation_from(config.views, size, channels)
    views = (PLAIN, *(view for view in recipe_named(config.method.recipe).views if view))
    count = min(_ROWS, split.size, config.optimization.batch_size)
    batches = view_batches(split, augmentation, size, count, config.execution.seed, views=views)
    return dict(zip(views, next(batches.as_numpy_iterator()), strict=True))


def grid(views: Iterable[np.ndarray]) -> np.ndarray:
    """Returns views as one picture, uint8 [height, width, 3].

    Args:
        views: float [images, size, size, channels] in [0, 1] of each column.
    """
    columns = list(views)
    size = columns[0].shape[1]
    times = max(1, -(-_LEAST_SIDE // size))
    side = size * times + _GAP
    picture = np.full((len(columns[0]) * side + _GAP, len(columns) * side + _GAP, 3), 255, np.uint8)
    for column, images in enumerate(columns):
        pixels = np.rint(np.clip(images, 0, 1) * 255).astype(np.uint8)
        for row, image in enumerate(pixels.repeat(times, axis=1).repeat(times, axis=2)):
            top, left = row * side + _GAP, column * side + _GAP
            picture[top : top + size * times, left : left + size * times] = image
    return picture
