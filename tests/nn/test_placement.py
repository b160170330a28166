"""Where policies put quantizers in known networks."""

import keras
import pytest
from keras import layers

from tfcq.backbones.resnet import resnet
from tfcq.errors import UserError
from tfcq.nn.activation_quantizer import ActivationQuantizer
from tfcq.nn.layers import QUANTIZED_COUNTERPARTS
from tfcq.nn.placement import place, read_graph
from tfcq.nn.quantizable import quantizable
from tfcq.settings.policies import (
    DRAWN,
    FLOAT,
    PAPER,
    UNIFORM,
    WEIGHTS_8_BIT,
    LayerBits,
    parse_layer_bits,
)

QUANTIZED = tuple(QUANTIZED_COUNTERPARTS.values())


def placed(model, policy):
    return place(read_graph(model.get_config()), policy)


@pytest.fixture(scope="module")
def small_resnet():
    return resnet(18, width=4, input_shape=(16, 16, 3), blocks=(1, 1))


def test_paper_policy_on_resnet_is_the_authors(small_resnet):
    placement = placed(small_resnet, PAPER)
    assert placement.kernels == {
        "stem": 8,
        "stage1_block1_conv1": DRAWN,
        "stage1_block1_conv2": DRAWN,
        "stage2_block1_shortcut": DRAWN,
        "stage2_block1_conv1": DRAWN,
        "stage2_block1_conv2": DRAWN,
    }
    # No quantizer behind the convolutions that go into a sum; one on the sum, after its ReLU.
    assert placement.outputs == {
        "stem_relu": 8,
        "stage1_block1_relu1": DRAWN,
        "stage1_block1_relu": DRAWN,
        "stage2_block1_relu1": DRAWN,
        "stage2_block1_relu": DRAWN,
    }


def test_uniform_policy_on_resnet_also_quantizes_what_goes_into_a_sum(small_resnet):
    placement = placed(small_resnet, UNIFORM)
    assert set(placement.kernels.values()) == {DRAWN}
    assert set(placement.outputs) - set(placed(small_resnet, PAPER).outputs) == {
        "stage1_block1_conv2_norm",
        "stage2_block1_conv2_norm",
        "stage2_block1_shortcut_norm",
    }


def test_bottleneck_and_imagenet_stem_follow_the_same_rules():
    placement = placed(resnet(50, "imagenet", 2, (32, 32, 3), blocks=(1,)), PAPER)
    block = "stage1_block1"
    assert placement.kernels == {
        "stem": 8, f"{block}_shortcut": DRAWN, f"{block}_conv1": DRAWN, f"{block}_conv2": DRAWN,
        f"{block}_conv3": DRAWN,
    }  # fmt: skip
    # Max pooling keeps the grid of the ReLU before it.
    assert placement.outputs == {
        "stem_relu": 8, f"{block}_relu1": DRAWN, f"{block}_relu2": DRAWN, f"{block}_relu": DRAWN
    }  # fmt: skip


def test_layers_in_the_model_are_the_placed_ones(small_resnet):
    model = quantizable(small_resnet, "paper")
    placement = placed(small_resnet, PAPER)
    kernels = {layer.name for layer in model.layers if isinstance(layer, QUANTIZED)}
    quantizers = {
        layer.name: layer for layer in model.layers if isinstance(layer, ActivationQuantizer)
    }
    assert kernels == set(placement.kernels)
    assert set(quantizers) == {f"{name}_quantizer" for name in placement.outputs}
    assert quantizers["stem_relu_quantizer"].quantizer.bits == 8
    assert quantizers["stage1_block1_relu_quantizer"].quantizer.bits is None
    assert model.get_layer("stem").weight_quantizer.bits == 8
    assert model.get_layer("stage2_block1_shortcut").weight_quantizer.bits is None
    assert (
        quantizers["stage1_block1_relu_quantizer"].input
        is model.get_layer("stage1_block1_relu").output
    )


def test_uniform_policy_on_mobilenet_quantizes_relus_sums_and_linear_bottlenecks():
    model = keras.applications.MobileNetV2((32, 32, 3), alpha=0.35, weights=None, classes=7)
    placement = placed(model, UNIFORM)
    by_kind = {
        kind: {layer.name for layer in model.layers if type(layer) is kind}
        for kind in (layers.Conv2D, layers.DepthwiseConv2D, layers.Dense, layers.ReLU, layers.Add)
    }
    # The linear bottlenecks end in a batch norm without activation function.
    linear = {layer.name for layer in model.layers if layer.name.endswith("project_BN")}
    assert len(linear) == 17
    assert len(by_kind[layers.Conv2D] | by_kind[layers.DepthwiseConv2D]) == 52
    assert len(by_kind[layers.Add]) == 10
    assert set(placement.kernels) == (
        by_kind[layers.Conv2D] | by_kind[layers.DepthwiseConv2D] | by_kind[layers.Dense]
    )
    pooled = {"global_average_pooling2d"}
    outputs = {name for name in placement.outputs if not name.startswith("global_average_pooling")}
    assert outputs == by_kind[layers.ReLU] | by_kind[layers.Add] | linear
    assert len(placement.outputs) == len(outputs) + len(pooled)
    assert set(placement.kernels.values()) == set(placement.outputs.values()) == {DRAWN}


