"""Crops and start of labelled training are those of the settings, or else of the preset."""

import dataclasses

import keras
import numpy as np
import pytest
from tfcq.evaluation_flags import config_from_flags

from tests.evaluation.test_protocols import NO_AUGMENTATION, brightness, calibrating, split_of
from tfcq import (
    evaluate,
    evaluation_data,
    measurement,
    protocol_presets,
    quantization_aware,
)
from tfcq.data.augmentation import augmentation_for
from tfcq.data.pipeline import labelled_arrays
from tfcq.data.sources import open_source
from tfcq.errors import UserError
from tfcq.evaluation import protocols
from tfcq.evaluation.accuracy import LabelledImages, accuracy_of
from tfcq.evaluation.classifier import CLASSIFIER, classifier_at
from tfcq.evaluation.features import FeatureExtractor
from tfcq.evaluation.task import Task, Training
from tfcq.settings.bitwidths import FLOAT, parse_bit_widths
from tfcq.settings.policies import UNIFORM
from tfcq.settings.training import Config, DataSettings, ViewSettings
from tfcq.subject import Subject


def config_of(**values):
    arguments = [f"--{name}={value}" for name, value in {"run_dir": "run", **values}.items()]
    command = evaluate.flag_set().parse(arguments)
    return config_from_flags(command.values, command.given)


def subject_of(policy=None, views=None):
    return Subject(None, policy, None, None, "", "", "", True, views=views)


def augmentation(protocol, size, channels=3, views=None, **values):
    subject = subject_of(views=views)
    images = np.empty((1, size, size, channels), np.float32)
    return subject.augmentation(config_of(protocol=protocol, **values), images, protocol)


AUGMENTED = {"features": "augmented"}
SHARE = {"label_share": 0.1}


@pytest.mark.parametrize(
    ("protocol", "values", "area"),
    [
        ("linear", {"preset": "ssql", **AUGMENTED}, (0.8, 1)),
        ("linear", {"preset": "ssql_transfer", **AUGMENTED}, (0.08, 1)),
        ("linear", {"preset": "simsiam", **AUGMENTED}, (0.08, 1)),
        ("linear", {"preset": "contrastive_quant_cifar", **AUGMENTED}, (0.08, 1)),
        ("linear", {"preset": "contrastive_quant_imagenet", **AUGMENTED}, (0.08, 1)),
        ("linear", {"preset": "simsiam", "crop_area": "0.5-0.7", **AUGMENTED}, (0.5, 0.7)),
        # Ours, which has no crop of its own: that of the views.
        ("linear", AUGMENTED, (0.2, 1)),
        ("finetune", {}, (0.08, 1)),
        ("semi", SHARE, (0.08, 1)),
        ("semi", {"preset": "contrastive_quant_imagenet_1", **SHARE}, (0.08, 1)),
        ("semi", {"preset": "contrastive_quant_imagenet_10", **SHARE}, (0.08, 1)),
        ("semi", {"crop_area": "0.3-1", **SHARE}, (0.3, 1)),
        ("qat", {}, (0.08, 1)),
        ("knn", {}, (0.2, 1)),
    ],
)
def test_crops_are_those_given_or_of_the_preset(protocol, values, area):
    found = augmentation(protocol, 32, **values)
    assert found.crop_area == area
    assert (found.flip, found.jitter_probability, found.grayscale, found.blur) == (0.5, 0, 0, 0)


def test_crops_of_small_images_and_flips_are_those_of_the_views():
    views = Config(views=ViewSettings(crop_area="0.6-1", flip=0.0), data=DataSettings())
    for size, area in ((16, (0.6, 1)), (17, (0.08, 1))):
        found = augmentation("finetune", size, 1, views=views)
        assert (found.crop_area, found.flip) == (area, 0)
    assert augmentation("semi", 8, 1, **SHARE).crop_area == augmentation_for(8, 1).crop_area
    assert augmentation("semi", 8, 1, crop_area="0.1-1", **SHARE).crop_area == (0.1, 1)


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({"protocol": "linear", "crop_area": "0.1-1"}, "cached crops no image.*augmented"),
        ({"protocol": "knn", "crop_area": "0.1-1"}, "--crop_area has no effect"),
        ({"protocol": "finetune", "crop_area": "1-0.1"}, "crop_area=1-0.1; allowed: LOW-HIGH"),
        ({"protocol": "qat", "classifier_start": "normal"}, "--classifier_start has no effect"),
        ({"protocol": "finetune", "classifier_start": "ones"}, "classifier start 'ones'.*zeros"),
        ({"test_crop": 0}, "--test_crop=0.0 .*above 0 to 1"),
        ({"test_crop": 1.1}, "--test_crop=1.1 .*above 0 to 1"),
    ],
)
def test_flags_that_cannot_be_used_or_change_nothing_are_refused(values, text):
    with pytest.raises(UserError, match=text):
        config_of(**values)


