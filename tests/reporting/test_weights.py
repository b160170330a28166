"""Kernels are read from a saved backbone as they are, with range and outliers."""

import keras
import numpy as np
import pytest
from matplotlib import image

from tests.reporting.run_folders import end, make_run
from tfcq.errors import UserError
from tfcq.nn.quantizable import load
from tfcq.reporting.kernels import read_backbone
from tfcq.reporting.weights import draw_histograms, shown_layers, weight_figures


def test_kernels_of_a_backbone_are_those_of_the_loaded_model_in_its_order(tmp_path):
    folder = make_run(tmp_path / "run")
    end(folder)
    model, found = load(folder.backbone), read_backbone(folder.backbone)
    kernels = {layer.name: layer.kernel.numpy() for layer in model.layers if "Conv" in str(layer)}
    assert len(kernels) > 4
    assert list(found.kernels) == list(kernels)
    for name, kernel in kernels.items():
        np.testing.assert_array_equal(found.kernels[name], kernel)
    assert found.input_shape == (8, 8, 1)


def test_layers_in_a_nested_model_are_named_by_it_and_scales_are_no_kernels(tmp_path):
    inner = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, name="a")], name="inner")
    inputs = keras.Input((4,))
    outputs = keras.layers.Dense(2, name="b")(keras.layers.BatchNormalization()(inner(inputs)))
    keras.Model(inputs, outputs).save(tmp_path / "m.keras")
    found = read_backbone(tmp_path / "m.keras")
    assert {name: kernel.shape for name, kernel in found.kernels.items()} == {
        "inner/a": (4, 3),
        "b": (3, 2),
    }


def test_file_that_is_no_model_is_told_in_one_line(tmp_path):
    (tmp_path / "m.keras").write_text("x")
    with pytest.raises(UserError, match="m.keras cannot be read as a saved Keras model"):
        read_backbone(tmp_path / "m.keras")


def test_range_deviation_and_outliers():
    weights = np.array([-1.0] * 50 + [1.0] * 50)
    figures = weight_figures(np.append(weights, 9.0))
    assert (figures.count, figures.low, figures.high, figures.range) == (101, -1, 9, 10)
    assert figures.outliers == pytest.approx(1 / 101)
    assert figures.range_in_deviations == pytest.approx(10 / np.append(weights, 9.0).std())
    assert weight_figures(weights).outliers == 0
    assert weight_figures(np.zeros(4)).range_in_deviations == 0


def test_layers_shown_are_common_and_spread_over_the_depth():
    network = {f"layer{n}": np.zeros((2, 2)) for n in range(10)}
    other = {name: kernel for name, kernel in network.items() if name != "layer9"}
    assert shown_layers([network, other]) == ["layer0", "layer3", "layer5", "layer8"]
    assert shown_layers([network, {"x": np.zeros(2)}]) == []


def test_histograms_have_a_row_for_each_network(tmp_path):
    kernels = {"a": np.random.default_rng(0).normal(size=(3, 3, 4, 4))}
    heights = []
    for networks in ({"one": kernels}, {"one": kernels, "two": kernels}):
        (tmp_path / "p.png").write_bytes(draw_histograms(networks, ["a"]))
        heights.append(image.imread(tmp_path / "p.png").shape[0])
    assert heights[1] - heights[0] == pytest.approx(1.9 * 120, abs=2)
