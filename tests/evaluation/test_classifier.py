"""A classifier on a backbone: what it starts at, and which quantizers it has."""

import keras
import numpy as np
import pytest

from tests.evaluation.evaluations import (
    NO_AUGMENTATION,
    brightness,
    config_of,
    evaluation_of,
)
from tfcq.evaluation.accuracy import accuracy_of
from tfcq.evaluation.classifier import (
    CLASSIFIER,
    Training,
    classifier_at,
    with_classifier,
    with_probe,
)
from tfcq.evaluation.evaluation import open_subject
from tfcq.evaluation.features import FeatureExtractor
from tfcq.evaluation.probe import fit_linear_probe
from tfcq.evaluation.protocols.linear import on_augmented_images, on_cached_features
from tfcq.evaluation.protocols.network import finetuned
from tfcq.nn.layers import QuantizedConv2D, QuantizedDense
from tfcq.nn.quantizable import quantizable
from tfcq.settings.bitwidths import FLOAT
from tfcq.settings.protocol_groups import CLASSIFIER_STARTS
from tfcq.settings.protocols import PROTOCOLS


def test_classifier_starts_as_the_source_does():
    starts = {"ssql": "uniform", "ssql_transfer": "uniform", "simsiam": "normal"}
    for protocol in PROTOCOLS.values():
        for name, preset in protocol.presets.items():
            expected = "normal" if "contrastive_quant" in name else starts.get(name, "zeros")
            assert protocol.name == "qat" or preset.classifier_start == expected, name
    width, classes = 100, 400
    for start, bound, deviation in (("uniform", 0.1, 0.1 / 3**0.5), ("normal", 0.06, 0.01)):
        kernel, bias = classifier_at(start, width, classes, seed=1)
        assert kernel.shape == (width, classes) and bias.shape == (classes,)
        assert kernel.std() == pytest.approx(deviation, rel=0.02)
        assert 0.9 * bound < np.abs(kernel).max() < bound or start == "normal"
        assert bias.std() == (pytest.approx(deviation, rel=0.1) if start == "uniform" else 0)
        again, other = (classifier_at(start, width, classes, seed=seed)[0] for seed in (1, 2))
        assert np.array_equal(kernel, again) and not np.array_equal(kernel, other)
    assert all(np.array_equal(part, 0 * part) for part in classifier_at("zeros", 3, 2, seed=1))


@pytest.fixture(scope="module")
def evaluation():
    """Images of random brightness and random labels."""
    images = np.random.default_rng(0).integers(0, 256, (20, 2, 2, 1), np.uint8)
    return evaluation_of(brightness(), images, np.arange(20) % 5, classes=5, bits="fp", seed=3)


@pytest.mark.parametrize("start", CLASSIFIER_STARTS)
def test_training_starts_from_the_classifier_that_its_settings_name(evaluation, start):
    """Without a step that moves it, the classifier is what it started at."""
    still = Training(1, 20, lambda steps: keras.optimizers.SGD(0.0), start)
    kernel, bias = classifier_at(start, 2, 5, seed=3)
    kept = []
    list(finetuned(evaluation, still, NO_AUGMENTATION, keep=lambda bits, one: kept.append(one)))
    for found, expected in zip(
        kept[0].get_layer(CLASSIFIER).get_weights(), (kernel, bias), strict=True
    ):
        np.testing.assert_array_equal(found, expected.astype(np.float32))
    features = FeatureExtractor(evaluation.backbone)(evaluation.data.test_images, FLOAT)
    top1 = accuracy_of(features @ kernel + bias, evaluation.data.test_labels, FLOAT).top1
    (augmented,) = on_augmented_images(evaluation, still, standardized=False)
    cached = on_cached_features(evaluation, still, standardized=False)(features, features, FLOAT)
    assert augmented.top1 == cached.top1 == top1


@pytest.mark.parametrize(
    ("policy", "kind"),
    [("paper", keras.layers.Dense), ("uniform", keras.layers.Dense), ("int8", QuantizedDense)],
)
def test_kept_classifier_stays_float_but_where_integer_runtimes_quantize_it(tmp_path, policy, kind):
    with_classifier(brightness(), 2).save(tmp_path / "kept.keras")
    place = {"model": tmp_path / "kept.keras", "output_dir": tmp_path, "dataset": "digits"}
    subject = open_subject(config_of(run_dir=None, protocol="classifier", policy=policy, **place))
    assert type(subject.model.get_layer(CLASSIFIER)) is kind
    assert isinstance(subject.model.get_layer("conv"), QuantizedConv2D)


@pytest.mark.parametrize("quantized", [False, True])
def test_a_probe_becomes_a_dense_layer_that_scores_alike(quantized):
    rng = np.random.default_rng(0)
    inputs = keras.Input((4, 4, 1))
    features = keras.layers.Flatten()(keras.layers.Conv2D(3, 3, name="conv")(inputs))
    backbone = keras.Model(inputs, features)
    backbone = quantizable(backbone, "int8") if quantized else backbone
    images, labels = rng.random((40, 4, 4, 1), "float32"), rng.integers(0, 3, 40)
    found = np.array(backbone(images))
    # A constant feature carries nothing.
    found[:, 0] = 2.0
    probe = fit_linear_probe(found, labels, 3)
    model = with_probe(backbone, probe)
    expected = probe.logits(np.asarray(backbone(images)))
    np.testing.assert_allclose(model(images), expected, rtol=1e-4, atol=1e-4)
    assert type(model) is type(backbone)