def test_projector_policy_quantizes_weights_at_8_bits_only():
    inputs = keras.Input((4,))
    x = layers.ReLU()(layers.BatchNormalization()(layers.Dense(4, name="one")(inputs)))
    placement = placed(keras.Model(inputs, layers.Dense(4, name="two")(x)), WEIGHTS_8_BIT)
    assert placement.kernels == {"one": 8, "two": 8}
    assert placement.outputs == {}


def test_image_and_what_precedes_the_first_kernel_stay_in_float():
    inputs = keras.Input((8, 8, 3))
    x = layers.ReLU(name="early")(layers.Rescaling(2.0, name="scale")(inputs))
    x = layers.Conv2D(2, 3, activation="relu", name="conv")(x)
    assert placed(keras.Model(inputs, x), UNIFORM).outputs == {"conv": DRAWN}


def test_logits_probabilities_and_pooled_features_leave_the_model_in_float():
    inputs = keras.Input((8, 8, 3))
    x = layers.Conv2D(2, 3, activation="relu", name="conv")(inputs)
    pooled = layers.GlobalAveragePooling2D(name="pool")(x)
    logits = layers.Dense(2, name="logits")(pooled)
    assert placed(keras.Model(inputs, pooled), UNIFORM).outputs == {"conv": DRAWN}
    # Pooling makes new values, which a kernel then reads.
    expected = {"conv": DRAWN, "pool": DRAWN}
    assert placed(keras.Model(inputs, logits), UNIFORM).outputs == expected
    softmax = layers.Softmax(name="softmax")(logits)
    assert placed(keras.Model(inputs, softmax), UNIFORM).outputs == expected


def test_batch_norm_with_two_readers_ends_the_fused_chain():
    inputs = keras.Input((8, 8, 3))
    x = layers.BatchNormalization(name="norm")(
        layers.Conv2D(3, 3, padding="same", name="a")(inputs)
    )
    left = layers.ReLU(name="relu")(x)
    x = layers.Add(name="sum")([left, layers.Conv2D(3, 3, padding="same", name="b")(x)])
    outputs = placed(keras.Model(inputs, x), UNIFORM).outputs
    assert set(outputs) == {"norm", "relu", "b"}


def test_batch_norm_of_a_convolution_that_another_layer_reads_too_is_not_fused():
    inputs = keras.Input((4, 4, 1))
    conv = layers.Conv2D(2, 3, padding="same", name="conv")(inputs)
    norm = layers.BatchNormalization(name="norm")(conv)
    x = layers.ReLU(name="relu")(layers.Add(name="add")([norm, conv]))
    x = layers.GlobalAveragePooling2D()(x)
    # Fused, it would be a convolution's output that goes into a sum, which `paper` leaves float.
    assert set(placed(keras.Model(inputs, x), PAPER).outputs) == {"conv", "norm", "relu"}


def test_batch_norm_behind_an_activation_is_not_fused_into_the_kernel():
    inputs = keras.Input((8, 8, 3))
    x = layers.Conv2D(3, 3, activation="relu", name="a")(inputs)
    x = layers.Flatten()(layers.BatchNormalization(name="norm")(x))
    model = keras.Model(inputs, layers.Dense(2, name="b")(x))
    assert set(placed(model, UNIFORM).outputs) == {"a", "norm"}


def test_operations_are_placed_like_layers():
    inputs = keras.Input((8, 8, 3))
    x = layers.Conv2D(3, 3, padding="same", name="a")(inputs)
    y = layers.Conv2D(3, 3, padding="same", name="b")(keras.ops.relu(x))
    model = keras.Model(inputs, layers.Conv2D(3, 3, name="c")(keras.ops.relu(x + y)))
    relus = [op.name for op in model.operations if type(op).__name__ == "Relu"]
    assert len(relus) == 2
    assert set(placed(model, PAPER).outputs) == {"a", *relus}


@pytest.mark.parametrize(
    ("text", "bits"),
    [("fp", LayerBits(FLOAT, FLOAT)), ("8w8a", LayerBits(8, 8)), ("2w", LayerBits(2, FLOAT)),
     ("16a", LayerBits(FLOAT, 16))],
)  # fmt: skip
def test_bits_of_a_layer(text, bits):
    assert parse_layer_bits(text) == bits


@pytest.mark.parametrize("text", ["", "8", "w8a", "1w8a", "8w17a", "8a8w"])
def test_bad_bits_of_a_layer(text):
    with pytest.raises(UserError, match="allowed: 'fp', '8w8a', '8w' or '8a' with 2 to 16 bits"):
        parse_layer_bits(text)
