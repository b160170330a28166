"""Protocols on a tiny network with hand-set weights, and on real digits."""

import dataclasses

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfcq.data.augmentation import Augmentation
from tfcq.data.pipeline import view_batches
from tfcq.data.split import Split
from tfcq.errors import TrainingStopped, UserError
from tfcq.evaluation import protocols
from tfcq.evaluation.accuracy import LabelledImages
from tfcq.evaluation.classifier import CLASSIFIER, with_classifier
from tfcq.evaluation.features import FeatureExtractor, QuantizedFeatures
from tfcq.evaluation.knn import knn_scores
from tfcq.evaluation.label_subsets import label_subset
from tfcq.evaluation.linear import fit_linear_probe
from tfcq.evaluation.sweep import by_scores, sweep
from tfcq.evaluation.task import Task, Training
from tfcq.nn.calibration import Calibrator
from tfcq.nn.cloning import copy_of
from tfcq.nn.float_model import requantizable
from tfcq.nn.quantizable import QuantizableModel, quantizable
from tfcq.quantization.precision import Precision
from tfcq.settings.bitwidths import FLOAT, parse_bit_widths
from tfcq.settings.policies import UNIFORM

NO_AUGMENTATION = Augmentation(
    crop_area=(1.0, 1.0), crop_aspect=(1.0, 1.0), flip=0.0, jitter_probability=0.0, saturation=0.0,
    hue=0.0, grayscale=0.0, blur=0.0,
)  # fmt: skip


def split_of(images, labels):
    """Returns a split of uint8 images [count, height, width, channels]."""
    records = tf.data.Dataset.from_tensor_slices(
        {"index": np.arange(len(images), dtype=np.int64), "image": images, "label": labels}
    )
    return Split("train", len(images), images.shape[1:], ("a", "b"), records, lambda r: r, 16)


def brightness(shape=(2, 2, 1)):
    """Returns a network whose two features are the mean brightness and its negative."""
    inputs = keras.Input(shape)
    x = keras.layers.Conv2D(2, 1, use_bias=False, name="conv")(inputs)
    model = keras.Model(inputs, keras.layers.GlobalAveragePooling2D(name="features")(x))
    model.get_layer("conv").set_weights([np.array([1.0, -1.0]).reshape(1, 1, 1, 2)])
    return quantizable(model, "uniform")


@pytest.fixture
def task():
    return tiny_task()


def tiny_task():
    """Returns a task whose class 1 is bright; one of four test images is on the wrong side."""
    levels = np.array([10, 30, 20, 40, 200, 220, 210, 250], np.uint8)
    images = np.broadcast_to(levels[:, None, None, None], (8, 2, 2, 1)).copy()
    labels = np.array([0] * 4 + [1] * 4, np.int64)
    test = np.array([15, 240, 35, 205], np.float32)[:, None, None, None] / 255
    test = np.broadcast_to(test, (4, 2, 2, 1)).copy()
    train = images.astype(np.float32) / 255
    return Task(
        backbone=brightness(),
        split=split_of(images, labels),
        data=LabelledImages(train, labels, test, np.array([0, 0, 0, 1]), 2),
        image_size=2,
        augmentation=NO_AUGMENTATION,
        bit_widths=parse_bit_widths("fp,8w8a"),
        calibrator=lambda model: calibrating(model, train),
    )


def calibrating(model, images):
    calibrate = Calibrator(model)

    def observe():
        calibrate(images)
        return lambda bits: "float pass"

    return observe


def sgd(rate=0.1):
    return lambda steps: keras.optimizers.SGD(rate, momentum=0.9)


def weights_of(model):
    return [w.numpy().copy() for w in model.weights]


EXPECTED = [("fp", 0.75, 1.0, round(5 / 6, 6)), ("8w8a", 0.75, 1.0, round(5 / 6, 6))]


def figures(results):
    return [(r.bits, r.top1, r.top5, round(r.mean_per_class, 6)) for r in results]


def on_features(task, scorer):
    """Yields the accuracy of what scores the features of the task's backbone."""
    features = QuantizedFeatures(task.quantized(copy_of(task.backbone)))
    for _, result in sweep(features, task.data, task.bit_widths, {"scored": scorer}):
        yield result


TRAINING = Training(epochs=20, batch_size=4, optimizer=sgd())


