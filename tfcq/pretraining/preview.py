"""A picture of augmented views: a row for each image, a column for each view."""

import pathlib

from PIL import Image, PngImagePlugin

from tfcq.data.reading_errors import user_errors_of_pipelines
from tfcq.data.sources import source_from
from tfcq.errors import UserError
from tfcq.files import whole_file
from tfcq.pretraining.first_views import PLAIN, first_views, grid
from tfcq.pretraining.memory import has_accelerator
from tfcq.pretraining.run import training_split
from tfcq.settings.defaults import choice, replaced
from tfcq.settings.training import Config

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
    with user_errors_of_pipelines():
        columns = first_views(config, split)
    mark = PngImagePlugin.PngInfo()
    mark.add_text("Software", _MARK)
    with whole_file(file) as temporary:
        Image.fromarray(grid(columns.values())).save(temporary, format="PNG", pnginfo=mark)
    count, size = columns[PLAIN].shape[:2]
    names = ", ".join(f"view {view}" if view else "plain" for view in columns)
    return f"Preview: {file}, {count} images of {size}x{size}; columns: {names}"


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
