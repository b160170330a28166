"""A test split held out of the training images."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from tfcq.data.holdout import HoldoutSource
from tfcq.data.plain_images import labelled_arrays
from tfcq.data.split import Split
from tfcq.errors import UserError

COUNTS = (2, 3, 10, 40)


def labels_in_turn(counts) -> np.ndarray:
    return np.random.default_rng(0).permutation(np.repeat(np.arange(len(counts)), counts))


@dataclasses.dataclass
class Numbered:
    """A source whose image i shows its number, with a label and perhaps a name."""

    labels: np.ndarray
    names: tuple[str, ...] | None = None
    class_names: tuple[str, ...] | None = ("a", "b", "c", "d")
    splits: tuple[str, ...] = ("train",)
    name: str = "folder:pets"

    def split(self, name):
        numbers = np.arange(len(self.labels))
        images = np.broadcast_to(numbers[:, None, None, None], (len(numbers), 2, 2, 1))
        columns = {"index": numbers, "image": images.astype(np.uint8), "label": self.labels}
        records = tf.data.Dataset.from_tensor_slices(columns)
        return Split(name, len(numbers), (2, 2, 1), self.class_names, records, lambda r: r, 4,
                     self.names)  # fmt: skip


def numbers(split):
    """Returns the numbers of a split's images, and their labels."""
    images, labels = labelled_arrays(split, 2)
    return np.round(images[:, 0, 0, 0] * 255).astype(int), labels


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("share", "held_out"), [(0.2, (1, 1, 2, 8)), (0.9, (1, 2, 9, 36))])
def test_a_share_of_every_class_is_held_out_and_nothing_else_is_lost(share, held_out, seed):
    labels = labels_in_turn(COUNTS)
    source = HoldoutSource(Numbered(labels), share, seed)
    (train, train_labels), (test, test_labels) = (numbers(source.split(s)) for s in source.splits)
    np.testing.assert_array_equal(np.bincount(test_labels), held_out)
    assert sorted([*train, *test]) == list(range(sum(COUNTS)))
    np.testing.assert_array_equal(train_labels, labels[train])
    np.testing.assert_array_equal(test_labels, labels[test])
    assert source.split("test").name == "test"


def test_seed_decides_and_repeats():
    labels = labels_in_turn(COUNTS)
    chosen = [tuple(numbers(HoldoutSource(Numbered(labels), 0.2, s).split("test"))[0])
              for s in (0, 0, 1)]  # fmt: skip
    assert chosen[0] == chosen[1] != chosen[2]


def test_a_file_that_comes_goes_or_moves_changes_at_most_one_other():
    """Training and evaluation list the folder anew; whatever is tested was not trained on."""
    labels = labels_in_turn(COUNTS)
    names = tuple(f"{label}/{number}.png" for number, label in enumerate(labels))

    def held_out(places):
        source = Numbered(labels[places], tuple(names[place] for place in places))
        return set(HoldoutSource(source, 0.2).split("test").names)

    everything = np.arange(len(labels))
    whole = held_out(everything)
    assert held_out(everything[::-1]) == whole
    for gone in range(0, len(labels), 5):
        without = held_out(np.delete(everything, gone))
        assert len(whole - {names[gone]} - without) + len(without - whole) <= 1


def test_parts_of_a_part_are_those_asked_for():
    source = HoldoutSource(Numbered(labels_in_turn(COUNTS)), 0.2)
    train = source.split("train")
    all_of_them, _ = numbers(train)
    chosen = [0, 3, 17, train.size - 1]
    np.testing.assert_array_equal(numbers(train.subset(chosen))[0], all_of_them[chosen])


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"splits": ("train", "test")}, "--holdout=0.2 has no effect: .*test split of its own"),
        ({"class_names": None}, "'folder:pets', which has no labels"),
        ({"labels": np.array([0, 0, 1, 1, 2, 3, 3])}, "with 1 image of class 'c'"),
    ],
)
def test_what_cannot_be_divided_is_refused(changes, text):
    source = dataclasses.replace(Numbered(labels_in_turn(COUNTS)), **changes)
    with pytest.raises(UserError, match=text):
        HoldoutSource(source, 0.2).split("train")