@pytest.mark.parametrize(
    "run",
    [
        lambda task: on_features(task, protocols.linear_cached(task, TRAINING, True)),
        lambda task: protocols.linear_augmented(task, TRAINING, standardized=True),
        lambda task: protocols.finetune(task, TRAINING),
        lambda task: protocols.semi(task, TRAINING, label_share=1.0),
        lambda task: protocols.qat(
            task, TRAINING, lambda: protocols.linear_classifier(task), copy_of
        ),
        lambda task: protocols.classify(task, protocols.linear_classifier(task)),
    ],
    ids=["cached", "augmented", "finetune", "semi", "qat", "classifier"],
)
def test_hand_set_network_gives_the_hand_computed_accuracy_and_stays_as_it_is(task, run):
    before = weights_of(task.backbone)
    assert figures(run(task)) == EXPECTED
    for old, new in zip(before, weights_of(task.backbone), strict=True):
        np.testing.assert_array_equal(old, new)


def test_hand_set_network_gives_the_hand_computed_accuracy_under_nearest_neighbours(task):
    """Features are brightness and darkness, so that the angle between images follows brightness."""
    inputs = keras.Input((2, 2, 1))
    x = keras.layers.Conv2D(2, 1, name="conv")(inputs)
    network = keras.Model(inputs, keras.layers.GlobalAveragePooling2D(name="features")(x))
    kernel = np.array([1.0, -1.0]).reshape(1, 1, 1, 2)
    network.get_layer("conv").set_weights([kernel, np.array([0.0, 1.0])])
    task = dataclasses.replace(task, backbone=quantizable(network, "uniform"))

    def nearest(train, labels, test, classes):
        return knn_scores(train, labels, test, classes, neighbours=3)

    assert figures(on_features(task, by_scores(nearest, task.data))) == EXPECTED


RATE = 0.5


@pytest.fixture
def noisy():
    """A task whose training, calibration and test images differ, and a network with batch norm."""
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
    train = images.astype(np.float32) / 255
    test = random.random((6, 4, 4, 1), np.float32) / 2
    calibration = random.random((5, 4, 4, 1), np.float32)
    return Task(
        backbone=quantizable(network, "uniform"),
        split=split_of(images, labels),
        data=LabelledImages(train, labels, test, labels[:6], 2),
        image_size=4,
        augmentation=dataclasses.replace(NO_AUGMENTATION, flip=1.0),
        bit_widths=parse_bit_widths("2w3a"),
        calibrator=lambda model: calibrating(model, calibration),
        seed=3,
    )


def with_features_dropped(task):
    """Returns the task with a network that drops half of its features when it is trained."""
    model = task.backbone
    dropped = keras.layers.Dropout(0.5, name="dropout")(model.outputs[0])
    return dataclasses.replace(task, backbone=QuantizableModel(model.inputs[0], dropped))


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


def losses_of(results):
    (found,) = (one for one in results if one.curve is not None)
    return [point["loss"] for point in found.curve]


def augmented(task, count, batch_size, split=None):
    """Returns the first batches of training images in the order of the task's seed."""
    batches = view_batches(split or task.split, task.augmentation, task.image_size, batch_size,
                           task.seed, views=(1,), labels=True)  # fmt: skip
    batches = list(batches.take(count).as_numpy_iterator())
    # Every image is flipped, so that none of them is one as it is.
    plain = {image.tobytes() for image in task.data.train_images}
    assert not any(image.tobytes() in plain for images, _ in batches for image in images)
    return batches


