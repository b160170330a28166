"""Results files: evaluations that differ in nothing but bits are one; others stand apart."""

import dataclasses
import threading
import time

import keras
import numpy as np

from tfcq.evaluation import records
from tfcq.evaluation.accuracy import LabelledImages
from tfcq.evaluation.records import (
    add_record,
    data_fingerprint,
    read_records,
    weights_fingerprint,
)
from tfcq.nn.calibration import calibrate
from tfcq.nn.quantizable import quantizable


def test_every_image_and_label_has_a_part_in_the_fingerprint_of_data():
    images = np.arange(24, dtype=np.float32).reshape(6, 2, 2, 1)
    data = LabelledImages(images, np.arange(6), images[:5] / 2, np.arange(5), 6)
    found = {data_fingerprint(data)}
    for name in ("train_images", "train_labels", "test_images", "test_labels"):
        values = getattr(data, name)
        for index in np.ndindex(values.shape):
            changed = values.copy()
            changed[index] += 1
            found.add(data_fingerprint(dataclasses.replace(data, **{name: changed})))
        found.add(data_fingerprint(dataclasses.replace(data, **{name: values[::-1]})))
    assert len(found) == 1 + (24 + 1) + (6 + 1) + (20 + 1) + (5 + 1)
    again = LabelledImages(images.copy(), np.arange(6), images[:5] / 2, np.arange(5), 6)
    assert data_fingerprint(again) == data_fingerprint(data)


def ranges_of(model):
    return [float(w.numpy()) for w in model.weights if w.name in ("minimum", "maximum")]


def test_every_weight_but_no_range_has_a_part_in_the_fingerprint_of_weights():
    inputs = keras.Input((4,))
    hidden = keras.layers.Dense(2, activation="relu", name="dense")(inputs)
    outputs = keras.layers.Dense(2, name="last")(hidden)
    model = quantizable(keras.Model(inputs, outputs), "uniform")
    before, ranges = weights_fingerprint(model), ranges_of(model)
    calibrate(model, np.random.default_rng(0).random((9, 4), np.float32))
    assert ranges_of(model) != ranges and weights_fingerprint(model) == before
    found = {before}
    for weight in model.get_layer("dense").trainable_weights:
        for index in np.ndindex(tuple(weight.shape)):
            values = weight.numpy()
            values[index] += 1
            weight.assign(values)
            found.add(weights_fingerprint(model))
    assert len(found) == 1 + 4 * 2 + 2


def test_results_of_equal_settings_are_merged_and_others_kept_newest_first(tmp_path):
    random, file = np.random.default_rng(0), tmp_path / "results" / "knn.json"
    expected = []
    for number in range(40):
        setting = {"settings": {"epochs": int(random.integers(3))}}
        bits = random.permutation(["fp", "8w8a", "4w4a", "2w4a"])[: random.integers(1, 4)].tolist()
        new = {b: {"bits": b, "top1": number / 100} for b in bits}
        place = next((i for i, other in enumerate(expected) if other[0] == setting), None)
        before = {} if place is None else expected.pop(place)[1]
        expected.insert(0, (setting, {**before, **new}))
        merged = add_record(file, {**setting, "results": list(new.values())})
        found = read_records(file)
        assert found == [{**s, "results": list(r.values())} for s, r in expected]
        assert merged == found[0]
    assert [path.name for path in file.parent.iterdir()] == ["knn.json"]


def test_evaluations_that_end_at_the_same_time_do_not_overwrite_each_other(tmp_path, monkeypatch):
    def slowly(file):
        found = read_records(file)
        time.sleep(0.02)
        return found

    monkeypatch.setattr(records, "read_records", slowly)
    widths = [f"{bits}w8a" for bits in range(2, 8)]
    writers = [
        threading.Thread(
            target=add_record,
            args=(tmp_path / "knn.json", {"results": [{"bits": bits, "top1": 0.5}]}),
        )
        for bits in widths
    ]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    (found,) = read_records(tmp_path / "knn.json")
    assert sorted(entry["bits"] for entry in found["results"]) == widths
