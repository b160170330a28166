"""Any functional or sequential model, made quantizable."""

import re

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from tfcq.backbones.resnet import resnet
from tfcq.errors import UserError
from tfcq.integer.folded import folded
from tfcq.integer.form import deployable
from tfcq.nn.activation_quantizer import ActivationQuantizer
from tfcq.nn.calibration import calibrate
from tfcq.nn.cloning import copy_of
from tfcq.nn.quantizable import quantizable, quantizers_of
from tfcq.quantization.precision import Precision, RecordRanges
from tfcq.settings.policies import Policy

SIZE = 16


def block(x, filters, name):
    """A block of keras.applications.ResNet50: biased convolutions, an Add, Activations."""
    shortcut = layers.Conv2D(4 * filters, 1, name=f"{name}_0_conv")(x)
    shortcut = layers.BatchNormalization(epsilon=1.001e-5, name=f"{name}_0_bn")(shortcut)
    for index, kernel in ((1, 1), (2, 3)):
        x = layers.Conv2D(filters, kernel, padding="same", name=f"{name}_{index}_conv")(x)
        x = layers.BatchNormalization(epsilon=1.001e-5, name=f"{name}_{index}_bn")(x)
        x = layers.Activation("relu", name=f"{name}_{index}_relu")(x)
    x = layers.Conv2D(4 * filters, 1, name=f"{name}_3_conv")(x)
    x = layers.BatchNormalization(epsilon=1.001e-5, name=f"{name}_3_bn")(x)
    x = layers.Add(name=f"{name}_add")([shortcut, x])
    return layers.Activation("relu", name=f"{name}_out")(x)


def resnet50_block():
    inputs = keras.Input((SIZE, SIZE, 3))
    x = layers.ZeroPadding2D(3, name="conv1_pad")(inputs)
    x = layers.Conv2D(4, 7, 2, name="conv1_conv")(x)
    x = layers.Activation("relu", name="conv1_relu")(layers.BatchNormalization()(x))
    x = layers.MaxPooling2D(3, 2, name="pool1")(x)
    x = layers.GlobalAveragePooling2D()(block(x, 4, "conv2_block1"))
    return keras.Model(inputs, layers.Dense(5, activation="softmax", name="predictions")(x))


def sequential():
    return keras.Sequential(
        [
            keras.Input((SIZE, SIZE, 3)),
            layers.Conv2D(4, 3, name="conv"),
            layers.BatchNormalization(name="norm"),
            layers.ReLU(name="relu"),
            layers.Flatten(),
            layers.Dropout(0.5),
            layers.Dense(6, name="dense"),
        ]
    )


def nested():
    inner_inputs = keras.Input((SIZE, SIZE, 4))
    inner = layers.Conv2D(4, 3, padding="same", activation="relu", name="inner_conv")(inner_inputs)
    inner = keras.Model(inner_inputs, inner, name="inner")
    head = keras.Sequential(
        [keras.Input((4,)), layers.Dense(6, activation="relu", name="head_dense")], name="head"
    )
    inputs = keras.Input((SIZE, SIZE, 3))
    x = layers.Conv2D(4, 3, padding="same", name="outer_conv")(inputs)
    # The inner model is called twice.
    x = layers.GlobalAveragePooling2D()(inner(inner(x)))
    return keras.Model(inputs, head(x))


def operations():
    inputs = keras.Input((SIZE, SIZE, 3))
    x = layers.Conv2D(4, 3, padding="same", name="one")(inputs)
    y = layers.Conv2D(4, 3, padding="same", name="two")(keras.ops.relu(x))
    x = keras.ops.relu(x + y)
    return keras.Model(inputs, keras.ops.mean(x * 2, axis=(1, 2)))


def mobile():
    size = (32, 32, 3)
    return keras.applications.MobileNetV2(
        size, alpha=0.35, weights=None, include_top=False, pooling="avg"
    )


MODELS = {
    "resnet18": lambda: resnet(18, width=4, input_shape=(SIZE, SIZE, 3)),
    "resnet50_imagenet_stem": lambda: resnet(50, "imagenet", 2, (32, 32, 3), blocks=(1, 1)),
    "resnet50_block": resnet50_block,
    "mobilenet": mobile,
    "sequential": sequential,
    "nested": nested,
    "operations": operations,
}


