"""Models with every kind of quantizer: float passes, learned weights, saving, training."""

import inspect

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from tfcq.nn.activation_quantizer import ActivationQuantizer
from tfcq.nn.layers import QuantizedConv2D, QuantizedDense, QuantizedDepthwiseConv2D
from tfcq.nn.quantizable import quantizable
from tfcq.quantization.kinds import ACTIVATION_QUANTIZERS, WEIGHT_QUANTIZERS
from tfcq.quantization.lsq import LSQActivationQuantizer, LSQWeightQuantizer
from tfcq.quantization.pact import PACTQuantizer
from tfcq.quantization.precision import Precision, RecordRanges
from tfcq.settings.policies import (
    ACTIVATION_QUANTIZER_NAMES,
    ROUNDINGS,
    WEIGHT_QUANTIZER_NAMES,
    Policy,
)

KINDS = [
    *((weight, "minmax") for weight in WEIGHT_QUANTIZER_NAMES),
    *(
        ("minmax", activation)
        for activation in ACTIVATION_QUANTIZER_NAMES
        if activation != "minmax"
    ),
]
LEARNED = [("lsq", "lsq"), ("dorefa", "pact")]


def float_model():
    """All three kinds of kernel, one without bias; a nested model."""
    keras.utils.set_random_seed(2)
    inner = keras.Sequential(
        [keras.Input((6, 6, 4)), layers.DepthwiseConv2D(3, name="depthwise"),
         layers.BatchNormalization(name="norm")], name="inner"
    )  # fmt: skip
    return keras.Sequential(
        [keras.Input((8, 8, 3)), layers.Conv2D(4, 3, use_bias=False, name="conv"),
         layers.ReLU(name="relu"), inner, layers.ReLU(name="relu2"), layers.Flatten(),
         layers.Dense(2, name="dense")]
    )  # fmt: skip


def converted(weight, activation):
    policy = Policy("mine", weight_quantizer=weight, activation_quantizer=activation)
    return quantizable(float_model(), policy)


IMAGES = tf.random.stateless_uniform([4, 8, 8, 3], [1, 2])


@pytest.mark.parametrize(("weight", "activation"), KINDS)
def test_float_pass_equals_the_original_and_a_quantized_pass_does_not(weight, activation):
    model, original = converted(weight, activation), float_model()
    expected = original(IMAGES)
    np.testing.assert_array_equal(model(IMAGES), expected)
    np.testing.assert_array_equal(model(IMAGES, precision=RecordRanges(True)), expected)
    quantized = model(IMAGES, precision=Precision(4, 4))
    assert np.all(np.isfinite(quantized))
    assert np.any(quantized != expected)
    np.testing.assert_array_equal(model(IMAGES), expected)


WITH_RANGE = [name for name, kind in ACTIVATION_QUANTIZERS.items() if kind.takes_range]


@pytest.mark.parametrize("activation", WITH_RANGE)
def test_kinds_over_a_range_need_a_recorded_one_or_the_tensors_own(activation):
    model = converted("minmax", activation)
    with pytest.raises(tf.errors.InvalidArgumentError, match="has no recorded range"):
        model(IMAGES, precision=Precision(8, 8))
    own = model(IMAGES, precision=Precision(8, 8, ranges="tensor"))
    model(IMAGES, precision=RecordRanges(True))
    recorded = model(IMAGES, precision=Precision(8, 8))
    np.testing.assert_allclose(recorded, own, atol=0.05)
    # An image's features do not depend on what else is in its batch.
    alone = model(IMAGES[:1], precision=Precision(8, 8))
    np.testing.assert_allclose(alone, recorded[:1], atol=1e-6)


@pytest.mark.parametrize("activation", sorted({*ACTIVATION_QUANTIZERS} - {*WITH_RANGE}))
def test_kinds_without_a_recorded_range_need_no_recording(activation):
    model = converted("minmax", activation)
    assert np.all(np.isfinite(model(IMAGES, precision=Precision(8, 8))))
    model(IMAGES, precision=RecordRanges(True))
    relu = model.get_layer("relu_quantizer")
    assert float(relu.minimum.value) == 0.0 < float(relu.maximum.value) < np.inf


VALUES = tf.random.stateless_normal([1000, 1], [5, 6])


def weights_in_a_pass(quantizer, *precision):
    """Returns what a quantized pass makes of a dense layer's kernel."""
    layer = QuantizedDense(1, weight_quantizer=quantizer)
    layer.build((None, 1000))
    layer.kernel.assign(VALUES)
    return layer.quantized_kernel(Precision(*precision)).numpy()


def activations_in_a_pass(quantizer, *precision):
    """Returns what a quantized pass makes of activations, over the range of just these."""
    layer = ActivationQuantizer(quantizer)
    layer(VALUES, precision=RecordRanges(True))
    return layer(VALUES, precision=Precision(*precision)).numpy()


QUANTIZERS = [
    *((weights_in_a_pass, kind) for kind in WEIGHT_QUANTIZERS.values()),
    *((activations_in_a_pass, kind) for kind in ACTIVATION_QUANTIZERS.values()),
]


