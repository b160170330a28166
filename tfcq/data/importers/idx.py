"""The IDX files of MNIST and its kin, and a TensorFlow data set made of them without download.

Format: http://yann.lecun.com/exdb/mnist (section "the IDX file format"): two zero bytes, a type
byte (8: unsigned byte), the number of dimensions, each dimension as a big-endian int32, the data.

    apt-get install dataset-fashion-mnist
    python -m tfcq.data.importers.idx --data_dir=DIR
"""

import gzip
import os
import tempfile
import zlib
from collections.abc import Iterator

import numpy as np
from absl import logging

from tfcq import command_line
from tfcq.errors import UserError

SOURCE = "/usr/share/datasets/fashion-mnist"
_UNSIGNED_BYTE = 8
_FILES = {
    "train": ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    "test": ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
}
# The version of a name that TFDS does not know itself.
_FIRST_VERSION = "1.0.0"

Arrays = dict[str, tuple[np.ndarray, np.ndarray]]


def read_idx(path: str, dimensions: int) -> np.ndarray:
    """Reads one IDX file of unsigned bytes.

    Args:
        path: the file, compressed where it ends in `.gz`.
        dimensions: 3 for images, 1 for labels.

    Returns:
        uint8 array with `dimensions` axes: [N, H, W] or [N].

    Raises:
        UserError: the file cannot be read, is no IDX file of this kind, or its length is not what
            its header says.
    """
    try:
        with (gzip.open if path.endswith(".gz") else open)(path, "rb") as file:
            content = file.read()
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"{path!r} cannot be read ({error}); allowed: a whole IDX file.") from error
    magic, expected = content[:4], bytes([0, 0, _UNSIGNED_BYTE, dimensions])
    if magic != expected:
        raise UserError(
            f"{path!r} starts with bytes {magic.hex(' ') or 'none'};"
            f" allowed: {expected.hex(' ')} (IDX, unsigned bytes, {dimensions} dimensions)."
        )
    header = 4 + 4 * dimensions
    if len(content) < header:
        raise UserError(f"{path!r} is truncated: its header ends after {len(content)} bytes.")
    shape = [int(n) for n in np.frombuffer(content, ">i4", dimensions, offset=4)]
    if min(shape) < 1:
        raise UserError(f"{path!r} has shape {shape}; allowed: 1 or more along each dimension.")
    length = header + int(np.prod(shape, dtype=np.int64))
    if len(content) != length:
        fault = "is truncated" if len(content) < length else "is too long"
        raise UserError(
            f"{path!r} {fault}: {len(content)} bytes received,"
            f" {length} allowed by its header of shape {shape}."
        )
    return np.frombuffer(content, np.uint8, offset=header).reshape(shape)


def read_idx_folder(source: str) -> Arrays:
    """Reads the four files `{train,t10k}-{images-idx3,labels-idx1}-ubyte`, each perhaps `.gz`.

    Args:
        source: the folder that holds them.

    Returns:
        `"train"` and `"test"`: images uint8 [N, H, W] and labels uint8 [N].

    Raises:
        UserError: a file is missing or damaged, or the files do not belong together.
    """
    arrays = {
        split: (read_idx(_find(source, images), 3), read_idx(_find(source, labels), 1))
        for split, (images, labels) in _FILES.items()
    }
    for split, (images, labels) in arrays.items():
        if len(images) != len(labels):
            raise UserError(
                f"{source!r}: {len(images)} images and {len(labels)} labels in {split};"
                " allowed: as many labels as images."
            )
    sizes = {split: images.shape[1:] for split, (images, _) in arrays.items()}
    if sizes["train"] != sizes["test"]:
        raise UserError(f"{source!r}: image sizes {sizes}; allowed: the same size in both splits.")
    return arrays