@pytest.fixture(scope="module", params=MODELS)
def pair(request):
    """Returns a float model, whose weights are all random, and its quantizable copy."""
    keras.utils.set_random_seed(3)
    model = MODELS[request.param]()
    random = np.random.default_rng(0)
    model.set_weights(
        [
            w * random.uniform(0.8, 1.2, w.shape) + 0.01 * random.random(w.shape)
            for w in model.get_weights()
        ]
    )
    return model, quantizable(model, "uniform")


def images_for(model, count=2):
    return tf.random.stateless_uniform([count, *model.input_shape[1:]], [1, 2])


def test_float_result_equals_the_original_to_the_last_bit(pair):
    model, copy = pair
    images = images_for(model)
    expected = model(images)
    np.testing.assert_array_equal(copy(images), expected)
    np.testing.assert_array_equal(copy(images, precision=RecordRanges(True)), expected)


def test_an_adapted_normalization_is_copied_with_its_moments():
    inputs = keras.Input((SIZE, SIZE, 3))
    norm = layers.Normalization()
    images = 5 + 3 * tf.random.stateless_uniform([4, SIZE, SIZE, 3], [1, 2])
    norm.adapt(images)
    x = layers.Conv2D(4, 3, name="conv")(norm(inputs))
    model = keras.Model(inputs, layers.GlobalAveragePooling2D()(x))
    copy = quantizable(model, "uniform")
    np.testing.assert_array_equal(copy(images), model(images))
    np.testing.assert_array_equal(copy_of(copy)(images), model(images))
    np.testing.assert_allclose(folded(copy).model(images), model(images), rtol=1e-5, atol=1e-5)


def test_quantizers_of_nested_models_are_found_by_their_path():
    found = quantizers_of(quantizable(nested(), "uniform"), "weight_quantizer")
    assert {"outer_conv", "head/head_dense"} <= set(found)
    assert any(name.startswith("inner/") for name in found)


@pytest.mark.parametrize(
    ("name", "near"), [("my conv", "my_conv"), ("größe", "gr__e"), ("a\\b", "a_b")]
)
def test_a_layer_whose_name_no_graph_takes_is_told_a_near_one(name, near):
    inputs = keras.Input((4, 4, 1))
    with pytest.raises(
        UserError, match=re.escape(f"Layer {name!r} has a name") + f".*such as {near!r}"
    ):
        quantizable(keras.Model(inputs, layers.Conv2D(2, 3, name=name)(inputs)))
    inner = keras.Sequential([inputs, layers.Conv2D(2, 3, name=name)])
    with pytest.raises(UserError, match=re.escape(f"Layer {name!r} has a name")):
        quantizable(keras.Model(inputs, inner(inputs)))


@pytest.mark.parametrize(
    ("outer", "inner", "told"),
    [
        ("my net", "inner", "Model 'my net' has a name .*such as 'my_net'"),
        ("_net", "inner", "Model '_net' has a name .*such as 'mnet'"),
        ("net", "in net", "Model 'in net' has a name .*such as 'in_net'"),
        ("net", "_inner", None),
    ],
)
def test_names_of_models_are_those_that_a_graph_takes(outer, inner, told):
    inputs = keras.Input((4, 4, 1), name="an image: größe")
    nested = keras.Sequential([keras.Input((4, 4, 1)), layers.Conv2D(2, 3, name="-c")], name=inner)
    model = keras.Model(inputs, layers.ReLU(name=">r")(nested(inputs)), name=outer)
    if told:
        with pytest.raises(UserError, match=told):
            quantizable(model)
        return
    for made in (quantizable(model), deployable(model)):
        calibrate(made, np.ones((1, 4, 4, 1), np.float32))
        run = tf.function(lambda x, made=made: made(x, precision=Precision(8, 8)))
        assert run(np.ones((1, 4, 4, 1), np.float32)).shape == (1, 2, 2, 2)


def test_weights_are_copied_and_the_original_is_left_alone(pair):
    model, copy = pair
    added = ("minimum", "maximum", "range_bits", "trained_quantized")
    copied = [v for v in copy.weights if v.name not in added]
    for ours, theirs in zip(copied, model.weights, strict=True):
        np.testing.assert_array_equal(ours, theirs)
        assert ours is not theirs
    assert not any(isinstance(layer, ActivationQuantizer) for layer in model.layers)


