"""Training of a classifier: its batches, its learning curve, and what it must not depend on."""

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
    losses_of,
    on_features,
    sgd,
    tiny_evaluation,
    with_model,
)
from tfcq.data.views import view_batches
from tfcq.errors import TrainingStopped, UserError
from tfcq.evaluation import run
from tfcq.evaluation.classifier import Training, with_classifier
from tfcq.evaluation.label_subsets import label_subset
from tfcq.evaluation.protocols import fit
from tfcq.evaluation.protocols.linear import on_augmented_images, on_cached_features
from tfcq.evaluation.protocols.network import finetuned, trained_at_each_bit_width
from tfcq.evaluation.protocols.qat import trained_further
from tfcq.nn.calibration import calibrate
from tfcq.nn.cloning import copy_of
from tfcq.nn.quantizable import QuantizableModel, quantizable
from tfcq.post_training.plan import Calibration, Plan
from tfcq.quantization.precision import Precision


@pytest.fixture
def evaluation():
    return tiny_evaluation()


RATE = 0.5
FLIPPED = dataclasses.replace(NO_AUGMENTATION, flip=1.0)


@pytest.fixture
def noisy():
    """Training, calibration and test images differ, and the network has a batch norm."""
    random = np.random.default_rng(0)
    inputs = keras.Input((4, 4, 1))
    x = keras.layers.Conv2D(3, 3, name="conv")(inputs)
    x = keras.layers.BatchNormalization(name="norm")(x)
    x = keras.layers.ReLU(name="relu")(x)
    network = keras.Model(inputs, keras.layers.GlobalAveragePooling2D(name="features")(x))
    for weight in network.weights:
        low, high = {"kernel": (-1, 1), "moving_mean": (-0.2, 0.2)}.get(weight.name, (0.5, 1.5))
        weight.assign(random.uniform(low, high, weight.shape))
    images = random.integers(0, 200, (8, 4, 4, 1), np.uint8)
    labels = np.array([0, 1, 0, 0, 1, 1, 0, 1], np.int64)
    test = random.random((6, 4, 4, 1), np.float32) / 2
    calibration = random.random((5, 4, 4, 1), np.float32)
    evaluation = evaluation_of(
        quantizable(network, "uniform"), images, labels, (test, labels[:6]), calibration,
        bits="2w3a", seed=3,
    )  # fmt: skip
    subject = dataclasses.replace(evaluation.subject, augmentation=FLIPPED)
    return dataclasses.replace(evaluation, subject=subject)


def with_features_dropped(evaluation):
    """Returns the evaluation of a network that drops half of its features when it is trained."""
    model = evaluation.backbone
    dropped = keras.layers.Dropout(0.5, name="dropout")(model.outputs[0])
    return with_model(evaluation, QuantizableModel(model.inputs[0], dropped))


def naive_losses(batches):
    """Returns the losses of softmax regression from zero, a step for each (features, labels)."""
    weights, bias, losses = np.zeros((3, 2)), np.zeros(2), []
    for features, labels in batches:
        exponentials = np.exp(features @ weights + bias)
        shares = exponentials / exponentials.sum(axis=1, keepdims=True)
        losses.append(-np.mean(np.log(shares[np.arange(len(labels)), labels])))
        errors = (shares - np.eye(2)[labels]) / len(labels)
        weights, bias = weights - RATE * features.T @ errors, bias - RATE * errors.sum(axis=0)
    return losses


def augmented(evaluation, count, batch_size, split=None):
    """Returns the first batches of training images in the order of the evaluation's seed."""
    batches = view_batches(split or evaluation.split, FLIPPED, evaluation.image_size, batch_size,
                           evaluation.seed, views=(1,), labels=True)  # fmt: skip
    batches = list(batches.take(count).as_numpy_iterator())
    # Every image is flipped, so that none of them is one as it is.
    plain = {image.tobytes() for image in evaluation.data.train_images}
    assert not any(image.tobytes() in plain for images, _ in batches for image in images)
    return batches


@pytest.mark.parametrize("standardized", [False, True])
@pytest.mark.parametrize("features", ["cached", "augmented"])
def test_probe_is_trained_on_the_frozen_features_of_its_bits_and_recorded_ranges(
    noisy, features, standardized
):
    expected = copy_of(noisy.backbone)
    calibrate(expected, noisy.calibration_images)

    def frozen(images):
        # As they are tested: statistics and dropout do not take part.
        return expected(images, precision=Precision(2, 3)).numpy()

    evaluation = with_features_dropped(noisy)
    if features == "cached":
        batches = [(noisy.data.train_images, noisy.data.train_labels)] * 3
        training = Training(3, 8, lambda steps: keras.optimizers.SGD(RATE))
        results = on_features(evaluation, on_cached_features(evaluation, training, standardized))
    else:
        batches = augmented(noisy, 4, 4)
        training = Training(2, 4, lambda steps: keras.optimizers.SGD(RATE))
        results = on_augmented_images(evaluation, training, standardized)
    known = frozen(noisy.data.train_images)
    assert known.std(axis=0).min() > 0.01
    mean, deviation = (known.mean(0), known.std(0)) if standardized else (0, 1)
    losses = naive_losses([((frozen(x) - mean) / deviation, labels) for x, labels in batches])
    losses = losses if features == "cached" else np.reshape(losses, (2, 2)).mean(axis=1)
    np.testing.assert_allclose(losses_of(results), losses, rtol=1e-4)


