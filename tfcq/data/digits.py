"""The 1,797 scans of handwritten digits that come with scikit-learn."""

import numpy as np
import tensorflow as tf

from tfcq.data.split import Split, missing_split
from tfcq.errors import UserError
from tfcq.settings import datasets

_TEST_SIZE = 360


class DigitsSource:
    """8x8 grey-scale scans of ten digits, 1,437 for training and 360 for testing.

    The scans are the test part of UCI's "Optical Recognition of Handwritten Digits", 17 grey
    levels each. Every class is divided in the same proportion.

    Raises:
        UserError: scikit-learn is not installed.
    """

    name = datasets.DIGITS
    splits = ("train", "test")

    def __init__(self):
        try:
            from sklearn.datasets import load_digits
            from sklearn.model_selection import train_test_split
        except ImportError as error:
            raise UserError(
                "The data set 'digits' needs scikit-learn; install it with"
                " `pip install scikit-learn`."
            ) from error
        scans = load_digits()
        images = np.round(scans.images * (255 / 16)).astype(np.uint8)[..., np.newaxis]
        labels = scans.target.astype(np.int64)
        parts = train_test_split(
            images, labels, test_size=_TEST_SIZE, random_state=0, stratify=labels
        )
        self._arrays = {"train": (parts[0], parts[2]), "test": (parts[1], parts[3])}
        self._class_names = tuple(str(name) for name in scans.target_names)

    def split(self, name: str) -> Split:
        """Returns the split `"train"` or `"test"`.

        Raises:
            UserError: another name.
        """
        if name not in self._arrays:
            raise missing_split(self.name, name, self.splits)
        images, labels = self._arrays[name]
        index = np.arange(len(images), dtype=np.int64)
        return Split(
            name=name,
            size=len(images),
            image_shape=images.shape[1:],
            class_names=self._class_names,
            records=tf.data.Dataset.from_tensor_slices(
                {"index": index, "image": images, "label": labels}
            ),
            decode=lambda record: record,
            record_bytes=images[0].nbytes,
        )