def test_quantized_result_is_near_at_16_bits_and_far_at_2(pair):
    model, copy = pair
    images = images_for(model)
    exact = copy(images, precision=RecordRanges(True)).numpy()
    distance = {
        bits: np.abs(copy(images, precision=Precision(bits, bits)) - exact).max()
        for bits in (16, 2)
    }
    assert 0 < distance[16] < 0.02 * np.abs(exact).max()
    assert distance[2] > 5 * distance[16]


@pytest.mark.parametrize("name", ["nested", "operations", "sequential"])
def test_saved_model_comes_back_with_weights_ranges_and_precision(name, tmp_path):
    model = quantizable(MODELS[name](), "uniform")
    images = images_for(model)
    model(images, precision=RecordRanges(True))
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert type(loaded) is type(model)
    for precision in (None, Precision(8, 8), Precision(2, 4)):
        np.testing.assert_array_equal(
            loaded(images, precision=precision), model(images, precision=precision)
        )


@pytest.mark.parametrize("bits", [8, 3])
def test_nested_model_receives_the_precision(bits):
    model = quantizable(nested(), Policy("weights", overrides=(("*", f"{bits}w"),)))
    images = images_for(model)
    quantized = model(images, precision=Precision(16, 16))
    for name, kernel in (("inner", "inner_conv"), ("head", "head_dense"), (None, "outer_conv")):
        layer = (model.get_layer(name) if name else model).get_layer(kernel)
        layer.kernel.assign(layer.weight_quantizer(layer.kernel.value, 16, layer.kernel_axes))
    np.testing.assert_array_equal(model(images), quantized)


def test_training_argument_goes_together_with_precision():
    model = quantizable(sequential())
    images = images_for(model)
    norm = model.get_layer("norm")
    before = norm.moving_mean.numpy()
    model(images, precision=RecordRanges(True), training=False)
    np.testing.assert_array_equal(norm.moving_mean, before)
    model(images, precision=Precision(8, 8), training=True)
    assert np.any(norm.moving_mean.numpy() != before)


def quantization_operations(model, precision):
    """Returns the operations of a pass that only quantizers use, in all functions of its graph."""

    @tf.function
    def run(images):
        return model(images, precision=precision, training=False)

    graph = run.get_concrete_function(images_for(model)).graph.as_graph_def()
    nodes = [*graph.node, *(node for f in graph.library.function for node in f.node_def)]
    marks = (
        "Round",
        "ClipByValue",
        "Floor",
        "Abs",
        "LeftShift",
        "AssignVariableOp",
        "CheckNumerics",
    )
    return {node.op for node in nodes if node.op in marks}


def test_float_pass_holds_no_quantization_operation():
    model = quantizable(sequential(), "uniform")
    assert quantization_operations(model, None) == set()
    assert quantization_operations(model, RecordRanges(True)) == {"AssignVariableOp"}
    quantized = quantization_operations(model, Precision(8, 8))
    assert {"Round", "CheckNumerics", "LeftShift"} <= quantized
    assert "AssignVariableOp" not in quantized


def with_layer(layer, shape=(SIZE, 3)):
    """The layer and one whose kernel is quantized."""
    inputs = keras.Input(shape)
    return keras.Model(inputs, layers.Dense(2, name="known")(layer(inputs)))


@pytest.mark.parametrize("trainable", [True, False])
def test_layer_with_an_unknown_kernel_is_refused_with_the_way_out(trainable):
    model = with_layer(layers.Conv1D(2, 3, name="odd"))
    model.trainable = trainable
    with pytest.raises(UserError) as caught:
        quantizable(model)
    assert str(caught.value) == (
        "Layer 'odd' (Conv1D) holds a kernel that cannot be quantized; allowed: Conv2D, "
        "DepthwiseConv2D, Dense. To leave it in float, pass overrides={'odd': 'fp'} "
        "(--layer_bits=odd:fp)."
    )
    copy = quantizable(model, overrides={"odd": "fp"})
    images = images_for(model)
    low = copy.get_layer("odd")(images)
    np.testing.assert_array_equal(low, model.get_layer("odd")(images))
    assert np.any(copy(images, precision=Precision(2, 8)) != model(images))