def test_classifier_starts_as_the_source_does():
    starts = {"ssql": "uniform", "ssql_transfer": "uniform", "simsiam": "normal"}
    for protocol, presets in protocol_presets.PRESETS.items():
        for name, preset in presets.items():
            expected = "normal" if "contrastive_quant" in name else starts.get(name, "zeros")
            assert protocol == "qat" or preset.classifier_start == expected, name
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
def task():
    """Images of random brightness and random labels."""
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (20, 2, 2, 1), np.uint8)
    labels = np.arange(20) % 5
    floats = images.astype(np.float32) / 255
    return Task(
        backbone=brightness(),
        split=split_of(images, labels),
        data=LabelledImages(floats, labels, floats, labels, 5),
        image_size=2,
        augmentation=NO_AUGMENTATION,
        bit_widths=parse_bit_widths("fp"),
        calibrator=lambda model: calibrating(model, floats),
        seed=3,
    )


@pytest.mark.parametrize("start", protocol_presets.CLASSIFIER_STARTS)
def test_training_starts_from_the_classifier_that_its_settings_name(task, start):
    """Without a step that moves it, the classifier is what it started at."""
    still = Training(1, 20, lambda steps: keras.optimizers.SGD(0.0), start)
    kernel, bias = classifier_at(start, 2, 5, seed=3)
    kept = []
    list(protocols.finetune(task, still, keep=lambda bits, network: kept.append(network)))
    for found, expected in zip(
        kept[0].get_layer(CLASSIFIER).get_weights(), (kernel, bias), strict=True
    ):
        np.testing.assert_array_equal(found, expected.astype(np.float32))
    features = FeatureExtractor(task.backbone)(task.data.test_images, FLOAT)
    top1 = accuracy_of(features @ kernel + bias, task.data.test_labels, FLOAT).top1
    (augmented,) = protocols.linear_augmented(task, still, standardized=False)
    cached = protocols.linear_cached(task, still, standardized=False)(features, features, FLOAT)
    assert augmented.top1 == cached.top1 == top1


@pytest.mark.parametrize("held", [evaluation_data.HELD_BYTES, 0])
def test_every_plain_image_is_cut_as_asked_for(monkeypatch, held):
    monkeypatch.setattr(evaluation_data, "HELD_BYTES", held)
    model = keras.Sequential([keras.Input((8, 8, 1)), keras.layers.Flatten()])
    data = DataSettings(train_images=100)
    splits = {"train": open_source("digits").split("train").first(100)}
    splits["test"] = open_source("digits").split("test").first(30)
    for asked, recorded in ((None, 1.0), (0.5, 0.5)):
        split, found = evaluation_data.labelled_images(data, model, 30, asked)
        assert found.test_crop == recorded and split.size == 100
        for name, images in (("train", found.train_images), ("test", found.test_images)):
            expected = labelled_arrays(splits[name], 8, test_crop=recorded)[0]
            np.testing.assert_array_equal(list(images), expected)


@pytest.mark.parametrize(
    ("values", "function", "area"),
    [
        ({"protocol": "linear", "preset": "ssql", **AUGMENTED}, "linear_augmented", (0.8, 1)),
        ({"protocol": "finetune"}, "finetune", (0.08, 1)),
        ({"protocol": "semi,knn", "crop_area": "0.3-1", **SHARE}, "semi", (0.3, 1)),
    ],
)
def test_protocol_trains_on_its_own_crops(task, monkeypatch, values, function, area):
    large, given = np.empty((1, 32, 32, 3), np.float32), []
    task = dataclasses.replace(task, data=dataclasses.replace(task.data, train_images=large))
    monkeypatch.setattr(measurement, "sweep", lambda *_: ())
    monkeypatch.setattr(protocols, function, lambda task, *_: given.append(task) or ())
    list(measurement.measure(config_of(**values), subject_of(), task))
    assert [found.augmentation.crop_area for found in given] == [area]


def test_start_of_quantization_aware_training_is_cropped_as_fine_tuning_is(task, monkeypatch):
    config, crops, given = config_of(protocol="qat", start="finetune", crop_area="0.5-1"), [], {}
    large = np.empty((1, 32, 32, 3), np.float32)
    task = dataclasses.replace(task, data=dataclasses.replace(task.data, train_images=large))
    monkeypatch.setattr(protocols, "qat", lambda task, training, start, *_: given.update(run=start))
    monkeypatch.setattr(
        protocols, "finetuned_classifier", lambda task, training: crops.append((task, training))
    )
    quantization_aware.qat(config, subject_of(UNIFORM), task, None, None)
    given["run"]()
    ((found, training),) = crops
    assert found.augmentation.crop_area == (0.08, 1)
    assert (training.epochs, training.classifier_start) == (50, "uniform")
