"""Opens any source of images by its name, or from settings."""

from tfcq.data.channels import ChannelsSource
from tfcq.data.digits import DigitsSource
from tfcq.data.folder import FolderSource
from tfcq.data.holdout import HoldoutSource
from tfcq.data.split import Source, Split
from tfcq.errors import UserError
from tfcq.settings import datasets
from tfcq.settings.training_groups import DataSettings


def open_source(
    dataset: str,
    data_dir: str | None = None,
    download: bool = False,
    strict: bool = False,
    background: tuple[int, int, int] = datasets.BACKGROUND,
) -> Source:
    """Opens a data set by name.

    Args:
        dataset: `digits`, `folder:PATH` or a TFDS name.
        data_dir: where TFDS data sets are prepared; None is TFDS's own default. TFDS names only.
        download: whether TFDS may download what is not prepared. TFDS names only.
        strict: whether a broken image file is an error instead of being skipped. Folders only.
        background: red, green and blue behind transparent pixels. Folders only.

    Raises:
        UserError: no such data set, a data set that is not prepared, or an argument that the
            data set has no use for.
    """
    datasets.check_dataset_name(dataset)
    if not datasets.is_tfds(dataset) and (data_dir is not None or download):
        raise UserError(
            f"Data set {dataset!r} has no use for data_dir={data_dir!r}, download={download};"
            " allowed: these with TensorFlow data sets only."
        )
    if dataset.startswith(datasets.FOLDER_PREFIX):
        return FolderSource(dataset.removeprefix(datasets.FOLDER_PREFIX), strict, background)
    if strict:
        raise UserError(f"strict has no use for data set {dataset!r}; allowed: with folder:PATH.")
    if dataset == datasets.DIGITS:
        return DigitsSource()
    from tfcq.data.tfds_source import TfdsSource

    return TfdsSource(dataset, data_dir, download)


def source_from(data: DataSettings) -> Source:
    """Opens the data set of settings.

    Args:
        data: the settings.

    Raises:
        UserError: when it is unknown or not prepared, or has a test split although one is to be
            held out.
    """
    background = datasets.colour("background", data.background)
    source = open_source(data.dataset, data.data_dir, data.download, data.strict_data, background)
    if data.channels is not None:
        source = ChannelsSource(source, int(data.channels))
    if data.holdout is None:
        return source
    return HoldoutSource(source, data.holdout, data.holdout_seed)


def evaluation_needs(source: Source, train: Split) -> str | None:
    """Returns what evaluating on a source needs beside it, in a line; None where it has all.

    Args:
        source: the source.
        train: its training split.
    """
    if train.class_names is None:
        return (
            f"Data set {source.name!r} has no labels; evaluation needs --dataset with classes, "
            "such as a folder with one sub-folder per class."
        )
    if "test" not in source.splits:
        return (
            f"Data set {source.name!r} has no test split; evaluation needs --dataset with one, or "
            "--holdout=0.2, which belongs to training already, or it sees the images tested."
        )
    return None