@pytest.mark.parametrize("standardized", [False, True])
@pytest.mark.parametrize("features", ["cached", "augmented"])
def test_probe_is_trained_on_the_frozen_features_of_its_bits_and_recorded_ranges(
    noisy, features, standardized
):
    expected = copy_of(noisy.backbone)
    noisy.calibrator(expected)()(None)

    def frozen(images):
        # As they are tested: statistics and dropout do not take part.
        return expected(images, precision=Precision(2, 3)).numpy()

    task = with_features_dropped(noisy)
    if features == "cached":
        batches = [(noisy.data.train_images, noisy.data.train_labels)] * 3
        training = Training(3, 8, lambda steps: keras.optimizers.SGD(RATE))
        results = on_features(task, protocols.linear_cached(task, training, standardized))
    else:
        batches = augmented(noisy, 4, 4)
        training = Training(2, 4, lambda steps: keras.optimizers.SGD(RATE))
        results = protocols.linear_augmented(task, training, standardized)
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
        results = protocols.finetune(noisy, training, share)
    elif protocol == "semi":
        results = protocols.semi(noisy, training, share)
    else:
        start = with_classifier(copy_of(noisy.backbone), 2)
        results = protocols.qat(noisy, training, lambda: start, copy_of)
    precision = None if protocol == "finetune" else Precision(2, 3, "tensor")
    trained = copy_of(noisy.backbone)
    losses = naive_losses(
        [(trained(x, precision=precision, training=True).numpy(), labels) for x, labels in batches]
    )
    np.testing.assert_allclose(losses_of(results), [np.mean(losses)], rtol=1e-4)


def test_learning_curves_have_a_point_for_every_epoch_at_the_weights_of_its_end(task):
    observed, kept = [], []

    def calibrator(model):
        observe = calibrating(model, task.data.train_images)
        return lambda: observed.append(model.get_layer("conv").kernel.numpy()) or observe()

    task = dataclasses.replace(task, calibrator=calibrator)
    training = dataclasses.replace(TRAINING, epochs=3)
    (first, second) = protocols.semi(task, training, 1.0, keep=lambda *made: kept.append(made))
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


def test_ranges_are_set_for_every_bit_width_anew(task):
    asked = []
    task = dataclasses.replace(task, calibrator=lambda model: lambda: asked.append)
    quantized = task.quantized(task.backbone)
    assert [quantized(bits) for bits in task.bit_widths] == [task.backbone] * 2
    assert tuple(asked) == task.bit_widths


def test_learning_curves_can_be_scored_on_the_first_images_alone(task):
    # The second of four test images is the one on the wrong side.
    short = dataclasses.replace(task, curve_images=1)
    for found in protocols.finetune(short, TRAINING):
        assert found.top1 == 0.75
        if found.curve is not None:
            assert found.curve[-1]["top1"] == 1.0


def test_linear_classifier_is_the_probe_on_standardized_features(task):
    features = FeatureExtractor(task.backbone)(task.data.train_images)
    probe = fit_linear_probe(features, task.data.train_labels, 2)
    network = protocols.linear_classifier(task)
    test = task.data.test_images
    expected = probe.logits(FeatureExtractor(task.backbone)(test))
    np.testing.assert_allclose(network(test), expected, rtol=1e-4, atol=1e-4)


def test_few_labels_train_on_their_share_alone(task):
    with pytest.raises(UserError, match="batch_size=4 with 2 images .*; allowed: 1 to 2"):
        list(protocols.semi(task, TRAINING, label_share=0.25))


def test_training_from_scratch_forgets_the_backbone(task):
    training = dataclasses.replace(TRAINING, epochs=1, optimizer=sgd(1e-9))
    kernels = []

    def calibrator(model):
        kernels.append(model.get_layer("conv").kernel.numpy())
        return calibrating(model, task.data.train_images)

    task = dataclasses.replace(task, calibrator=calibrator, bit_widths=(FLOAT,))
    list(protocols.finetune(task, training))
    list(protocols.finetune(task, training, from_scratch=True))
    own = task.backbone.get_layer("conv").kernel.numpy()
    np.testing.assert_allclose(kernels[0], own, atol=1e-6)
    assert np.abs(kernels[-1] - own).max() > 0.01


def test_random_start_does_not_depend_on_what_was_trained_before(task):
    training = dataclasses.replace(TRAINING, epochs=2)
    one, other = parse_bit_widths("4w4a,fp")
    task = dataclasses.replace(task, bit_widths=(one,))
    (alone,) = protocols.semi(task, training, 1.0, from_scratch=True)
    task = dataclasses.replace(task, bit_widths=(other, one))
    _, behind = protocols.semi(task, training, 1.0, from_scratch=True)
    assert [p["loss"] for p in behind.curve] == pytest.approx([p["loss"] for p in alone.curve])