@pytest.mark.parametrize(("quantized", "kind"), QUANTIZERS)
def test_bits_are_the_quantizers_own_or_those_of_the_pass_for_what_it_quantizes(quantized, kind):
    own, other = ((3, 8), (8, 3))[:: 1 if quantized is weights_in_a_pass else -1]
    for ranges in ("recorded", "tensor"):
        expected = quantized(kind(), *own, ranges)
        np.testing.assert_array_equal(quantized(kind(bits=3), 8, 8, ranges), expected)
        assert np.any(quantized(kind(), *other, ranges) != expected)


@pytest.mark.parametrize(
    ("quantized", "kind"),
    [pair for pair in QUANTIZERS if "rounding" in inspect.signature(pair[1]).parameters],
)
def test_rounding_is_the_one_asked_for(quantized, kind):
    found = {name: quantized(kind(rounding=name), 3, 3, "tensor", [1, 2]) for name in ROUNDINGS}
    levels = np.unique(found["nearest"])
    inside = (levels[0] < VALUES) & (levels[-1] > VALUES)
    errors = {n: ((y - VALUES) / np.diff(levels).min())[inside].numpy() for n, y in found.items()}
    ends = {name: (error.min(), error.max()) for name, error in errors.items()}
    np.testing.assert_allclose(ends["floor"], (-1, 0), atol=0.03)
    np.testing.assert_allclose(ends["nearest"], (-0.5, 0.5), atol=0.03)
    np.testing.assert_allclose(ends["stochastic"], (-1, 1), atol=0.2)


@pytest.mark.parametrize(("signed", "highest"), [(False, 7), (True, 3)])
@pytest.mark.parametrize("kind", ["lsq", "pact", "dorefa"])
def test_signed_activations_keep_their_negative_half_and_take_the_levels_for_it(
    kind, signed, highest
):
    y = np.unique(activations_in_a_pass(ACTIVATION_QUANTIZERS[kind](signed=signed), 8, 3))
    # LSQ's step size as it starts (Sec. 2.1), PACT's 10 and DoReFa-Net's 1 in even steps.
    steps = {
        "lsq": 2 * np.abs(VALUES).mean() / highest**0.5, "pact": 10 / highest, "dorefa": 1 / highest
    }  # fmt: skip
    np.testing.assert_allclose(np.diff(y), steps[kind], rtol=1e-5)
    assert (y[0] < 0) == signed


def learned_names(model):
    # A nested model's variables have paths of their own.
    return sorted("/".join(v.path.split("/")[-2:]) for v in model.trainable_variables
                  if v.name in ("step_size", "clipping"))  # fmt: skip


def test_learned_scales_are_trainable_variables_of_the_model():
    assert learned_names(converted("minmax", "minmax")) == []
    assert learned_names(converted("linear", "dorefa")) == []
    outputs = ["relu_quantizer", "relu2_quantizer"]
    kernels = ["conv", "depthwise", "dense"]
    expected = [f"{name}/step_size" for name in [*kernels, *outputs]]
    model = converted("lsq", "lsq")
    assert set(learned_names(model)) >= set(expected)
    assert sum(name.split("/")[0] in kernels for name in learned_names(model)) == 3
    assert set(learned_names(converted("dorefa", "pact"))) >= {f"{n}/clipping" for n in outputs}


def test_kinds_without_learned_scales_leave_the_variables_as_they_were():
    names = [[v.path for v in converted(*kinds).variables] for kinds in
             (("minmax", "minmax"), ("linear", "linear"), ("dorefa", "dorefa"))]  # fmt: skip
    assert names[0] == names[1] == names[2]
    original = [v.name for v in float_model().variables]
    assert [n.split("/")[-1] for n in names[0] if "quantizer" not in n] == original


@pytest.mark.parametrize(
    ("layer", "row"),
    [
        (QuantizedConv2D(5, 3, weight_quantizer=LSQWeightQuantizer()), (1, 1, 1, 5)),
        (QuantizedDepthwiseConv2D(3, depth_multiplier=2, weight_quantizer=LSQWeightQuantizer()),
         (1, 1, 4, 2)),
        (QuantizedDense(5, weight_quantizer=LSQWeightQuantizer()), (1, 5)),
        (QuantizedDense(5, weight_quantizer=LSQWeightQuantizer(per_channel=False)), ()),
        (ActivationQuantizer(LSQActivationQuantizer()), ()),
    ],
)  # fmt: skip
def test_step_sizes_have_a_row_of_the_channels_for_each_number_of_bits(layer, row):
    layer(tf.ones([1, 6, 6, 4]))
    assert layer.learned_scale.shape == (15, *row)
    assert layer.learned_scale.name == "step_size"


