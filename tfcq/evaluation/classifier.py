"""A classifier on a quantizable backbone, and its training in float or at a bit-width."""

import dataclasses
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import layers

from tfcq.data.reading_errors import user_errors_of_pipelines
from tfcq.errors import TrainingStopped
from tfcq.evaluation.probe import LinearProbe
from tfcq.nn.activation_ranges import mark_trained
from tfcq.nn.quantizable import QuantizableModel
from tfcq.quantization.ops import NOT_FINITE
from tfcq.quantization.precision import Precision, noise_seed
from tfcq.settings.bitwidths import BitWidth
from tfcq.settings.policies import INT8, Policy
from tfcq.training.history import Progress

CLASSIFIER = "classifier"


@dataclasses.dataclass(frozen=True)
class Training:
    """How a classifier is trained.

    Args:
        epochs: passes over the images.
        batch_size: images per step.
        optimizer: makes an optimizer for a number of steps per epoch.
        classifier_start: what the classifier starts at, see `classifier_at`.
    """

    epochs: int
    batch_size: int
    optimizer: Callable[[int], keras.optimizers.Optimizer]
    classifier_start: str = "zeros"


def unfreeze(model: keras.Model) -> None:
    """Makes every layer trainable.

    Args:
        model: the model, whose own `trainable` would not reach layers that were frozen alone.
    """
    for layer in model.layers:
        layer.trainable = True
        if isinstance(layer, keras.Model):
            unfreeze(layer)


def with_classifier(
    backbone: QuantizableModel,
    classes: int,
    moments: tuple[np.ndarray, np.ndarray] | None = None,
    start: str = "zeros",
    seed: int = 0,
) -> QuantizableModel:
    """Returns a model from images to logits: a backbone, which it shares, and a float classifier.

    Args:
        backbone: quantizable model from images to features [batch, width].
        classes: number of classes.
        moments: mean and variance of the features, each float [width], by which they are
            standardized first; None to leave them as they are.
        start: what the classifier starts at, see `classifier_at`.
        seed: seed of a random start.
    """
    features = backbone.outputs[0]
    if moments is not None:
        mean, variance = moments
        features = layers.Normalization(mean=mean, variance=variance, name="standardized")(features)
    classifier = layers.Dense(classes, kernel_initializer="zeros", name=CLASSIFIER)
    logits = classifier(features)
    classifier.set_weights(classifier_at(start, features.shape[-1], classes, seed))
    return QuantizableModel(backbone.inputs[0], logits, name="classifier_model")


def with_probe(backbone: keras.Model, probe: LinearProbe) -> keras.Model:
    """Returns a model from images to logits: a backbone, which it shares, and a dense classifier.

    Args:
        backbone: functional model from images to features [batch, width]; quantizable ones stay so.
        probe: the classifier, whose standardization becomes part of the kernel.
    """
    classifier = layers.Dense(probe.bias.shape[0], name=CLASSIFIER)
    logits = classifier(backbone.outputs[0])
    classifier.set_weights(probe.dense())
    kind = QuantizableModel if isinstance(backbone, QuantizableModel) else keras.Model
    return kind(backbone.inputs[0], logits, name="classifier_model")


