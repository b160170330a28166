"""Quantization-aware training: what is quantized, what is trained, and where it starts."""

import dataclasses

import keras
import numpy as np
import pytest

from tests.evaluation.evaluations import (
    NO_AUGMENTATION,
    TRAINING,
    asking,
    config_of,
    evaluation_of,
    subject_of,
    tiny_evaluation,
    with_model,
)
from tfcq.evaluation.classifier import CLASSIFIER
from tfcq.evaluation.evaluation import Evaluation
from tfcq.evaluation.features import FeatureExtractor
from tfcq.evaluation.probe import fit_linear_probe
from tfcq.evaluation.protocols import qat
from tfcq.evaluation.protocols.qat import linear_classifier, trained_further
from tfcq.nn.cloning import copy_of
from tfcq.nn.float_model import requantizable
from tfcq.nn.quantizable import quantizable, quantizers_of
from tfcq.quantization.kinds import ACTIVATION_QUANTIZERS, WEIGHT_QUANTIZERS
from tfcq.quantization.precision import Precision
from tfcq.settings.bitwidths import BitWidth
from tfcq.settings.policies import PAPER, UNIFORM
from tfcq.settings.protocol_groups import QAT_QUANTIZERS
from tfcq.settings.protocols import PROTOCOLS

BITS = BitWidth(3, 3)
# The subject's own network quantizes otherwise than any of QAT.
POLICY = PAPER.with_quantizers("linear", "linear")
# One step of all images, with weights that hardly move.
STILL = {"epochs": 1, "batch_size": 8, "learning_rate": 1e-9, "learning_rate_schedule": "cosine"}


@pytest.fixture(scope="module")
def evaluation():
    """Eight random images of two classes, and a network with a batch norm."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((4, 4, 1))
    x = keras.layers.Conv2D(3, 2, use_bias=False, name="stem")(inputs)
    x = keras.layers.ReLU()(keras.layers.BatchNormalization(name="norm")(x))
    x = keras.layers.ReLU()(keras.layers.Conv2D(3, 2, name="second")(x))
    x = keras.layers.GlobalAveragePooling2D(name="features")(x)
    images = np.random.default_rng(0).integers(0, 256, (8, 4, 4, 1)).astype(np.uint8)
    model = quantizable(keras.Model(inputs, x), POLICY)
    found = evaluation_of(model, images, np.arange(8) % 2, bits=str(BITS), protocol="qat")
    return dataclasses.replace(found, subject=subject_of(model, POLICY))


@pytest.fixture
def trained(monkeypatch):
    """Returns a function from an evaluation and settings to the network that QAT trains."""
    kept = []
    monkeypatch.setattr(
        Evaluation, "keep", lambda self, protocol, bits, network: kept.append(network)
    )

    def run(evaluation, **settings):
        kept.clear()
        list(qat.qat.run(asking(evaluation, **STILL, **settings)))
        return kept[0]

    return run


@pytest.mark.parametrize("quantizer", ["lsq", "pact"])
def test_all_but_the_classifier_are_quantized_by_the_kinds_asked_for(
    evaluation, trained, quantizer
):
    network = trained(evaluation, quantizer=quantizer)
    weights, activations = QAT_QUANTIZERS[quantizer]
    found = quantizers_of(network, "weight_quantizer")
    assert set(found) == {"stem", "second"}
    assert {type(one) for one in found.values()} == {WEIGHT_QUANTIZERS[weights]}
    assert (found["stem"].bits, found["second"].bits) == (8, None)
    kinds = {type(one) for one in quantizers_of(network, "quantizer").values()}
    assert kinds == {ACTIVATION_QUANTIZERS[activations]}
    assert type(network.get_layer(CLASSIFIER)) is keras.layers.Dense


def test_batch_norm_takes_the_statistics_of_the_quantized_pass(evaluation, trained):
    network = trained(evaluation, quantizer="minmax")
    norm, images = network.get_layer("norm"), evaluation.data.train_images
    precision = Precision(BITS.weights, BITS.activations, ranges="tensor")
    seen = network.get_layer("stem")(images, precision=precision).numpy().astype(np.float64)
    moved = (1 - norm.momentum) * seen.mean((0, 1, 2))
    np.testing.assert_allclose(norm.moving_mean, moved, rtol=1e-4, atol=1e-7)
    assert np.abs(norm.moving_mean).max() > 1e-4


@pytest.fixture
def started(monkeypatch):
    """Returns a function from an evaluation to how its start is fine-tuned: training and crops."""

    def run(evaluation):
        calls = []

        def trained_network(given, training, augmentation, bits):
            calls.append((training, augmentation))
            assert bits.is_float
            return None, None

        monkeypatch.setattr(qat, "trained_network", trained_network)
        monkeypatch.setattr(
            qat, "trained_further", lambda given, training, crops, start, *_: (start(),)
        )
        list(qat.qat.run(evaluation))
        ((training, augmentation),) = calls
        return training, augmentation

    return run


def test_start_is_finetuned_as_its_own_protocol_is_but_for_the_batch_size(evaluation, started):
    own = PROTOCOLS["finetune"].presets["ssql"]
    for given in (None, 4):
        training, _ = started(
            asking(evaluation, start="finetune", batch_size=given, epochs=31, learning_rate=7.0)
        )
        assert (training.epochs, training.batch_size) == (own.epochs, given or own.batch_size)
        assert float(training.optimizer(10).learning_rate) < 7.0


def test_start_of_quantization_aware_training_is_cropped_as_fine_tuning_is(evaluation, started):
    config = config_of(protocol="qat", start="finetune", crop_area="0.5-1")
    large = dataclasses.replace(evaluation.data, train_images=np.empty((1, 32, 32, 3), np.float32))
    training, crops = started(dataclasses.replace(evaluation, config=config, data=large))
    assert crops.crop_area == (0.08, 1)
    assert (training.epochs, training.classifier_start) == (50, "uniform")


@pytest.mark.parametrize(("asked", "rounding"), [(None, "nearest"), ("floor", "floor")])
def test_rounding_is_that_asked_for_whatever_the_run_was_trained_with(
    evaluation, trained, asked, rounding
):
    policy = dataclasses.replace(POLICY, rounding="stochastic")
    subject = dataclasses.replace(evaluation.subject, policy=policy)
    network = trained(
        dataclasses.replace(evaluation, subject=subject), quantizer="minmax", rounding=asked
    )
    assert network.get_layer("second").weight_quantizer.rounding == rounding


@pytest.fixture
def tiny():
    return tiny_evaluation()


def test_linear_classifier_is_the_probe_on_standardized_features(tiny):
    features = FeatureExtractor(tiny.backbone)(tiny.data.train_images)
    probe = fit_linear_probe(features, tiny.data.train_labels, 2)
    network = linear_classifier(tiny)
    test = tiny.data.test_images
    expected = probe.logits(FeatureExtractor(tiny.backbone)(test))
    np.testing.assert_allclose(network(test), expected, rtol=1e-4, atol=1e-4)


def with_dropout(evaluation, rate=0.5):
    """Returns the evaluation of a network that drops a share of its features in training."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((2, 2, 1))
    x = keras.layers.Dense(8, name="dense")(keras.layers.Flatten(name="flat")(inputs))
    network = keras.Model(inputs, keras.layers.Dropout(rate, name="dropout")(x))
    return with_model(evaluation, quantizable(network, "uniform"))


