"""Which data sets of TensorFlow Datasets are prepared, known without importing TensorFlow."""

import difflib
import os

from absl import logging

from tfcq.errors import UserError
from tfcq.settings import datasets

try:
    import tensorflow_datasets as tfds
except ImportError as error:
    raise UserError(
        "Data sets by name need TensorFlow Datasets; install it with"
        " `pip install tensorflow-datasets`."
    ) from error

# TFDS tells of a deprecation in its own code, which nobody who reads a data set can mend, and of
# what is not prepared, which is told here.
_NOT_TOLD = ("`FeatureConnector.dtype` is deprecated", "has no dataset_info.json")
logging.get_absl_logger().addFilter(
    lambda record: not any(text in record.getMessage() for text in _NOT_TOLD)
)


def prepared_builder(
    name: str, data_dir: str | None = None, download: bool = False
) -> tfds.core.DatasetBuilder:
    """Returns TFDS's own handle of a data set that is prepared.

    Args:
        name: as for `tfcq.data.tfds_source.TfdsSource`.
        data_dir: as for `tfcq.data.tfds_source.TfdsSource`.
        download: as for `tfcq.data.tfds_source.TfdsSource`.

    Raises:
        UserError: no such data set, or it is not prepared (and may not or cannot be downloaded).
    """
    _check_known(name, data_dir)
    builder = _open_builder(name, data_dir)
    if not builder.is_prepared():
        if not download:
            made = ""
            if "mnist" in name:
                made = ", or python -m tfcq.data.importers.idx to make it of IDX files"
            raise UserError(
                f"Data set {name!r} is not prepared in {str(builder.data_dir)!r}; allowed: "
                f"--data_dir where it is, --download to fetch it{made}."
            )
        _download(builder)
    return builder


def _check_known(name: str, data_dir: str | None) -> None:
    base = name.split("/")[0].split(":")[0]
    # Community data sets are left out because listing them needs the network.
    known = tfds.list_builders(with_community_datasets=False)
    if base in known or (data_dir and os.path.isdir(os.path.join(data_dir, base))):
        return
    near = difflib.get_close_matches(base.lower(), [*known, datasets.DIGITS], n=1, cutoff=0.4)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    raise UserError(
        f"Unknown data set {name!r}; allowed: digits, folder:PATH, one of the {len(known)} names"
        f" of TensorFlow Datasets or a data set prepared in --data_dir.{hint}"
    )


def _open_builder(name: str, data_dir: str | None) -> tfds.core.DatasetBuilder:
    try:
        return tfds.builder(name, data_dir=data_dir)
    except (ValueError, AssertionError) as error:
        # TFDS words an unknown config or version, or unreadable files, over several lines.
        reason = " ".join(str(error).split())
        raise UserError(f"Data set {name!r} cannot be opened: {reason}") from error


def _download(builder: tfds.core.DatasetBuilder) -> None:
    import tensorflow as tf

    try:
        builder.download_and_prepare()
    except (
        OSError,
        AssertionError,
        ImportError,
        ValueError,
        tf.errors.OpError,
        tfds.download.DownloadError,
    ) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"Data set {builder.name!r} could not be downloaded: {reason}") from error