def classifier_at(start: str, width: int, classes: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns kernel, float [width, classes], and bias, float [classes], of a new classifier.

    Args:
        start: `zeros`, so that the first logits say nothing; `uniform`, both within
            1 / sqrt(width), as PyTorch starts a linear layer and SSQL's code its classifier; or
            `normal`, a kernel of deviation 0.01, as in SimSiam's and SimCLR's code.
        width: number of features.
        classes: number of classes.
        seed: seed of the draw.
    """
    draw = np.random.default_rng(seed)
    if start == "uniform":
        bound = 1 / np.sqrt(width)
        return draw.uniform(-bound, bound, (width, classes)), draw.uniform(-bound, bound, classes)
    deviation = 0.01 if start == "normal" else 0.0
    return draw.normal(0, 1, (width, classes)) * deviation, np.zeros(classes)


def policy_beside_classifier(model: keras.Model, policy: Policy) -> Policy:
    """Returns a policy that leaves the float classifier of a kept network float.

    Under policy `int8` it is quantized, as integer runtimes do.

    Args:
        model: any model; one that `with_classifier` did not make keeps its policy.
        policy: how its other layers are quantized.
    """
    kept = isinstance(model, QuantizableModel) and any(
        layer.name == CLASSIFIER and type(layer) is layers.Dense for layer in model.layers
    )
    if not kept or policy.name == INT8.name:
        return policy
    return dataclasses.replace(policy, overrides=((CLASSIFIER, "fp"), *policy.overrides))


class SupervisedTrainer(keras.Model):
    """Trains a classifier with labels, at one bit-width; `fit` takes (images, labels).

    Args:
        network: quantizable model from images to logits.
        bits: bit-width of the training passes; float where both are None.
        ranges: where activation ranges come from, see `Precision`.
        frozen: whether the network is run as it is tested, without dropout, whose features a
            classifier on a frozen backbone would not meet again.
        **kwargs: as for `keras.Model`.
    """

    def __init__(
        self,
        network: QuantizableModel,
        bits: BitWidth,
        ranges: str = "tensor",
        frozen: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.network = network
        self.bits = bits
        self.ranges = ranges
        self.frozen = frozen

    def call(self, images: tf.Tensor, training: bool | None = None) -> tf.Tensor:
        """Returns the logits, float [batch, classes].

        Args:
            images: float tensor [batch, height, width, channels].
            training: whether batch norm uses the batch's statistics.
        """
        precision = None
        if not self.bits.is_float:
            seed = noise_seed(self.optimizer.iterations)
            precision = Precision(self.bits.weights, self.bits.activations, self.ranges, seed)
        training = training and not self.frozen
        return self.network(images, precision=precision, training=training)


class _Curve(keras.callbacks.Callback):
    """Keeps loss and accuracy of every epoch; stops training that diverged."""

    def __init__(self, score: Callable[[], float]) -> None:
        super().__init__()
        self.score = score
        self.points: list[dict[str, float]] = []

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        loss = float((logs or {})["loss"])
        finite = all(np.all(np.isfinite(w.numpy())) for w in self.model.trainable_variables)
        if loss != loss or not finite:
            raise TrainingStopped(
                f"Fine-tuning diverged in epoch {epoch + 1}: its loss or weights are NaN or "
                "infinite; try a lower --learning_rate."
            )
        self.points.append({"epoch": epoch + 1, "loss": loss, "top1": self.score()})


def train_classifier(
    network: QuantizableModel,
    batches: tf.data.Dataset,
    steps_per_epoch: int,
    epochs: int,
    optimizer: keras.optimizers.Optimizer,
    bits: BitWidth,
    score: Callable[[], float],
    ranges: str = "tensor",
    frozen: bool = False,
) -> list[dict[str, float]]:
    """Trains a classifier in place and returns its learning curve.

    The loss is the mean cross-entropy of the logits.

    Args:
        network: quantizable model from images to logits; layers that are not trainable stay.
        batches: yields (images float [batch, height, width, channels], labels int [batch]).
        steps_per_epoch: steps of an epoch.
        epochs: number of epochs.
        optimizer: the optimizer.
        bits: bit-width of the training passes.
        score: gives the top-1 accuracy after an epoch, 0 to 1.
        ranges: where activation ranges come from, see `Precision`.
        frozen: as for `SupervisedTrainer`.

    Returns:
        For every epoch `{"epoch", "loss", "top1"}`.

    Raises:
        TrainingStopped: when the loss, weights or activations become NaN.
    """
    if ranges == "tensor":
        mark_trained(network, not bits.is_float)
    trainer = SupervisedTrainer(network, bits, ranges, frozen)
    trainer.compile(
        optimizer, keras.losses.SparseCategoricalCrossentropy(from_logits=True), jit_compile=False
    )
    curve = _Curve(score)
    try:
        with user_errors_of_pipelines():
            trainer.fit(
                batches,
                epochs=epochs,
                steps_per_epoch=steps_per_epoch,
                verbose=0,
                shuffle=False,
                callbacks=[curve, Progress(epochs * steps_per_epoch, steps_per_epoch)],
            )
    except tf.errors.InvalidArgumentError as error:
        if NOT_FINITE not in str(error):
            raise
        raise TrainingStopped(
            "Weights or activations became NaN or infinite while fine-tuning; try a lower "
            "--learning_rate."
        ) from None
    return curve.points