def test_refusal_of_many_kernels_names_overrides_that_leave_just_them_in_float():
    inner_input = keras.Input((SIZE, SIZE, 4))
    x = layers.SeparableConv2D(4, 1, name="sep_12_b")(inner_input)
    inner = keras.Model(inner_input, layers.ReLU(name="sep_12_b_relu")(x), name="inner")
    x = inputs = keras.Input((SIZE, SIZE, 3))
    for number in (1, 2, 10):
        x = layers.SeparableConv2D(4, 1, name=f"block{number}_sep1")(x)
        x = layers.ReLU(name=f"block{number}_sep1_relu")(x)
    x = layers.Conv2D(4, 1, name="odd2")(layers.SeparableConv2D(4, 1, name="odd1")(x))
    model = keras.Model(inputs, inner(x))
    with pytest.raises(UserError) as caught:
        quantizable(model)
    overrides = {"block*_sep*[0-9]": "fp", "odd1": "fp", "sep_12_b": "fp"}
    assert str(caught.value) == (
        "Layer 'block1_sep1' (SeparableConv2D) and 4 more hold kernels that cannot be quantized; "
        f"allowed: Conv2D, DepthwiseConv2D, Dense. To leave them in float, pass {overrides=} "
        "(--layer_bits=block*_sep*[0-9]:fp,odd1:fp,sep_12_b:fp)."
    )
    copy = quantizable(model, "uniform", overrides)
    assert copy.get_layer("odd2").weight_quantizer.bits is None


def test_refusal_of_a_hundred_kernels_is_short_where_norms_are_called_alike():
    x = inputs = keras.Input((SIZE, SIZE, 3))
    for number in range(100):
        x = layers.SeparableConv2D(2, 1, name=f"sep_1_left{number}")(x)
        x = layers.BatchNormalization(name=f"sep_1_bn_left{number}")(x)
    model = keras.Model(inputs, layers.Conv2D(2, 1)(x))
    with pytest.raises(UserError) as caught:
        quantizable(model)
    assert "{'sep_[0-9]_left[0-9]': 'fp', 'sep_[0-9]_left[0-9][0-9]': 'fp'}" in str(caught.value)
    assert len(str(caught.value)) < 400


def test_subclass_of_a_known_layer_is_refused_since_its_call_is_unknown():
    class Standardized(layers.Dense):
        pass

    with pytest.raises(UserError, match="'mine' \\(Standardized\\)"):
        quantizable(with_layer(Standardized(2, name="mine")))


@pytest.mark.parametrize(
    "layer",
    [layers.PReLU(), layers.LayerNormalization(axis=(1, 2)), layers.GroupNormalization(1)],
    ids=lambda layer: type(layer).__name__,
)
def test_activations_and_normalizations_with_parameters_are_no_kernels(layer):
    model = with_layer(layer)
    images = images_for(model)
    np.testing.assert_array_equal(quantizable(model)(images), model(images))


def test_models_without_a_graph_are_refused():
    class Subclassed(keras.Model):
        pass

    with pytest.raises(UserError, match="Received Subclassed.*allowed: a functional or sequential"):
        quantizable(Subclassed())
    with pytest.raises(UserError, match="not built; call build"):
        quantizable(keras.Sequential([layers.Dense(2)]))
    with pytest.raises(UserError, match="quantizable already"):
        quantizable(quantizable(sequential()))
    with pytest.raises(UserError, match="Received str"):
        quantizable("resnet18")


def bits_of(model):
    return {
        layer.name: (layer.weight_quantizer if hasattr(layer, "kernel") else layer.quantizer).bits
        for layer in model.layers
        if hasattr(layer, "weight_quantizer") or isinstance(layer, ActivationQuantizer)
    }


def test_first_matching_override_fixes_bits_of_kernel_and_output():
    model = quantizable(sequential(), "uniform", {"conv": "3w5a", "d*": "6w", "*": "fp"})
    assert bits_of(model) == {"conv": 3, "relu_quantizer": 5, "dense": 6}
    assert (
        type(quantizable(sequential(), overrides={"conv": "fp"}).get_layer("conv")) is layers.Conv2D
    )


def test_override_that_matches_nothing_names_the_nearest_layer():
    with pytest.raises(UserError, match="the nearest: dense, "):
        quantizable(sequential(), overrides={"dens": "8w"})
    with pytest.raises(UserError, match="name 'top_.', which matches none of"):
        quantizable(sequential(), overrides={"top_*": "8w"})


