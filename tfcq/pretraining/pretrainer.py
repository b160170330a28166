"""The Pretrainer: one Keras model, one train step, for every framework and recipe."""

from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from tfcq import losses
from tfcq.errors import TrainingStopped, UserError, unknown_choice
from tfcq.nn.policies import Policy
from tfcq.nn.quantizable import QuantizableModel, quantizable
from tfcq.pretraining.bit_schedules import BitSchedule
from tfcq.pretraining.monitoring import StopOnFailure, Throughput, feature_std_ratio
from tfcq.pretraining.recipes import Pass, Recipe, recipe_named
from tfcq.pretraining.simsiam import SimSiam
from tfcq.quantization.ops import NOT_FINITE
from tfcq.quantization.precision import Precision, RecordRanges

FRAMEWORKS: dict[str, Callable[..., keras.layers.Layer]] = {"simsiam": SimSiam}


class Pretrainer(keras.Model):
    """Pre-trains a backbone without labels; `fit` takes batches of (view 1, view 2).

    One step makes every pass of the recipe once and minimizes the weighted mean of its pairs.

    Args:
        backbone: any functional or sequential Keras model from images to features
            [batch, width]; a float model is made quantizable with `policy`.
        framework: `"simsiam"`, or a framework layer.
        recipe: a name (`"float"`, `"ssql"`, `"ssql_no_aux"`), a recipe's text, or a `Recipe`.
        weight_bits: candidates of the drawn weight bits, `"2-8"`, `"4"` or `"2,4,8"`.
        activation_bits: candidates of the drawn activation bits.
        bit_schedule: `"uniform"` (drawn anew each step) or `"list"` (in order).
        policy: which layers are quantized, for a float backbone; `"paper"` by default.
        seed: seed of the drawn bits.
        projection_width: width of the projector, for a framework given by name.
        predictor_width: width of the predictor's hidden layer, for a framework given by name.
        name: name of the model.

    Raises:
        UserError: on an unknown name, bits that cannot be used, or a backbone whose output is not
            a vector of features.
    """

    def __init__(
        self,
        backbone: keras.Model,
        framework: str | keras.layers.Layer = "simsiam",
        recipe: str | Recipe = "ssql",
        weight_bits: str = "2-8",
        activation_bits: str = "4-8",
        bit_schedule: str = "uniform",
        policy: str | Policy | None = None,
        seed: int = 0,
        projection_width: int = 2048,
        predictor_width: int = 512,
        name: str = "pretrainer",
    ) -> None:
        super().__init__(name=name)
        self.recipe = recipe_named(recipe)
        self.bit_schedule = BitSchedule(weight_bits, activation_bits, bit_schedule, seed)
        if isinstance(backbone, QuantizableModel):
            if policy is not None:
                raise UserError("policy has no effect: the backbone is quantizable already.")
            self.backbone = backbone
        else:
            self.backbone = quantizable(backbone, policy or "paper")
        self.framework = self._build_framework(framework, projection_width, predictor_width)
        self.step = self._counter("step", (), "int64")
        self.bits = self._counter("bits", (len(self.recipe.draws), 2), "int32")
        self.images_per_step = 0
        self._build_metrics()
        self.built = True

    def _counter(self, name: str, shape: tuple[int, ...], dtype: str) -> keras.Variable:
        return self.add_weight(
            name=name,
            shape=shape,
            initializer="zeros",
            dtype=dtype,
            trainable=False,
            aggregation="only_first_replica",
        )

    def _build_framework(
        self, framework: str | keras.layers.Layer, projection_width: int, predictor_width: int
    ) -> keras.layers.Layer:
        if not isinstance(framework, str):
            return framework
        if framework not in FRAMEWORKS:
            raise unknown_choice("framework", framework, FRAMEWORKS)
        shape = self.backbone.output_shape
        if len(shape) != 2 or shape[-1] is None:
            raise UserError(
                f"Backbone {self.backbone.name!r} returns shape {shape}; allowed: [batch, width]. "
                "Add keras.layers.GlobalAveragePooling2D()."
            )
        return FRAMEWORKS[framework](shape[-1], projection_width, predictor_width)

    def _build_metrics(self) -> None:
        self.loss_metric = keras.metrics.Mean("loss")
        self.std_metric = keras.metrics.Mean("feature_std_ratio")
        self.quantized_metrics = []
        if self.recipe.draws:
            self.cosine_metric = keras.metrics.Mean("cosine_float_quantized")
            self.weight_bits_metric = keras.metrics.Mean("weight_bits")
            self.activation_bits_metric = keras.metrics.Mean("activation_bits")
            self.quantized_metrics = [
                self.cosine_metric,
                self.weight_bits_metric,
                self.activation_bits_metric,
            ]

    @property
    def metrics(self) -> list[keras.metrics.Metric]:
        """The running means that every epoch starts anew."""
        return [self.loss_metric, self.std_metric, *self.quantized_metrics]

    def compile(self, optimizer: Any = None, **kwargs: Any) -> None:
        """Sets the optimizer; the framework brings the loss.

        Args:
            optimizer: a Keras optimizer; SGD with rate 0.05 and momentum 0.9 by default.
            **kwargs: as for `keras.Model.compile`; `jit_compile` is off by default, since XLA was
                seen slower on CPUs.

        Raises:
            UserError: when a loss or metrics are passed.
        """
        for name in ("loss", "metrics", "loss_weights", "weighted_metrics"):
            if kwargs.get(name) is not None:
                raise UserError(f"compile() received {name}; the framework brings its own.")
        kwargs.setdefault("jit_compile", False)
        optimizer = optimizer or keras.optimizers.SGD(0.05, momentum=0.9)
        super().compile(optimizer=optimizer, **kwargs)
        # Variables made in the first step would have it traced twice.
        self.optimizer.build(self.trainable_variables)

    def fit(self, *args: Any, callbacks: list | None = None, **kwargs: Any) -> Any:
        """Trains as `keras.Model.fit` does, watching for NaN and collapse.

        Args:
            *args: as for `keras.Model.fit`; the data set yields (view 1, view 2), each float
                [batch, height, width, channels].
            callbacks: further callbacks.
            **kwargs: as for `keras.Model.fit`.

        Raises:
            TrainingStopped: when the loss is NaN or features have collapsed.
        """
        data = args[0] if args else kwargs.get("x")
        if (
            isinstance(data, tf.data.Dataset)
            and kwargs.get("steps_per_epoch") is None
            and data.cardinality() == tf.data.INFINITE_CARDINALITY
        ):
            raise UserError(
                "fit() received an endless data set; pass steps_per_epoch, the number of images "
                "divided by the batch size."
            )
        watching = [Throughput(), StopOnFailure()]
        # Data sets bring their own order; Keras would only warn.
        kwargs.setdefault("shuffle", False)
        try:
            return super().fit(*args, callbacks=[*watching, *(callbacks or [])], **kwargs)
        except tf.errors.InvalidArgumentError as error:
            if NOT_FINITE not in str(error):
                raise
            raise TrainingStopped(
                "Weights or activations became NaN or infinite; try a lower learning rate, and "
                "look for NaN in the images."
            ) from None

    def call(self, images: tf.Tensor, training: bool | None = None) -> tf.Tensor:
        """Returns the backbone's float features.

        Args:
            images: float tensor [batch, height, width, channels].
            training: whether batch norm uses the batch's statistics.
        """
        return self.backbone(images, training=training)

    def embed(
        self, view1: tf.Tensor, view2: tf.Tensor, bits: tf.Tensor, training: bool = True
    ) -> tuple[dict[Pass, tf.Tensor], dict[Pass, tf.Tensor]]:
        """Makes every pass of the recipe once.

        Args:
            view1: float tensor [batch, height, width, channels].
            view2: likewise.
            bits: int32 tensor [draws, 2], weight and activation bits of each draw.
            training: whether batch norm uses the batch's statistics.

        Returns:
            The embeddings of every pass, and the predictions of the passes that predict.
        """
        views = {1: view1, 2: view2}
        predicting = {pair.prediction for pair in self.recipe.pairs}
        rounding_seed = self.bit_schedule.rounding_seed(self.step.value)
        drawn = {
            name: Precision(
                weight_bits, activation_bits, self.recipe.range_source, rounding_seed, shared={}
            )
            for name, (weight_bits, activation_bits) in zip(
                self.recipe.draws, map(tf.unstack, tf.unstack(bits)), strict=True
            )
        }
        embeddings, predictions = {}, {}
        for index, one in enumerate(self.recipe.passes):
            recording = RecordRanges(reset=index == 0) if drawn else None
            precision = recording if one.is_float else drawn[one.precision]
            features = self.backbone(views[one.view], precision=precision, training=training)
            embeddings[one] = self.framework.project(features, precision, training)
            if one in predicting:
                predictions[one] = self.framework.predict(embeddings[one], training)
        return embeddings, predictions

    def recipe_loss(
        self, embeddings: dict[Pass, tf.Tensor], predictions: dict[Pass, tf.Tensor]
    ) -> tf.Tensor:
        """Returns the weighted mean of the recipe's pairs, of shape ().

        Args:
            embeddings: embeddings of every pass, float [batch, width].
            predictions: predictions of the passes that predict, float [batch, width].
        """
        pairs = self.recipe.pairs
        total = tf.add_n(
            [
                pair.weight
                * self.framework.compare(predictions[pair.prediction], embeddings[pair.target])
                for pair in pairs
            ]
        )
        return total / sum(pair.weight for pair in pairs)

    def train_step(self, data: tuple[tf.Tensor, tf.Tensor]) -> dict[str, tf.Tensor]:
        """Draws bits, makes the passes and applies one update.

        Args:
            data: (view 1, view 2), each float [batch, height, width, channels].

        Raises:
            UserError: when the data are not two views of the same shape.
        """
        view1, view2 = self._two_views(data)
        self.bits.assign(self.bit_schedule.draw(self.step.value, len(self.recipe.draws)))
        with tf.GradientTape() as tape:
            embeddings, predictions = self.embed(view1, view2, self.bits.value)
            loss = self.recipe_loss(embeddings, predictions)
            # Keras sums gradients over replicas; the step follows their mean.
            replicas = tf.distribute.get_strategy().num_replicas_in_sync
            scaled_loss = self.optimizer.scale_loss(loss / replicas)
        gradients = tape.gradient(scaled_loss, self.trainable_variables)
        learning_rate = tf.convert_to_tensor(self.optimizer.learning_rate)
        self.optimizer.apply_gradients(zip(gradients, self.trainable_variables, strict=True))
        self.step.assign_add(1)
        self._update_metrics(loss, embeddings)
        figures = {metric.name: metric.result() for metric in self.metrics}
        return {**figures, "learning_rate": learning_rate}

    def _two_views(self, data: Any) -> tuple[tf.Tensor, tf.Tensor]:
        if not isinstance(data, (tuple, list)) or len(data) != 2:
            raise UserError(
                f"fit() received batches of {type(data).__name__}; allowed: (view 1, view 2). "
                "tfcq.two_views(dataset, ...) makes them from images."
            )
        view1, view2 = data
        if view1.shape != view2.shape:
            raise UserError(f"Views differ in shape: {view1.shape} and {view2.shape}.")
        self.images_per_step = view1.shape[0] or 0
        return view1, view2

    def _update_metrics(self, loss: tf.Tensor, embeddings: dict[Pass, tf.Tensor]) -> None:
        passes = self.recipe.passes
        self.loss_metric.update_state(loss)
        self.std_metric.update_state(feature_std_ratio(embeddings[passes[0]]))
        if not self.recipe.draws:
            return
        same_view = [
            losses.cosine_similarity(embeddings[Pass(one.view, "fp")], embeddings[one])
            for one in passes
            if not one.is_float and Pass(one.view, "fp") in embeddings
        ]
        if same_view:
            self.cosine_metric.update_state(tf.concat(same_view, axis=0))
        bits = tf.cast(tf.reduce_mean(tf.cast(self.bits.value, tf.float32), axis=0), tf.float32)
        self.weight_bits_metric.update_state(bits[0])
        self.activation_bits_metric.update_state(bits[1])
