"""What a detection refuses before TensorFlow's start-up: by settings and the heads of files."""

import json
import pathlib
import zipfile
from typing import Any

from tfcq.command_line import stage
from tfcq.data.boxed.annotated_folder import AnnotatedFolder
from tfcq.detection.earlier import check_earlier
from tfcq.detection.stages import check_stages
from tfcq.errors import UserError
from tfcq.files import check_writable
from tfcq.settings import datasets
from tfcq.settings.detection import DetectionConfig
from tfcq.settings.detection_groups import several_sizes
from tfcq.settings.protocols import QAT
from tfcq.settings.run_lock import check_unlocked

# In bytes: a description of a network takes a hundredth of it.
_LONGEST = 2**26


def checked_beforehand(config: DetectionConfig) -> AnnotatedFolder | None:
    """Refuses what needs neither network nor images to be known.

    Args:
        config: the settings.

    Returns:
        The folder of `--dataset=boxes:PATH`, whose JSON is read; None of other data.

    Raises:
        UserError: on a backbone that is not there, is no such ResNet or takes other channels, a
            folder that is in use or holds another detector, or data that cannot be had or do not
            suit.
    """
    config.check_files()
    check_writable(config.folder)
    check_earlier(config.trained_in, config.trained_with())
    if config.measurement.protocol == QAT.name:
        check_earlier(config.folder, config.made_with())
    check_unlocked(config.trained_in, "output_dir")
    dataset, channels = config.data.dataset, None
    datasets.check_boxed_name(dataset, config.masks)
    taken = _channels_of(network := _network_in(config.backbone_file))
    if network:
        check_stages(network["name"], {one["config"]["name"] for one in network["layers"]})
    folder = annotated_folder(config)
    if folder is not None:
        check_tested(dataset, folder.splits)
        stage("Reading boxes")
        _check_sizes(config, None in folder.size())
        for split in folder.splits:
            folder.paths(split)
        channels = 1 if taken == 1 and folder.is_grey() else 3
    elif dataset in datasets.BOXED_TFDS:
        _check_sizes(config, several=True)
        _check_prepared(config, *datasets.BOXED_TFDS[dataset])
        channels = 3
    elif dataset in (datasets.SCENES, f"{datasets.SCENES_PREFIX}{datasets.DIGITS}"):
        channels = 1
    elif datasets.is_tfds(items := dataset.removeprefix(datasets.SCENES_PREFIX)):
        _check_prepared(config, items)
    if None not in (channels, taken) and channels != taken:
        raise other_channels(config, channels, taken)
    return folder


def annotated_folder(config: DetectionConfig) -> AnnotatedFolder | None:
    """Returns the folder of `--dataset=boxes:PATH`; None of other data.

    Args:
        config: the settings.

    Raises:
        UserError: when there is no such folder, or nothing to train on.
    """
    data = config.data
    if not data.dataset.startswith(datasets.BOXES_PREFIX):
        return None
    path = data.dataset.removeprefix(datasets.BOXES_PREFIX)
    return AnnotatedFolder(path, config.masks, data.strict_data, data.holdout, data.holdout_seed)


def check_tested(dataset: str, splits: tuple[str, ...]) -> None:
    """Refuses data without a test split.

    Args:
        dataset: their name.
        splits: what they have.

    Raises:
        UserError: saying how to get one.
    """
    if "test" not in splits:
        raise UserError(
            f"Data set {dataset!r} has no test split; give --holdout=0.2, which tests on that "
            "share of its images instead of training on it, or data with folders train and test."
        )


def other_channels(config: DetectionConfig, given: int | None, taken: int | None) -> UserError:
    """Returns the error for images of other channels than the backbone's.

    Args:
        config: the settings.
        given: channels of the images.
        taken: channels that the backbone takes.
    """
    return UserError(
        f"Images of {config.data.dataset!r} have {given} channels; the backbone of "
        f"{config.backbone_file} takes {taken}; allowed: a backbone trained on as many, as "
        "tfcq.train --channels makes them of any images."
    )


def _network_in(file: pathlib.Path) -> dict[str, Any]:
    """Returns the configuration of the network in a Keras file; an empty one of other files."""
    try:
        with zipfile.ZipFile(file) as opened, opened.open("config.json") as text:
            network = json.loads(text.read(_LONGEST))["config"]
        named = isinstance(network["name"], str)
        return network if named and all(one["config"]["name"] for one in network["layers"]) else {}
    except (OSError, ValueError, LookupError, TypeError, zipfile.BadZipFile):
        # Public weights are no such file; what is wrong with one is told by what loads it.
        return {}


def _channels_of(network: dict[str, Any]) -> int | None:
    """Returns the channels that a network takes; None where its configuration does not tell."""
    try:
        return network["layers"][0]["config"]["batch_shape"][-1]
    except (LookupError, TypeError):
        return None


def _check_sizes(config: DetectionConfig, several: bool) -> None:
    if several and config.data.shorter_sides is None:
        raise several_sizes(config.data.dataset)


def _check_prepared(config: DetectionConfig, *names: str) -> None:
    if config.data.download:
        return
    from tfcq.data.tfds_builder import prepared_builder

    for name in names:
        prepared_builder(name, config.data.data_dir)
