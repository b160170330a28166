"""What detectors share: their quantizable parts, one train step, and what they find in images."""

import abc
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfcq.detection.average_precision import Detections
from tfcq.detection.masks import pasted
from tfcq.detection.suppression import Kept
from tfcq.nn.quantizable import QuantizableModel
from tfcq.quantization.precision import Precision

Batch = Mapping[str, tf.Tensor]


class Detector(keras.Model, abc.ABC):
    """Trains and runs a detector; `fit` takes batches of `training_batches`.

    Args:
        parts: its networks by name, each quantizable, in the order in which one reads another.
        class_count: number of classes.
        stride: height and width of images are multiples of this.
        seed: draws what a step learns from.
        name: name of the model.
    """

    def __init__(
        self,
        parts: Mapping[str, QuantizableModel],
        class_count: int,
        stride: int,
        seed: int = 0,
        name: str = "detector",
    ) -> None:
        super().__init__(name=name)
        # As attributes: a checkpoint does not look into a dictionary.
        self._names = tuple(parts)
        for part_name, part in parts.items():
            setattr(self, f"{part_name}_part", part)
        self.class_count, self.stride, self.seed = class_count, stride, seed
        self.steps_done = tf.Variable(0, dtype=tf.int64, trainable=False, name="steps_done")
        # Bits of a training pass, read in the graph; zeros for a float pass.
        self.training_bits: tuple[tf.Variable, tf.Variable] | None = None
        self._seen: dict[str, list[tf.Tensor]] | None = None
        self._means = {name: keras.metrics.Mean(name) for name in ("loss", *self.LOSSES)}

    @property
    def parts(self) -> dict[str, QuantizableModel]:
        """Its networks by name."""
        return {name: getattr(self, f"{name}_part") for name in self._names}

    # Names of what `losses_of` returns, and patterns of layers that are not the backbone's.
    LOSSES: tuple[str, ...] = ()
    HEADS: tuple[str, ...] = ()

    @abc.abstractmethod
    def find(self, images: tf.Tensor, sizes: tf.Tensor, precision: Any = None) -> Kept:
        """Returns the objects in images, best first, in pixels of these images.

        Args:
            images: float [batch, height, width, channels] in [0, 1].
            sizes: height and width of each without padding, int [batch, 2].
            precision: the pass, see `tfcq.Precision`; None for float.
        """

    @abc.abstractmethod
    def losses_of(self, batch: Batch, precision: Any, seed: tf.Tensor) -> dict[str, tf.Tensor]:
        """Returns the losses of a training batch by name, scalars.

        Args:
            batch: from `tfcq.data.boxed.box_batches.training_batches`.
            precision: the pass; None for float.
            seed: int64 [2], of this step.
        """

    @abc.abstractmethod
    def with_parts(self, parts: Mapping[str, QuantizableModel]) -> "Detector":
        """Returns a detector of other networks, and of these settings.

        Args:
            parts: the networks, by the same names.
        """

    def run(self, name: str, inputs: tf.Tensor, precision: Any, training: bool) -> Any:
        """Returns what a part makes of its inputs; every pass goes through here.

        Args:
            name: the part's.
            inputs: as it takes them.
            precision: the pass; None for float.
            training: whether batch norms take the moments of this batch.
        """
        if self._seen is not None:
            self._seen.setdefault(name, []).append(inputs)
        return getattr(self, f"{name}_part")(inputs, training=training, precision=precision)

    def inputs_of_parts(self, batches: Iterable[Batch]) -> dict[str, list[np.ndarray]]:
        """Returns what each part reads in float passes over images, in the order of its calls.

        Args:
            batches: from `tfcq.data.boxed.box_batches.plain_batches`.
        """
        self._seen = {}
        try:
            for batch in batches:
                self.find(batch["images"], batch["sizes"])
            return {name: [np.asarray(x) for x in seen] for name, seen in self._seen.items()}
        finally:
            self._seen = None

    def train_at(self, weight_bits: int, activation_bits: int) -> None:
        """Makes steps quantized passes, each tensor over its own range, or those learned.

        Args:
            weight_bits: 2 to 16.
            activation_bits: 2 to 16.
        """
        self.training_bits = (
            tf.Variable(weight_bits, trainable=False), tf.Variable(activation_bits, trainable=False)
        )  # fmt: skip

    def train_step(self, data: Batch) -> dict[str, Any]:
        """Takes one step on the sum of all losses.

        Args:
            data: the batch.
        """
        seed = tf.stack([tf.constant(self.seed, tf.int64), self.steps_done])
        precision = None
        if self.training_bits is not None:
            noise = tf.cast(seed, tf.int32)
            precision = Precision(*self.training_bits, ranges="tensor", seed=noise)
        with tf.GradientTape() as tape:
            losses = self.losses_of(data, precision, seed)
            total = tf.add_n(list(losses.values()))
        variables = self.trainable_variables
        self.optimizer.apply_gradients(zip(tape.gradient(total, variables), variables, strict=True))
        self.steps_done.assign_add(1)
        for name, value in {"loss": total, **losses}.items():
            self._means[name].update_state(value)
        return {name: mean.result() for name, mean in self._means.items()}

    @property
    def metrics(self) -> list[keras.metrics.Metric]:
        """The means of an epoch."""
        return list(self._means.values())

    def traced(self, precision: Any = None) -> Callable[[tf.Tensor, tf.Tensor], Kept]:
        """Returns `find` at a precision as graphs, one for each size of images.

        Args:
            precision: the pass; None for float.
        """

        @tf.function
        def run(images: tf.Tensor, sizes: tf.Tensor) -> Kept:
            return self.find(images, sizes, precision)

        return run

    def found(
        self, batches: Iterable[Batch], precision: Any = None, run: Any = None
    ) -> Iterator[Detections]:
        """Yields what it finds in each image, in pixels of its file.

        Args:
            batches: from `tfcq.data.boxed.box_batches.plain_batches`.
            precision: the pass; None for float.
            run: the same pass, from `traced`; None to trace it anew.
        """
        run = run or self.traced(precision)
        for batch in batches:
            kept = run(batch["images"], batch["sizes"])
            scales = tf.tile(batch["scales"], [1, 2])[:, tf.newaxis]
            kept = kept._replace(boxes=kept.boxes / scales)
            shapes = tf.round(tf.cast(batch["sizes"], tf.float32) / batch["scales"])
            for number, (height, width) in enumerate(shapes.numpy().astype(int).tolist()):
                there = kept.classes[number].numpy() >= 0
                boxes, scores, classes = (one[number].numpy()[there] for one in kept[:3])
                masks = None
                if kept.masks is not None:
                    masks = pasted(kept.masks[number].numpy()[there], boxes, height, width)
                yield Detections(boxes, scores, classes, masks)