def write_tfds(arrays: Arrays, name: str, data_dir: str, overwrite: bool = False) -> str:
    """Writes images and labels as a prepared TensorFlow data set, in their order.

    The data set appears whole or not at all.

    Args:
        arrays: `"train"` and `"test"`: images uint8 [N, H, W] and labels uint8 [N].
        name: the data set's name. One that TFDS knows gets its version and class names, so that
            `tfds.load(name, data_dir=data_dir)` finds it.
        data_dir: where data sets are prepared.
        overwrite: whether a data set of this name and version is replaced.

    Returns:
        The folder that holds the data set.

    Raises:
        UserError: it is there already, or TFDS knows the name for other images or classes.
    """
    import tensorflow_datasets as tfds

    height, width = arrays["train"][0].shape[1:]
    label_count = 1 + max(int(labels.max()) for _, labels in arrays.values())
    label = tfds.features.ClassLabel(num_classes=label_count)
    version = _FIRST_VERSION
    if not name.isidentifier() or name != name.lower():
        raise UserError(f"name={name!r}; allowed: lower-case letters, digits and underscores.")
    os.makedirs(data_dir, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".import_idx_", dir=data_dir) as temporary:
        if name in tfds.list_builders(with_community_datasets=False):
            known = tfds.builder(name, data_dir=temporary)
            version, label = str(known.version), _known_label(known, height, width, label_count)
        folder = os.path.join(data_dir, name, version)
        if os.path.exists(folder) and not overwrite:
            raise UserError(
                f"{folder!r} exists; allowed: another --data_dir, or --overwrite to replace it."
            )
        new = os.path.join(temporary, "new")
        os.mkdir(new)
        info = tfds.core.DatasetInfo(
            builder=tfds.core.DatasetIdentity(
                name=name, version=tfds.core.Version(version), data_dir=new, module_name=__name__
            ),
            description="Made from IDX files.",
            features=tfds.features.FeaturesDict(
                {"image": tfds.features.Image(shape=(height, width, 1)), "label": label}
            ),
            supervised_keys=("image", "label"),
            # "The first n images" must mean those of the original files.
            disable_shuffling=True,
        )
        # One file per split: readers that interleave files would change the order.
        most = 1 + max(len(labels) for _, labels in arrays.values())
        writer = tfds.core.SequentialWriter(info, max_examples_per_shard=most)
        writer.initialize_splits(list(arrays))
        for split, pair in arrays.items():
            writer.add_examples({split: _examples(*pair)})
        writer.close_all()
        _replace(new, folder, temporary)
    return folder


def _find(source: str, name: str) -> str:
    for candidate in (name, f"{name}.gz"):
        path = os.path.join(source, candidate)
        if os.path.isfile(path):
            return path
    raise UserError(
        f"{source!r} holds no {name} nor {name}.gz; allowed: a folder with the four IDX files"
        " (Debian: apt-get install dataset-fashion-mnist)."
    )


def _examples(images: np.ndarray, labels: np.ndarray) -> Iterator[dict]:
    for image, label in zip(images, labels, strict=True):
        yield {"image": image[..., np.newaxis], "label": int(label)}


def _known_label(known, height: int, width: int, label_count: int):
    """Returns the label feature of a data set that TFDS knows, if these images can be its own."""
    features = known.info.features
    shape = tuple(features["image"].shape) if "image" in features else None
    classes = features["label"].num_classes if "label" in features else 0
    if shape != (height, width, 1) or label_count > classes:
        raise UserError(
            f"Images of shape {(height, width, 1)} with {label_count} classes cannot be"
            f" {known.name!r} ({shape}, {classes} classes); allowed: another --name."
        )
    return features["label"]


def _replace(new: str, folder: str, temporary: str) -> None:
    os.makedirs(os.path.dirname(folder), exist_ok=True)
    if os.path.exists(folder):
        os.rename(folder, os.path.join(temporary, "replaced"))
    os.rename(new, folder)


def flag_set() -> command_line.FlagSet:
    """Returns the importer's flags."""
    flags = command_line.FlagSet(
        "Prepares IDX files (MNIST, Fashion-MNIST, ...) as a TensorFlow data set, "
        "without any download."
    )
    flags.add("Data", "source", str, SOURCE, "folder of the four IDX files, plain or .gz")
    flags.add("Data", "name", str, "fashion_mnist", "name of the data set to write")
    flags.add("Data", "data_dir", str, None, "folder of prepared data sets; required")
    flags.add("Data", "overwrite", bool, False, "replace a data set that is there already")
    return flags


def main(command: command_line.Command) -> None:
    """Reads, checks and writes.

    Args:
        command: the parsed command line.

    Raises:
        UserError: when what it reads or writes is not as it should be.
    """
    values = command.values
    if values["data_dir"] is None:
        raise UserError("--data_dir is missing; give the folder of prepared data sets.")
    logging.set_verbosity(logging.ERROR)
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
    arrays = read_idx_folder(values["source"])
    command_line.quiet_start_up(values["verbosity"])
    folder = write_tfds(arrays, values["name"], values["data_dir"], values["overwrite"])
    for split, (images, _) in arrays.items():
        count, height, width = images.shape
        print(f"{split}: {count} images of {height}x{width}")
    print(f"written to {folder}")
    print("use it with:")
    print(
        f"python -m tfcq.train --flagfile=flags/ssql.cfg"
        f" --dataset={values['name']} --data_dir={values['data_dir']}"
    )


if __name__ == "__main__":
    command_line.run(flag_set(), main)