def test_dropout_draws_the_same_whatever_was_trained_before(tiny):
    training = dataclasses.replace(TRAINING, epochs=2)
    tiny = with_dropout(tiny)

    def losses(bits):
        chosen = asking(tiny, bits=bits)
        start = linear_classifier(chosen)
        *_, last = trained_further(chosen, training, NO_AUGMENTATION, lambda: start, copy_of)
        return [point["loss"] for point in last.curve]

    assert losses("fp,4w4a") == pytest.approx(losses("4w4a"))


def test_learned_step_sizes_are_trained(tiny):
    policy = UNIFORM.with_quantizers("lsq", "lsq")
    policy = dataclasses.replace(policy, detach_scale=False, overrides=((CLASSIFIER, "fp"),))
    made = []

    def with_lsq(model):
        made.append(requantizable(model, policy))
        return made[-1]

    tiny = asking(tiny, bits="3w4a")
    start = linear_classifier(tiny)
    # One epoch, so that the network is scored once alone, at its last weights.
    training = dataclasses.replace(TRAINING, epochs=1)
    (found,) = trained_further(tiny, training, NO_AUGMENTATION, lambda: start, with_lsq)
    assert found.top1 == 0.75
    step_sizes = made[0].get_layer("conv").learned_scale.numpy()
    used = step_sizes.reshape(15, -1)[3 - 2]
    # Nor are they what a first pass over the trained network, to score it, would set them to.
    for network in (start, made[0]):
        kernel = network.get_layer("conv").kernel.numpy()
        initial = 2 * np.abs(kernel).reshape(-1, 2).mean(axis=0) / np.sqrt(3)
        assert np.all(used > 0) and np.abs(used - initial).max() > 1e-4