@pytest.mark.parametrize("kinds", LEARNED)
def test_saved_model_comes_back_with_learned_scales(kinds, tmp_path):
    model = converted(*kinds)
    model(IMAGES, precision=RecordRanges(True))
    model(IMAGES, precision=Precision(3, 4))
    for variable in model.trainable_variables:
        if variable.name in ("step_size", "clipping"):
            variable.assign(variable.value * 0.7)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert learned_names(loaded) == learned_names(model) != []
    for ours, theirs in zip(loaded.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    for precision in (None, Precision(3, 4)):
        np.testing.assert_array_equal(
            loaded(IMAGES, precision=precision), model(IMAGES, precision=precision)
        )


@pytest.mark.parametrize("kinds", LEARNED)
def test_checkpoint_restores_learned_scales(kinds, tmp_path):
    model, other = converted(*kinds), converted(*kinds)
    model(IMAGES, precision=Precision(3, 4))
    for variable in model.trainable_variables:
        variable.assign(variable.value * 0.7)
    path = tf.train.Checkpoint(model=model).save(str(tmp_path / "checkpoint"))
    tf.train.Checkpoint(model=other).restore(path).assert_consumed()
    for ours, theirs in zip(other.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_files_of_models_without_learned_scales_hold_what_keras_itself_writes():
    class Store(dict):
        """What a layer writes to."""

    for quantized, plain in (
        (QuantizedConv2D(2, 3), layers.Conv2D(2, 3)),
        (QuantizedDense(2, use_bias=False), layers.Dense(2, use_bias=False)),
        (QuantizedDepthwiseConv2D(3), layers.DepthwiseConv2D(3)),
    ):
        stores = Store(), Store()
        for layer, store in zip((quantized, plain), stores, strict=True):
            layer.build((None, 6, 6, 4))
            quantized.set_weights(layer.get_weights())
            layer.save_own_variables(store)
        assert stores[0].keys() == stores[1].keys()
        quantized.load_own_variables(stores[1])
        for ours, theirs in zip(quantized.get_weights(), plain.get_weights(), strict=True):
            np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("weight", WEIGHT_QUANTIZER_NAMES)
def test_passes_of_one_step_share_quantized_weights_of_every_kind(weight):
    layer = converted(weight, "minmax").get_layer("dense")
    inputs = tf.ones([1, layer.kernel.shape[0]])
    shared = Precision(4, 4, shared={})
    first = layer(inputs, precision=shared)
    layer.kernel.assign(-layer.kernel.value)
    np.testing.assert_array_equal(layer(inputs, precision=shared), first)
    assert np.any(layer(inputs, precision=Precision(4, 4)) != first)


@pytest.mark.parametrize("kinds", [*LEARNED, ("linear", "linear"), ("dorefa", "dorefa")])
def test_training_with_drawn_bits_is_traced_once_and_trains_the_rows_in_use(kinds):
    model = converted(*kinds)
    weight_bits, activation_bits = (tf.Variable(0, dtype=tf.int32) for _ in range(2))
    optimizer, traces, losses = keras.optimizers.SGD(0.01), [], []
    optimizer.build(model.trainable_variables)

    @tf.function
    def step():
        traces.append(1)
        bits = weight_bits.read_value(), activation_bits.read_value()
        precision = Precision(*bits, ranges="tensor")
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(tf.square(model(IMAGES, precision=precision, training=True) - 1))
        gradients = tape.gradient(loss, model.trainable_variables)
        optimizer.apply(gradients, model.trainable_variables)
        return loss, gradients

    for bits in (4, 3, 8, 4, 3, 8):
        weight_bits.assign(bits)
        activation_bits.assign(bits + 1)
        loss, gradients = step()
        losses.append(float(loss))
    assert len(traces) == 1
    assert np.all(np.isfinite(losses))
    for gradient, variable in zip(gradients, model.trainable_variables, strict=True):
        assert gradient.shape == variable.shape
        if variable.name == "step_size":
            rows = variable.numpy().reshape(15, -1).any(axis=1)
            used = [b - 2 for b in ((4, 5, 9) if "quantizer" in variable.path else (3, 4, 8))]
            assert np.flatnonzero(rows).tolist() == used
            row = gradient.numpy().reshape(15, -1).any(axis=1)
            assert np.flatnonzero(row).tolist() == used[-1:]
        elif variable.name == "clipping":
            assert float(variable.value) == 10.0


def test_clipping_of_a_model_learns_where_activations_reach_it():
    layer = ActivationQuantizer(PACTQuantizer())
    x = tf.constant([[1.0, 11.0, 12.0]])
    layer.build(x.shape)
    with tf.GradientTape() as tape:
        y = layer(x, precision=Precision(8, 8))
    assert float(tape.gradient(y, layer.learned_scale.value)) == 2.0


@pytest.mark.parametrize("kinds", LEARNED)
def test_mixed_precision_keeps_learned_scales_in_float32(kinds, dtype_policy):
    dtype_policy("mixed_float16")
    model = converted(*kinds)
    y = model(IMAGES, precision=Precision(4, 4))
    assert y.dtype == tf.float16
    assert np.all(np.isfinite(y))
    assert {v.dtype for v in model.variables if not v.dtype.startswith("int")} == {"float32"}


@pytest.mark.parametrize("kinds", LEARNED)
def test_float64_model_learns_in_float64(kinds, float64):
    model = converted(*kinds)
    y = model(tf.cast(IMAGES, tf.float64), precision=Precision(4, 4))
    assert y.dtype == tf.float64
    assert {v.dtype for v in model.variables if not v.dtype.startswith("int")} == {"float64"}