def with_dropout(task, rate=0.5):
    """Returns the task with a network that drops a share of its features while it is trained."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((2, 2, 1))
    x = keras.layers.Dense(8, name="dense")(keras.layers.Flatten(name="flat")(inputs))
    network = keras.Model(inputs, keras.layers.Dropout(rate, name="dropout")(x))
    return dataclasses.replace(task, backbone=quantizable(network, "uniform"))


def test_dropout_draws_the_same_whatever_was_trained_before(task):
    training = dataclasses.replace(TRAINING, epochs=2)
    one, other = parse_bit_widths("4w4a,fp")
    task = with_dropout(task)

    def losses(*bit_widths):
        chosen = dataclasses.replace(task, bit_widths=bit_widths)
        start = protocols.linear_classifier(chosen)
        *_, last = protocols.qat(chosen, training, lambda: start, copy_of)
        return [point["loss"] for point in last.curve]

    assert losses(other, one) == pytest.approx(losses(one))


def test_whole_network_is_trained_where_a_model_has_frozen_layers(task):
    inputs = keras.Input((2, 2, 1))
    x = keras.layers.Dense(4, trainable=False, name="frozen")(keras.layers.Flatten()(inputs))
    task = dataclasses.replace(task, backbone=quantizable(keras.Model(inputs, x), "uniform"))
    kept = []
    training = dataclasses.replace(TRAINING, epochs=1)
    list(protocols.finetune(task, training, keep=lambda bits, network: kept.append(network)))
    before, after = (model.get_layer("frozen").kernel for model in (task.backbone, kept[0]))
    assert np.abs(before.numpy() - after.numpy()).max() > 0
    # The subject itself stays as it is.
    assert not task.backbone.get_layer("frozen").trainable


def test_diverging_training_says_what_to_lower(task):
    training = dataclasses.replace(TRAINING, optimizer=sgd(1e30))
    with pytest.raises(TrainingStopped, match="lower --learning_rate"):
        list(protocols.finetune(task, training))


def test_learned_step_sizes_are_trained(task):
    policy = UNIFORM.with_quantizers("lsq", "lsq")
    policy = dataclasses.replace(policy, detach_scale=False, overrides=((CLASSIFIER, "fp"),))
    made = []

    def with_lsq(model):
        made.append(requantizable(model, policy))
        return made[-1]

    task = dataclasses.replace(task, bit_widths=parse_bit_widths("3w4a"))
    start = protocols.linear_classifier(task)
    # One epoch, so that the network is scored once alone, at its last weights.
    training = dataclasses.replace(TRAINING, epochs=1)
    (found,) = protocols.qat(task, training, lambda: start, with_lsq)
    assert found.top1 == 0.75
    step_sizes = made[0].get_layer("conv").learned_scale.numpy()
    used = step_sizes.reshape(15, -1)[3 - 2]
    # Nor are they what a first pass over the trained network, to score it, would set them to.
    for network in (start, made[0]):
        kernel = network.get_layer("conv").kernel.numpy()
        initial = 2 * np.abs(kernel).reshape(-1, 2).mean(axis=0) / np.sqrt(3)
        assert np.all(used > 0) and np.abs(used - initial).max() > 1e-4


def test_fine_tuning_reports_float_and_its_curve_also_where_no_float_was_asked_for(task):
    task = dataclasses.replace(task, bit_widths=parse_bit_widths("8w8a"))
    found = list(protocols.finetune(task, dataclasses.replace(TRAINING, epochs=2)))
    assert [one.bits for one in found] == ["fp", "8w8a"]
    assert [len(one.curve or []) for one in found] == [2, 0]


def test_a_feature_that_wakes_up_in_the_test_images_does_not_decide(task):
    """A channel that is zero on all training images, as at few bits, says nothing."""
    inputs = keras.Input((2, 2, 2))
    features = keras.layers.GlobalAveragePooling2D(name="features")(inputs)
    backbone = quantizable(keras.Model(inputs, features), "uniform")

    def with_second(images, value):
        return np.concatenate([images, np.full_like(images, value)], axis=-1)

    data = dataclasses.replace(
        task.data,
        train_images=with_second(task.data.train_images, 0),
        test_images=with_second(task.data.test_images, 0.01),
    )
    task = dataclasses.replace(task, backbone=backbone, data=data, bit_widths=(FLOAT,),
                               calibrator=lambda m: calibrating(m, data.train_images))  # fmt: skip
    (found,) = on_features(task, protocols.linear_cached(task, TRAINING, True))
    assert found.top1 == 0.75
