"""Kernels are read from a saved backbone as they are, with range and outliers."""

import keras
import numpy as np
import pytest
from matplotlib.colors import to_hex

from tests.reporting.run_folders import end, make_run
from tfcq.errors import UserError
from tfcq.nn.loading import load
from tfcq.reporting.kernels import read_backbone
from tfcq.reporting.picture import COLOURS
from tfcq.reporting.weights import (
    NORMAL_OUTLIERS,
    draw_histograms,
    shown_layers,
    weight_figures,
)


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
    assert figures.deviation == pytest.approx(np.append(weights, 9.0).std())
    # Beyond three deviations from their mean, wherever that lies.
    assert weight_figures(weights + 100).outliers == 0
    normal = np.random.default_rng(0).normal(size=400_000)
    assert weight_figures(normal).outliers == pytest.approx(NORMAL_OUTLIERS, abs=3e-4)
    assert figures.range_in_deviations == pytest.approx(10 / np.append(weights, 9.0).std())
    assert weight_figures(weights).outliers == 0
    assert weight_figures(np.zeros(4)).range_in_deviations == 0


def test_layers_shown_are_common_and_spread_over_the_depth():
    network = {f"layer{n}": np.zeros((2, 2)) for n in range(10)}
    other = {name: kernel for name, kernel in network.items() if name != "layer9"}
    assert shown_layers([network, other]) == ["layer0", "layer3", "layer5", "layer8"]
    assert shown_layers([network, {"x": np.zeros(2)}]) == []


def test_histograms_have_a_row_for_each_network_and_mark_its_least_and_greatest(figures):
    random = np.random.default_rng(0)
    layers = ("a", "b")
    networks = {
        name: {layer: random.normal(size=(3, 3, 4, 4)) for layer in layers}
        for name in ("one", "two")
    }
    draw_histograms(networks, layers, ["two", "one"])
    (figure,) = figures
    panels = iter(figure.axes)
    for row, (name, kernels) in enumerate(networks.items()):
        for layer in layers:
            axes, kernel = next(panels), kernels[layer]
            assert axes.get_title() == (layer if row == 0 else "")
            assert axes.get_ylabel() == (name if layer == "a" else "")
            edges = np.array([bar.get_x() for bar in axes.patches] + [np.inf])
            counts = [bar.get_height() for bar in axes.patches]
            np.testing.assert_array_equal(counts, np.histogram(kernel, edges)[0])
            marked = [line.get_xdata()[0] for line in axes.lines]
            assert marked == [kernel.min(), kernel.max()]
            assert to_hex(axes.patches[0].get_facecolor()).upper() == COLOURS[1 - row]