@pytest.mark.parametrize("bits", ["1w", "17a", "", "8", "drawn"])
def test_override_with_bad_bits_is_refused(bits):
    with pytest.raises(UserError, match=f"Unknown layer bits '{bits}'; allowed: 'fp', '8w8a'"):
        quantizable(sequential(), overrides={"conv": bits})


def test_unknown_policy_names_the_nearest():
    with pytest.raises(UserError, match="Did you mean 'uniform'"):
        quantizable(sequential(), "unifrom")


def test_policy_reaches_every_quantizer():
    policy = Policy(
        "mine", per_channel=False, narrow_range=True, rounding="floor", detach_scale=True
    )
    model = quantizable(sequential(), policy)
    for name in ("conv", "dense"):
        assert model.get_layer(name).weight_quantizer.get_config() == {
            "bits": None, "per_channel": False, "narrow_range": True, "rounding": "floor",
            "detach_scale": True,
        }  # fmt: skip
    assert model.get_layer("relu_quantizer").quantizer.rounding == "floor"


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_mixed_precision_model_keeps_ranges_and_weights_in_float32(policy, dtype_policy):
    dtype_policy(policy)
    model = quantizable(sequential(), "uniform")
    images = images_for(model)
    exact = model(images, precision=RecordRanges(True))
    quantized = model(images, precision=Precision(8, 8))
    assert quantized.dtype == exact.dtype == tf.as_dtype(policy.removeprefix("mixed_"))
    assert {v.dtype for v in model.weights if not v.dtype.startswith("int")} == {"float32"}
    difference = np.abs(tf.cast(quantized, tf.float32) - tf.cast(exact, tf.float32)).max()
    assert 0 < difference < 0.1


@pytest.mark.parametrize("bits", [np.int64(1), np.int64(40), 4.5, "4"])
def test_bits_that_no_quantizer_has_are_refused_whatever_their_type(bits):
    with pytest.raises(UserError, match="Bits .* cannot be used"):
        Precision(bits, 8)
    assert Precision(np.int64(4), np.int32(8)).weight_bits == 4


def test_what_is_no_pass_is_not_taken_for_a_float_one():
    inputs = keras.Input((4,))
    model = quantizable(keras.Model(inputs, layers.Dense(2)(inputs)), "weights_8_bit")
    with pytest.raises(UserError, match="precision='4w4a' was received; allowed: None, or tfcq"):
        model(np.zeros((1, 4), np.float32), precision="4w4a")


def test_unrecorded_ranges_are_told_by_the_name_of_the_quantizer():
    model = quantizable(sequential(), "uniform")
    with pytest.raises(
        tf.errors.InvalidArgumentError, match="'relu_quantizer' has no recorded range"
    ):
        model(images_for(model), precision=Precision(8, 8))


@pytest.mark.parametrize("kind", [dict, list])
def test_structure_of_inputs_and_outputs_is_kept(kind):
    left, right = keras.Input((3,), name="left"), keras.Input((3,), name="right")
    joined = layers.Dense(2, name="joined")(layers.Concatenate()([left, right]))
    single = layers.Dense(2, name="single")(left)
    if kind is dict:
        model = keras.Model({"left": left, "right": right}, {"joined": joined, "single": single})
        inputs = {"right": tf.ones([1, 3]), "left": tf.zeros([1, 3])}
    else:
        model = keras.Model([left, right], [joined, single])
        inputs = [tf.zeros([1, 3]), tf.ones([1, 3])]
    expected, received = model(inputs), quantizable(model)(inputs)
    assert type(received) is type(expected)
    keras.tree.assert_same_structure(received, expected)
    for ours, theirs in zip(
        keras.tree.flatten(received), keras.tree.flatten(expected), strict=True
    ):
        np.testing.assert_array_equal(ours, theirs)


def test_a_kernel_inside_any_layer_is_found_whatever_its_class_is_called():
    wrapped = layers.SpectralNormalization(layers.Conv2D(2, 3), name="spectral")
    with pytest.raises(UserError, match="'spectral' .SpectralNormalization. holds a kernel"):
        quantizable(with_layer(wrapped, (8, 8, 3)))


