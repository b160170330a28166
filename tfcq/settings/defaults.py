"""What a run takes where size, width, batch or length were left open: by machine and images.

A reader can predict it: nothing here depends on how fast a machine is.
"""

import dataclasses
from typing import Any

from tfcq.settings.backbones import LARGE_IMAGE, settings_of
from tfcq.settings.checkpoints import is_checkpoint
from tfcq.settings.fields import flat
from tfcq.settings.run_folder import RunFolder
from tfcq.settings.training import Config, config_from_flat

OPEN = ("image_size", "width", "batch_size", "epochs")
# Of photographs where there is no accelerator: minutes on two cores.
_SIZE, _WIDTH, _BATCH, _IMAGES_SEEN, _MOST_EPOCHS = LARGE_IMAGE, 16, 128, 40_000, 100
# Of which batch norm still has a variance.
_LEAST_BATCH = 2


def left_open(config: Config, given: set[str], folder: RunFolder) -> tuple[Config, frozenset[str]]:
    """Returns settings, and which of those here machine and images are to choose.

    A run that the folder holds already has chosen, and what it chose is put in.

    Args:
        config: the settings.
        given: names of the settings that the user set.
        folder: the folder of the run.

    Raises:
        UserError: when the folder's config.json cannot be read.
    """
    values = flat(config)
    if values["duration"] is not None:
        given = given | {"epochs"}
    # A run may bring its width to one that starts with its weights.
    brought = {name for name in ("image_size", "width") if values[name] is not None}
    names = frozenset(OPEN) - given - brought
    if not folder.config.exists():
        return config, names
    kept = folder.load_unfinished()
    chosen, asked = flat(kept), folder.asked(kept)
    return replaced(config, {name: chosen[name] for name in names - asked}), frozenset()


@dataclasses.dataclass
class Choice:
    """What a new run takes instead of the usual settings.

    Args:
        values: the values by setting.
        reasons: what decided them, in words.
    """

    values: dict[str, Any]
    reasons: list[str]

    def in_words(self) -> str:
        """Returns one line that says what was chosen and why."""
        flags = " ".join(f"--{name}={value}" for name, value in self.values.items())
        these = "these flags" if len(self.values) > 1 else "this flag"
        return f"{', '.join(self.reasons)}: {flags}; give {these} to choose yourself."


def choice(
    config: Config,
    names: frozenset[str],
    image_shape: tuple[int | None, int | None, int],
    images: int,
    accelerator: bool,
) -> Choice:
    """Returns what a new run takes instead of the usual settings where they were left open.

    Photographs (images of 64 pixels and more, or of several sizes) without an accelerator are
    trained at 64 pixels, width 16 and batch 128, for as many epochs as 40,000 images allow, 1 to
    100. Wherever a batch has more images than there are, it is halved until it has not.

    Args:
        config: the settings.
        names: those that were left open.
        image_shape: height, width and channels of the images; None where they vary.
        images: number of training images.
        accelerator: whether there is one.
    """
    found: dict[str, Any] = {}
    if not accelerator and _are_photographs(image_shape):
        own = settings_of(config.network.backbone)
        # Networks of others have a size of their own.
        if own:
            found["image_size"] = _size_of_start(config)
        if "stem" in own:
            found["width"] = _WIDTH
        found["batch_size"] = _BATCH
        found["epochs"] = min(max(_IMAGES_SEEN // images, 1), _MOST_EPOCHS)
    chosen = Choice({name: value for name, value in found.items() if name in names}, [])
    if chosen.values:
        chosen.reasons.append("No accelerator")
    whole = batch = chosen.values.get("batch_size", config.optimization.batch_size)
    while batch > images and batch > _LEAST_BATCH:
        batch //= 2
    if "batch_size" in names and batch < whole:
        chosen.values["batch_size"] = batch
        chosen.reasons.append(f"{images:,} training images")
    return chosen


def replaced(config: Config, values: dict[str, Any]) -> Config:
    """Returns settings with other values.

    Args:
        config: the settings.
        values: the values by setting.
    """
    return config_from_flat({**flat(config), **values})


def _are_photographs(image_shape: tuple[int | None, int | None, int]) -> bool:
    height, width, _ = image_shape
    return height is None or width is None or max(height, width) >= LARGE_IMAGE


def _size_of_start(config: Config) -> int:
    """Returns the size of views of the run that this one starts with, or else that of any."""
    start = config.network.start
    if start is None or start.endswith(".keras") or is_checkpoint(start):
        return _SIZE
    return RunFolder(start).load_unfinished().data.image_size or _SIZE
