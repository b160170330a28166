"""A picture of augmented views: a row for each image, a column for each view."""

import pathlib

import numpy as np
from PIL import Image, PngImagePlugin

from tfcq.data.augmentation import augmentation_from
from tfcq.data.pipeline import view_batches
from tfcq.data.reading_errors import user_errors_of_pipelines
from tfcq.data.sources import source_from
from tfcq.data.split import view_size
from tfcq.errors import UserError
from tfcq.files import whole_file
from tfcq.pretraining.memory import has_accelerator
from tfcq.pretraining.run import training_split
from tfcq.settings.defaults import choice, replaced
from tfcq.settings.recipes import recipe_named
from tfcq.settings.training import Config

_ROWS = 8
# Smaller views are drawn with several pixels for each of theirs.
_LEAST_SIDE = 96
_GAP = 4
_PLAIN = 0
# In the file, which tells it from pictures of others.
_MARK = "tfcq preview"


def draw_preview(
    config: Config, file: pathlib.Path, left_open: frozenset[str] = frozenset()
) -> str:
    """Writes the first images of a run's first step, plain and as its views, as PNG.

    Args:
        config: the settings of the run.
        file: where it is written; an earlier preview is replaced.
        left_open: settings that machine and images choose, see `tfcq.settings.defaults`.

    Returns:
        What was drawn where, in a line.

    Raises:
        UserError: when the images cannot be read, or another file is there.
    """
    _check_own(file)
    split = training_split(config.data, source_from(config.data))
    chosen = choice(config, left_open, split.image_shape, split.size, has_accelerator())
    config = replaced(config, chosen.values)
    size, channels = view_size(split, config.data.image_size), split.image_shape[2]
    augmentation = augmentation_from(config.views, size, channels)
    views = (_PLAIN, *(view for view in recipe_named(config.method.recipe).views if view))
    count = min(_ROWS, split.size, config.optimization.batch_size)
    seed = config.execution.seed
    with user_errors_of_pipelines():
        batches = view_batches(split, augmentation, size, count, seed, views=views)
        columns = next(batches.as_numpy_iterator())
    mark = PngImagePlugin.PngInfo()
    mark.add_text("Software", _MARK)
    with whole_file(file) as temporary:
        Image.fromarray(_grid(columns)).save(temporary, format="PNG", pnginfo=mark)
    names = ("plain", *(f"view {view}" for view in views[1:]))
    return f"Preview: {file}, {count} images of {size}x{size}; columns: {', '.join(names)}"


def _grid(columns: tuple[np.ndarray, ...]) -> np.ndarray:
    """Returns views as one picture, uint8 [height, width, 3].

    Args:
        columns: float [images, size, size, channels] in [0, 1] of each column.
    """
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


def _check_own(file: pathlib.Path) -> None:
    """Refuses to replace a picture that is no preview.

    Raises:
        UserError: naming it.
    """
    if not file.exists():
        return
    try:
        with Image.open(file) as image:
            own = image.info.get("Software") == _MARK
    except OSError:
        own = False
    if not own:
        raise UserError(f"{file} exists and is no preview; move it away, or give a --run_dir.")