@pytest.mark.parametrize("protocol", ["finetune", "semi", "qat"])
def test_whole_network_is_trained_at_its_bits_with_the_statistics_of_its_batches(noisy, protocol):
    """The classifier starts at zero, so that the first step moves nothing but the classifier."""
    share, split = (None, noisy.split) if protocol == "qat" else (0.5, None)
    if split is None:
        split = noisy.split.subset(label_subset(noisy.data.train_labels, 0.5, 3).tolist())
    batches = augmented(noisy, 2, split.size // 2, split)
    training = Training(1, split.size // 2, lambda steps: keras.optimizers.SGD(RATE))
    if protocol == "finetune":
        results = finetuned(noisy, training, FLIPPED, share)
    elif protocol == "semi":
        results = trained_at_each_bit_width(noisy, training, FLIPPED, share)
    else:
        start = with_classifier(copy_of(noisy.backbone), 2)
        results = trained_further(noisy, training, FLIPPED, lambda: start, copy_of)
    precision = None if protocol == "finetune" else Precision(2, 3, "tensor")
    trained = copy_of(noisy.backbone)
    losses = naive_losses(
        [(trained(x, precision=precision, training=True).numpy(), labels) for x, labels in batches]
    )
    np.testing.assert_allclose(losses_of(results), [np.mean(losses)], rtol=1e-4)


def test_learning_curves_have_a_point_for_every_epoch_at_the_weights_of_its_end(
    evaluation, monkeypatch
):
    observed, kept, observe = [], [], Calibration.observe

    def seen(calibration):
        observed.append(calibration._model.get_layer("conv").kernel.numpy())
        observe(calibration)

    monkeypatch.setattr(Calibration, "observe", seen)
    evaluation = dataclasses.replace(evaluation, plan=Plan(calibration_pass="float"))
    training = dataclasses.replace(TRAINING, epochs=3)
    first, second = trained_at_each_bit_width(
        evaluation, training, NO_AUGMENTATION, 1.0, keep=lambda *made: kept.append(made)
    )
    for found in (first, second):
        assert [point["epoch"] for point in found.curve] == [1, 2, 3]
        assert found.curve[-1]["top1"] == found.top1
        assert found.curve[-1]["loss"] < found.curve[0]["loss"]
    assert [str(bits) for bits, _ in kept] == ["fp", "8w8a"]
    # Ranges follow the weights: at the end of each epoch, and of the training.
    assert len(observed) == 3 + 1
    assert all(
        np.abs(one - other).max() > 0 for one, other in zip(observed, observed[1:3], strict=False)
    )
    np.testing.assert_array_equal(observed[-1], kept[1][1].get_layer("conv").kernel)
    assert (first.ranges, second.ranges) == (None, "float pass")


def test_learning_curves_can_be_scored_on_the_first_images_alone(evaluation):
    # The second of four test images is the one on the wrong side.
    short = asking(evaluation, curve_images=1)
    for found in finetuned(short, TRAINING, NO_AUGMENTATION):
        assert found.top1 == 0.75
        if found.curve is not None:
            assert found.curve[-1]["top1"] == 1.0


def test_few_labels_train_on_their_share_alone(evaluation):
    with pytest.raises(UserError, match="batch_size=4 with 2 images .*; allowed: 1 to 2"):
        list(trained_at_each_bit_width(evaluation, TRAINING, NO_AUGMENTATION, label_share=0.25))


def test_diverging_training_says_what_to_lower(evaluation):
    training = dataclasses.replace(TRAINING, optimizer=sgd(1e30))
    with pytest.raises(TrainingStopped, match="lower --learning_rate"):
        list(finetuned(evaluation, training, NO_AUGMENTATION))


AUGMENTED = {"features": "augmented"}


class Stopped(Exception):
    """Ends a training where its batches would be made."""


@pytest.mark.parametrize(
    ("values", "area"),
    [
        ({"protocol": "linear", "preset": "ssql", **AUGMENTED}, (0.8, 1)),
        ({"protocol": "finetune"}, (0.08, 1)),
        ({"protocol": "semi,knn", "crop_area": "0.3-1", "label_share": 0.5}, (0.3, 1)),
    ],
)
def test_protocol_trains_on_its_own_crops(evaluation, monkeypatch, values, area):
    data = dataclasses.replace(evaluation.data, train_images=np.empty((1, 32, 32, 3), np.float32))
    config = config_of(batch_size=2, **values)
    evaluation = dataclasses.replace(evaluation, config=config, data=data)

    def batches(split, augmentation, *others, **named):
        given.append(augmentation)
        raise Stopped

    given = []
    monkeypatch.setattr(type(evaluation), "scored", lambda *_: ())
    monkeypatch.setattr(fit, "view_batches", batches)
    with pytest.raises(Stopped):
        list(run.measure(evaluation))
    assert [found.crop_area for found in given] == [area]
