"""Layers that are left in float between integers."""

import re

import keras
import numpy as np
import pytest
from keras import layers

import tfcq
from tfcq.deployment.gate import gate, gate_figures, simulated_levels
from tfcq.errors import UserError
from tfcq.integer.operations import is_float
from tfcq.integer.runtime import LiteModel
from tfcq.integer.writing import written
from tfcq.nn.loading import load
from tfcq.quantization.precision import Precision
from tfcq.reporting.gate import gate_tables
from tfcq.settings.bitwidths import BitWidth

BITS = BitWidth(8, 8)


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
    # What runtimes have as integers and holds no weights stays so.
    (first, {"*": "fp"}, ""),
]


@pytest.mark.parametrize(
    ("make", "overrides", "needed"),
    NETWORKS,
    ids=[f"{make.__name__} {list(some)}" for make, some, _ in NETWORKS],
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
    form = load(tmp_path / "form.keras")
    made = written(form, BITS)
    counts, _ = gate(made.file, images, simulated_levels(form, made, BITS))
    figures = gate_figures(counts, len(images))
    assert figures["passed"] and figures["simulation_equal_steps"] == 1
    unruled = [one for one in figures["operations"] if not one["ruled"]]
    assert unruled and "Not checked, as they compute in floats or have no rule: " in gate_tables(
        figures
    )
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


def through(x, function):
    """Returns a pooled convolution behind a function of another one."""
    outputs = function(layers.Conv2D(6, 3, padding="same")(x))
    return layers.GlobalAveragePooling2D()(outputs)


def relu(x):
    """Is called as Keras's, and is another one."""
    return 3.0 * keras.ops.tanh(x)


# Each is written whole: what integers have no operation of is named, and works when left in float.
FUNCTIONS = {
    "truths": lambda x: keras.ops.where(x > 0.0, x, 0.1),
    "threshold": lambda x: layers.ReLU(threshold=0.2, name="cut")(x),
    "slope": lambda x: layers.ReLU(negative_slope=0.1)(x),
    "parts": lambda x: layers.Add()(keras.ops.split(x, 2, axis=-1)),
    "uneven parts": lambda x: layers.Concatenate()(keras.ops.split(x, [2, 3], axis=-1)[::-1]),
    "three factors": lambda x: layers.Multiply()([x, x, layers.ReLU()(x)]),
    "a function with a parameter": lambda x: layers.ELU(alpha=0.5, name="elu")(x),
    "a function called relu": lambda x: layers.Conv2D(4, 3, activation=relu, name="own")(x),
    "an activation called relu": lambda x: layers.Activation(relu, name="own")(x),
    "an approximation of itself": lambda x: layers.Activation(keras.ops.gelu)(x),
    "a chain": lambda x: keras.ops.log(keras.ops.exp(x) + 1.0),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_what_a_refusal_suggests_is_written_as_simulated(name, images):
    keras.utils.set_random_seed(0)
    inputs = keras.Input((8, 8, 1))
    model = keras.Model(inputs, through(inputs, FUNCTIONS[name]))
    overrides: dict[str, str] = {}
    try:
        tfcq.deployable(model)
    except UserError as error:
        (named,) = re.findall(r"--layer_bits=(.*)\.$", str(error))
        overrides = dict(one.split(":") for one in named.split(","))
    form = tfcq.deployable(model, overrides=overrides)
    np.testing.assert_allclose(form(images), model(images), atol=2e-6)
    tfcq.calibrate(form, images)
    made = written(form, BITS)
    counts, _ = gate(made.file, images, simulated_levels(form, made, BITS))
    figures = gate_figures(counts, len(images))
    assert figures["passed"] and figures["simulation_equal_steps"] > 0.999


def test_a_refusal_names_the_layer_in_a_nested_model_alone():
    block = keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            layers.Conv2D(4, 3, name="kept"),
            layers.GroupNormalization(2, name="norm1"),
        ],
        name="block",
    )
    inputs = keras.Input((8, 8, 1))
    model = keras.Model(inputs, layers.GlobalAveragePooling2D()(block(inputs)))
    with pytest.raises(UserError) as error:
        tfcq.deployable(model)
    (named,) = re.findall(r"--layer_bits=(.*):fp\.$", str(error.value))
    form = tfcq.deployable(model, overrides={named: "fp"})
    assert [layer.name for layer in form.operations if is_float(layer)] == ["norm1"]


def test_kernels_that_lack_an_operation_are_told(images):
    inputs = keras.Input((8, 8, 1))
    form = tfcq.deployable(keras.Model(inputs, through(inputs, layers.Activation("elu"))))
    tfcq.calibrate(form, images)
    counts, outputs = gate(written(form, BITS).file, images)
    assert set(outputs) == {"xnnpack", "optimized"}
    told = gate_tables(gate_figures(counts, len(images)))
    assert "LiteRT has not every operation in its reference kernels." in told


@pytest.mark.parametrize(
    ("function", "named", "told"),
    [
        (lambda x: keras.ops.top_k(x, 2)[0], "top_k", "'top_k' has 2 outputs; allowed in float"),
        (
            lambda x: keras.ops.argmax(x, axis=-1),
            "argmax",
            "'argmax' cannot be written: LiteRT has",
        ),
        (
            lambda x: layers.LSTM(3, name="rows")(layers.Reshape((2, 3))(x)),
            "rows",
            "in a loop or a branch, .*unroll=True",
        ),
    ],
    ids=["outputs", "operation", "loops"],
)
def test_what_cannot_be_written_in_float_either_is_told_by_its_layer(
    function, named, told, images, capfd
):
    inputs = keras.Input((8, 8, 1))
    model = keras.Model(inputs, function(through(inputs, layers.ReLU())))
    with pytest.raises(UserError, match=told) as error:
        form = tfcq.deployable(model, overrides={named: "fp"})
        tfcq.calibrate(form, images)
        written(form, BITS)
    assert repr(named) in str(error.value) and "\n" not in str(error.value)
    assert "error:" not in capfd.readouterr().err
