"""Quantization-aware training: what is quantized, what is trained, and where it starts."""

import dataclasses
import types

import keras
import numpy as np
import pytest

from tests.evaluation.test_protocols import NO_AUGMENTATION, calibrating, sgd, split_of
from tfcq import quantization_aware
from tfcq.evaluation import protocols
from tfcq.evaluation.accuracy import LabelledImages
from tfcq.evaluation.classifier import CLASSIFIER
from tfcq.evaluation.task import Task, Training
from tfcq.nn.quantizable import quantizable, quantizers_of
from tfcq.quantization.precision import Precision
from tfcq.quantization.kinds import ACTIVATION_QUANTIZERS, WEIGHT_QUANTIZERS
from tfcq.settings.bitwidths import BitWidth
from tfcq.settings.evaluation import (
    QAT_QUANTIZERS,
    EvaluationConfig,
    PostTrainingSettings,
    ProtocolSettings,
    ProtocolTrainingSettings,
)
from tfcq.settings.policies import PAPER
from tfcq.settings.protocols import PRESETS

BITS = BitWidth(3, 3)
# The subject's own network quantizes otherwise than any of QAT.
SUBJECT = types.SimpleNamespace(
    policy=PAPER.with_quantizers("linear", "linear"),
    augmentation=lambda config, images, protocol: NO_AUGMENTATION,
)


@pytest.fixture(scope="module")
def task():
    """Eight random images of two classes, and a network with a batch norm."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((4, 4, 1))
    x = keras.layers.Conv2D(3, 2, use_bias=False, name="stem")(inputs)
    x = keras.layers.ReLU()(keras.layers.BatchNormalization(name="norm")(x))
    x = keras.layers.ReLU()(keras.layers.Conv2D(3, 2, name="second")(x))
    x = keras.layers.GlobalAveragePooling2D(name="features")(x)
    images = np.random.default_rng(0).integers(0, 256, (8, 4, 4, 1)).astype(np.uint8)
    labels = np.arange(8) % 2
    pixels = images.astype(np.float32) / 255
    return Task(
        backbone=quantizable(keras.Model(inputs, x), SUBJECT.policy),
        split=split_of(images, labels),
        data=LabelledImages(pixels, labels, pixels, labels, 2),
        image_size=4,
        augmentation=NO_AUGMENTATION,
        bit_widths=(BITS,),
        calibrator=lambda model: calibrating(model, pixels),
    )


def trained(task, training, **settings):
    """Returns the network that QAT trains from a linear probe."""
    config = EvaluationConfig(measurement=ProtocolSettings(protocol="qat", **settings))
    kept = []
    keep = lambda bits, network: kept.append(network)  # noqa: E731
    list(quantization_aware.qat(config, SUBJECT, task, training, keep))
    return kept[0]


@pytest.mark.parametrize("quantizer", ["lsq", "pact"])
def test_all_but_the_classifier_are_quantized_by_the_kinds_asked_for(task, quantizer):
    network = trained(task, Training(1, 8, sgd(1e-9)), quantizer=quantizer)
    weights, activations = QAT_QUANTIZERS[quantizer]
    found = quantizers_of(network, "weight_quantizer")
    assert set(found) == {"stem", "second"}
    assert {type(one) for one in found.values()} == {WEIGHT_QUANTIZERS[weights]}
    assert (found["stem"].bits, found["second"].bits) == (8, None)
    kinds = {type(one) for one in quantizers_of(network, "quantizer").values()}
    assert kinds == {ACTIVATION_QUANTIZERS[activations]}
    assert type(network.get_layer(CLASSIFIER)) is keras.layers.Dense


def test_batch_norm_takes_the_statistics_of_the_quantized_pass(task):
    network = trained(task, Training(1, 8, sgd(1e-9)), quantizer="minmax")
    norm, images = network.get_layer("norm"), task.data.train_images
    precision = Precision(BITS.weights, BITS.activations, ranges="tensor")
    # One step of all images, with weights that hardly move.
    seen = network.get_layer("stem")(images, precision=precision).numpy().astype(np.float64)
    moved = (1 - norm.momentum) * seen.mean((0, 1, 2))
    np.testing.assert_allclose(norm.moving_mean, moved, rtol=1e-4, atol=1e-7)
    assert np.abs(norm.moving_mean).max() > 1e-4


def test_start_is_finetuned_as_its_own_protocol_is_but_for_the_batch_size(task, monkeypatch):
    started = []

    def finetuned(task, training):
        started.append(training)
        return protocols.linear_classifier(task)

    monkeypatch.setattr(protocols, "finetuned_classifier", finetuned)
    own = PRESETS["finetune"]["ssql"]
    for given in (None, 4):
        config = EvaluationConfig(
            measurement=ProtocolSettings(protocol="qat", start="finetune"),
            training=ProtocolTrainingSettings(batch_size=given, epochs=3, learning_rate=7.0),
        )
        few = dataclasses.replace(task, bit_widths=())
        list(quantization_aware.qat(config, SUBJECT, few, Training(3, 4, sgd()), lambda *_: None))
        assert (started[-1].epochs, started[-1].batch_size) == (own.epochs, given or own.batch_size)
        assert float(started[-1].optimizer(10).learning_rate) < 7.0


@pytest.mark.parametrize(("asked", "rounding"), [(None, "nearest"), ("floor", "floor")])
def test_rounding_is_that_asked_for_whatever_the_run_was_trained_with(task, asked, rounding):
    policy = dataclasses.replace(SUBJECT.policy, rounding="stochastic")
    subject = types.SimpleNamespace(policy=policy)
    config = EvaluationConfig(
        measurement=ProtocolSettings(protocol="qat", quantizer="minmax"),
        post_training=PostTrainingSettings(rounding=asked),
    )
    kept = []
    training = Training(1, 8, sgd(0.0))
    list(quantization_aware.qat(config, subject, task, training, lambda _, one: kept.append(one)))
    assert kept[0].get_layer("second").weight_quantizer.rounding == rounding
