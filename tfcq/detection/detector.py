"""What detectors share: their quantizable parts, one train step, and what they find in images."""

import abc
import functools
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfcq.detection.average_precision import Detections
from tfcq.detection.masks import pasted
from tfcq.detection.suppression import Kept
from tfcq.detection.thinning import REGIONS, TILES, Thinned, tiles
from tfcq.errors import UserError
from tfcq.nn.quantizable import QuantizableModel
from tfcq.quantization.precision import Precision
from tfcq.settings.bitwidths import FLOAT, BitWidth

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
    # Parts that read regions, of which an image has many.
    READ_REGIONS: tuple[str, ...] = ()

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

    def inputs_of_parts(
        self, batches: Iterable[Batch], tiled: bool = False
    ) -> dict[str, list[np.ndarray]]:
        """Returns what each part reads in float passes over images, for each of its calls in one.

        Images, and maps of their features, are kept whole and all; of regions 512 of all images.

        Args:
            batches: of one shape, from `tfcq.data.boxed.box_batches.plain_batches`.
            tiled: whether of a part that reads several maps of an image, levels of a pyramid, 256
                tiles of 16 cells a side are kept of each.

        Raises:
            UserError: when batches differ in shape.
        """
        kept: dict[str, list[Thinned]] = {}
        shape = None
        for batch in batches:
            own = tuple(batch["images"].shape[1:])
            if own != (shape := shape or own):
                raise UserError(f"Images of {shape} and {own}; allowed for ranges: one shape.")
            for name, several in self._inputs(batch).items():
                cut = tiled and len(several) > 1
                most = REGIONS if name in self.READ_REGIONS else TILES if cut else None
                thinned = kept.setdefault(
                    name, [Thinned(most, place) for place in range(len(several))]
                )
                for one, inputs in zip(thinned, several, strict=True):
                    one.add(tiles(inputs) if cut else inputs)
        return {name: [one.rows() for one in several] for name, several in kept.items()}

    def _inputs(self, batch: Batch) -> dict[str, list[np.ndarray]]:
        self._seen = {}
        try:
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

    def found(self, batches: Iterable[Batch], bits: BitWidth = FLOAT) -> Iterator[Detections]:
        """Yields what it finds in each image, in pixels of its file.

        Its graphs, of a float pass and of a quantized one, are made once for images of any size
        and all bit-widths.

        Args:
            batches: from `tfcq.data.boxed.box_batches.plain_batches`.
            bits: the bit-width.
        """
        run, given = self._graphs[not bits.is_float], () if bits.is_float else bits.pair
        for batch in batches:
            sizes = batch["sizes"]
            kept = run(batch["images"], sizes, *map(tf.constant, given))
            scales = tf.tile(batch["scales"], [1, 2])[:, tf.newaxis]
            kept = kept._replace(boxes=kept.boxes / scales)
            shapes = tf.round(tf.cast(sizes, tf.float32) / batch["scales"])
            for number, (height, width) in enumerate(shapes.numpy().astype(int).tolist()):
                there = kept.classes[number].numpy() >= 0
                boxes, scores, classes = (one[number].numpy()[there] for one in kept[:3])
                masks = None
                if kept.masks is not None:
                    masks = pasted(kept.masks[number].numpy()[there], boxes, height, width)
                yield Detections(boxes, scores, classes, masks)

    @functools.cached_property
    def _graphs(self) -> tuple[Any, Any]:
        """Functions of images and sizes, and of these and the bits of a quantized pass."""
        images, *_ = next(iter(self.parts.values())).inputs
        taken = [tf.TensorSpec([None, *images.shape[1:]]), tf.TensorSpec([None, 2], tf.int32)]
        bits = [tf.TensorSpec([], tf.int32)] * 2
        # As partials, since TensorFlow warns of the traces of all that share their code.
        return (
            tf.function(functools.partial(self._find), taken),
            tf.function(functools.partial(self._find), [*taken, *bits]),
        )

    def _find(self, images: tf.Tensor, sizes: tf.Tensor, *bits: tf.Tensor) -> Kept:
        return self.find(images, sizes, Precision(*bits) if bits else None)
