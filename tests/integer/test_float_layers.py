"""Layers that are left in float between integers."""

import keras
import numpy as np
import pytest
from keras import layers

import tfcq
from tfcq.deployment.gate import gate, gate_figures, simulated_levels
from tfcq.errors import UserError
from tfcq.integer.runtime import LiteModel
from tfcq.integer.writing import written
from tfcq.nn.loading import load
from tfcq.quantization.precision import Precision
from tfcq.reporting.gate import gate_tables
from tfcq.settings.bitwidths import BitWidth


def norms(x):
    x = layers.GroupNormalization(2, name="group")(layers.Conv2D(4, 3, name="conv")(x))
    x = layers.Conv2D(6, 3, activation="softplus", name="soft")(layers.ReLU()(x))
    return layers.Dense(5, name="head")(layers.GlobalAveragePooling2D()(x))


def attended(x):
    x = layers.Reshape((16, 8))(layers.Conv2D(8, 2, strides=2)(x))
    x = layers.Add()([x, layers.MultiHeadAttention(2, 4, name="mha")(x, x)])
    return layers.Dense(5)(layers.Flatten()(layers.LayerNormalization(name="norm")(x)))


def branched(x):
    x = layers.Conv2D(4, 3, padding="same")(x)
    y = keras.ops.sin(x)
    rows = [layers.Reshape((64, 4))(one) for one in (x, y)]
    dots = layers.Flatten()(layers.Dot(axes=-1, name="dot")(rows))
    return [layers.GlobalAveragePooling2D()(x), dots]


def first(x):
    y = layers.ReLU()(layers.BatchNormalization()(layers.Conv2D(4, 3, name="stem")(x)))
    return layers.Flatten()(layers.Add()([y, layers.Conv2D(4, 3, padding="same")(y)]))


# What is left in float, and which of it has to be.
NETWORKS = [
    (norms, {"gr*": "fp", "soft": "fp", "head": "fp"}, "group:fp,soft:fp"),
    (attended, {"mha": "fp", "norm": "fp"}, "mha:fp"),
    (branched, {"dot": "fp", "sin": "fp"}, "sin:fp,dot:fp"),
    (first, {"stem": "fp"}, ""),
]


@pytest.mark.parametrize(
    ("make", "overrides", "needed"), NETWORKS, ids=[make.__name__ for make, _, _ in NETWORKS]
)
def test_a_file_with_floats_inside_is_what_was_simulated(make, overrides, needed, images, tmp_path):
    keras.utils.set_random_seed(0)
    inputs = keras.Input((8, 8, 1))
    model = keras.Model(inputs, make(inputs))
    if needed:
        with pytest.raises(UserError, match=f"in float: --layer_bits={needed}\\.$"):
            tfcq.deployable(model)
    form = tfcq.deployable(model, overrides=overrides)
    for found, expected in zip(
        *map(keras.tree.flatten, (form(images), model(images))), strict=True
    ):
        np.testing.assert_allclose(found, expected, atol=2e-6)
    tfcq.calibrate(form, images)
    form.save(tmp_path / "form.keras")
    form, bits = load(tmp_path / "form.keras"), BitWidth(8, 8)
    made = written(form, bits)
    counts, _ = gate(made.file, images, simulated_levels(form, made, bits))
    figures = gate_figures(counts, len(images))
    assert figures["passed"] and figures["simulation_equal_steps"] == 1
    unruled = [one for one in figures["operations"] if not one["ruled"]]
    assert unruled and "Taken from LiteRT, without a rule: " in gate_tables(figures)
    outputs = keras.tree.flatten(LiteModel(made.file.to_bytes())(images))
    simulated = keras.tree.flatten(form(images, precision=Precision(8, 8)))
    for found, expected in zip(outputs, simulated, strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-5 * np.max(np.abs(found)))


def test_a_kernel_in_float_keeps_its_weights_whatever_the_bits(images):
    keras.utils.set_random_seed(0)
    inputs = keras.Input((8, 8, 1))
    model = keras.Model(inputs, first(inputs))
    form = tfcq.deployable(model, overrides={"stem": "fp"})
    tfcq.calibrate(form, images)
    tensors = {one.name: one for one in written(form, BitWidth(2, 8)).file.tensors}
    kernel = np.moveaxis(form.get_layer("stem").kernel, -1, 0)
    held = [one.data for one in tensors.values() if one.dtype == "float32" and one.data is not None]
    assert any(one.shape == kernel.shape and np.array_equal(one, kernel) for one in held)
    assert "stem/kernel" not in tensors
