"""Models from files: read, or told apart in one line each."""

import re
import zipfile

import keras
import numpy as np
import pytest
from keras import layers

from tfcq.errors import UserError
from tfcq.nn.loading import load
from tfcq.nn.quantizable import quantizable


class Doubled(layers.Layer):
    def call(self, x):
        return 2 * x


def squared(x):
    return x * x


def small(*middle, **settings):
    inputs = x = keras.Input((4,))
    for layer in middle:
        x = layer(x)
    return keras.Model(inputs, layers.Dense(2, **settings)(x))


def test_files_that_are_missing_or_cut_off_are_told_apart(tmp_path):
    inputs = keras.Input((4,))
    keras.Model(inputs, layers.Dense(2)(inputs)).save(tmp_path / "whole.keras")
    content = (tmp_path / "whole.keras").read_bytes()
    (tmp_path / "cut.keras").write_bytes(content[: len(content) // 2])
    with pytest.raises(UserError, match="cut.keras cannot be read .*: it is not whole"):
        load(tmp_path / "cut.keras")
    with pytest.raises(UserError, match="other.keras does not exist"):
        load(tmp_path / "other.keras")


@pytest.mark.parametrize("content", ["[]", "null", "{", None])
def test_configurations_that_are_none_are_refused(content, tmp_path):
    with zipfile.ZipFile(tmp_path / "odd.keras", "w") as archive:
        archive.writestr("metadata.json", "{}")
        if content is not None:
            archive.writestr("config.json", content)
    with pytest.raises(UserError, match="odd.keras cannot be read as a Keras model"):
        load(tmp_path / "odd.keras")


def test_a_class_or_function_of_the_users_is_named_with_the_way_to_give_it(tmp_path):
    model = quantizable(small(Doubled(), activation=squared))
    model.save(tmp_path / "mine.keras")
    with pytest.raises(UserError, match="the class 'Doubled', which .*custom_objects={'Doubled'"):
        load(tmp_path / "mine.keras")
    with pytest.raises(UserError, match="the function 'squared', which .*custom_objects="):
        load(tmp_path / "mine.keras", {"Doubled": Doubled})
    again = load(tmp_path / "mine.keras", {"Doubled": Doubled, "squared": squared})
    x = np.ones((3, 4), np.float32)
    np.testing.assert_array_equal(again(x), model(x))


def test_a_tflite_file_of_another_name_is_told_from_a_damaged_one(tmp_path):
    (tmp_path / "renamed.keras").write_bytes(b"\x1c\0\0\0TFL3" + bytes(100))
    with pytest.raises(UserError, match="renamed.keras is a TFLite model, .*; name it .tflite"):
        load(tmp_path / "renamed.keras")


def test_weights_by_the_names_of_another_library_are_sent_where_they_are_read(tmp_path):
    (tmp_path / "moco.pth.tar").write_bytes(b"\x80\x02")
    with pytest.raises(UserError, match="which --start of tfcq.train and --model of tfcq.eval"):
        load(tmp_path / "moco.pth.tar")


def test_other_forms_of_files_are_named(tmp_path):
    model = small()
    model.save(tmp_path / "old.h5")
    model.export(tmp_path / "saved_model", verbose=False)
    with pytest.raises(UserError, match="old.h5 .*HDF5.*model.save"):
        load(tmp_path / "old.h5")
    with pytest.raises(UserError, match="saved_model is a SavedModel.*model.save"):
        load(tmp_path / "saved_model")


@pytest.mark.parametrize("where", ["layer", "activation"])
def test_python_lambdas_are_named_as_such(where, tmp_path):
    double = lambda x: 2 * x  # noqa: E731
    model = small(layers.Lambda(double)) if where == "layer" else small(activation=double)
    model.save(tmp_path / "mine.keras")
    with pytest.raises(UserError, match="holds a Python lambda"):
        load(tmp_path / "mine.keras")


def test_a_file_that_a_disk_changed_is_refused_or_gives_the_same_weights(tmp_path):
    path = tmp_path / "model.keras"
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
    model.save(path)
    written, weights = path.read_bytes(), model.get_weights()[0]
    # The kernel itself, and where a zip file describes what it holds.
    kernel = written.index(weights.tobytes())
    directory = range(written.index(b"PK\1\2"), len(written))
    for place in (kernel, kernel + 9, *range(30), *directory):
        changed = written[:place] + bytes([written[place] ^ 1]) + written[place + 1 :]
        path.write_bytes(changed)
        try:
            read = load(path).get_weights()[0]
        except UserError as error:
            assert re.search(r"model\.keras (is damaged|cannot be read|has )", str(error)), place
        else:
            assert place not in (kernel, kernel + 9)
            np.testing.assert_array_equal(read, weights)


def test_file_that_would_fill_the_memory_is_refused_unread(tmp_path):
    path = tmp_path / "model.keras"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as opened:
        opened.writestr("config.json", b" " * 10**6)
    with pytest.raises(UserError, match=r"model\.keras has 1,\d+ bytes and would become 1,000,000"):
        load(path)