def test_the_stem_is_what_reads_the_images_even_where_it_stays_in_float():
    inputs = keras.Input((8, 8, 3))
    x = layers.SeparableConv2D(4, 3, activation="relu", name="stem")(inputs)
    x = layers.Conv2D(4, 3, name="second")(x)
    model = quantizable(keras.Model(inputs, x), "paper", overrides={"stem": "fp"})
    assert model.get_layer("second").weight_quantizer.bits is None


def test_a_model_with_nothing_to_quantize_is_refused():
    inputs = keras.Input((8, 8, 3))
    with pytest.raises(UserError, match="'empty' holds nothing to quantize.*Conv2D"):
        quantizable(keras.Model(inputs, layers.ReLU()(inputs), name="empty"))
    with pytest.raises(UserError, match="holds nothing to quantize"):
        quantizable(with_layer(layers.ReLU()), overrides={"*": "fp"})


def test_a_layer_without_weights_has_a_range_of_its_own_at_each_place():
    """A dropout shared around a pool once made a search without end."""
    relu, dropout = layers.ReLU(name="relu"), layers.Dropout(0.5, name="dropout")
    inputs = keras.Input((8, 8, 3))
    x = dropout(relu(layers.Conv2D(4, 3)(inputs)))
    x = dropout(layers.MaxPooling2D()(x))
    x = layers.Dense(2)(layers.Flatten()(relu(layers.Conv2D(4, 3)(x))))
    model = keras.Model(inputs, x)
    images = images_for(model, 16)
    copy = quantizable(model, "uniform")
    np.testing.assert_array_equal(copy(images), model(images))
    calibrate(copy, images)
    convolutions = [layer.name for layer in model.layers if isinstance(layer, layers.Conv2D)]
    for conv, name in zip(convolutions, ("relu_quantizer", "relu_1_quantizer"), strict=True):
        before = keras.Model(copy.inputs, copy.get_layer(conv).output)(images)
        assert float(copy.get_layer(name).maximum) == float(np.max(before))


def test_a_sequential_built_by_a_call_takes_batches_of_any_size():
    model = keras.Sequential([layers.Conv2D(2, 3), layers.GlobalAveragePooling2D()])
    images = np.random.default_rng(0).random((5, 8, 8, 3), np.float32)
    model(images[:2])
    copy = quantizable(model)
    np.testing.assert_array_equal(copy(images), model(images))
    assert copy.input_shape == (None, 8, 8, 3)


def test_the_original_is_not_touched():
    """Its layers are still called once each, so that `layer.output` is known."""
    relu = layers.ReLU(name="relu")
    inputs = keras.Input((8, 8, 3))
    x = relu(layers.Conv2D(2, 3, name="conv")(relu(layers.Conv2D(2, 3)(inputs))))
    model = keras.Model(inputs, x)
    quantizable(model)
    assert model.get_layer("conv").output.shape == (None, 4, 4, 2)


@pytest.mark.parametrize("taken", ["relu_quantizer", "conv_quantizer"])
def test_a_layer_may_have_the_name_of_a_quantizer(taken):
    inputs = keras.Input((8, 8, 3))
    x = layers.ReLU(name="relu")(layers.Conv2D(2, 3, name="conv")(inputs))
    x = layers.Conv2D(2, 3, name=taken)(x)
    model = keras.Model(inputs, x)
    images = images_for(model)
    np.testing.assert_array_equal(quantizable(model, "uniform")(images), model(images))


@pytest.mark.parametrize(
    ("layer", "said"),
    [
        (lambda: layers.Lambda(lambda x: 2 * x, name="odd"), "'odd' .Lambda.*keras.ops"),
        (lambda: layers.Dense(3, name="odd"), "'odd' was quantized by Keras's quantize.'int8'."),
    ],
    ids=["Lambda", "int8"],
)
def test_what_cannot_be_copied_or_is_quantized_already_is_named(layer, said):
    model = with_layer(layer(), (3,))
    if "int8" in said:
        model.quantize("int8")
    for make in (quantizable, copy_of, deployable):
        with pytest.raises(UserError, match=said):
            make(model)


def test_a_model_of_keras_2_is_told_apart():
    class Functional:
        name = "old"

    Functional.__module__ = "tf_keras.src.engine.functional"
    with pytest.raises(UserError, match="'old' was made by tf_keras .Keras 2."):
        quantizable(Functional())
