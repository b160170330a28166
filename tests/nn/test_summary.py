"""The table of what is quantized, and why the rest is not."""

import keras
from keras import layers

from tfcq.nn.quantizable import quantizable
from tfcq.nn.summary import layer_summaries, summary


def network():
    inputs = keras.Input((16, 16, 3))
    x = layers.Rescaling(2.0, name="scale")(inputs)
    x = layers.Conv2D(4, 3, name="stem")(x)
    x = layers.ReLU(name="relu")(layers.BatchNormalization(name="norm")(x))
    x = layers.SeparableConv2D(4, 3, name="odd")(layers.MaxPooling2D(name="pool")(x))
    inner = keras.Sequential(
        [keras.Input((5, 5, 4)), layers.Conv2D(4, 3, activation="relu", name="conv")], name="inner"
    )
    x = layers.GlobalAveragePooling2D(name="mean")(inner(x))
    return keras.Model(inputs, layers.Dense(2, name="logits")(x))


def test_every_layer_has_its_bits_or_the_reason_why_it_is_float():
    model = quantizable(network(), "paper", overrides={"odd": "fp"})
    found = {one.layer: (one.weights, one.activations, one.why) for one in layer_summaries(model)}
    drawn = "of the pass"
    assert found == {
        "scale": ("-", "float", "made of the images, which no kernel has read"),
        "stem": ("8 bits", "float", "computed together with 'norm'"),
        "norm": ("-", "float", "computed together with 'relu'"),
        "relu": ("-", "8 bits", ""),
        "pool": ("-", "float", "keeps the values that it reads"),
        "odd": ("float", "float", "its kernel is left in float; left in float by the policy"),
        "inner/conv": (drawn, drawn, ""),
        "mean": ("-", drawn, ""),
        "logits": (drawn, "float", "output of the model"),
    }


def test_the_table_has_a_row_for_each_layer():
    model = quantizable(network(), "paper", overrides={"odd": "fp"})
    lines = summary(model).splitlines()
    assert lines[0].split() == ["layer", "kind", "weights", "activations", "why"]
    assert len(lines) == 1 + len(layer_summaries(model))
    assert lines[2] == "stem        Conv2D                  8 bits       float        " + (
        "computed together with 'norm'"
    )
