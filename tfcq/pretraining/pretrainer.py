"""The Pretrainer: one Keras model, one train step, for every framework and recipe."""

import functools
import types
from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from tfcq.data.reading_errors import user_errors_of_pipelines
from tfcq.errors import TrainingStopped, UserError, unknown_choice
from tfcq.nn.activation_ranges import mark_trained
from tfcq.nn.input_range import known_input_range
from tfcq.nn.quantizable import QuantizableModel, quantizable
from tfcq.nn.replicas import shuffled, unshuffled
from tfcq.pretraining.accumulation import accumulated, check_accumulation, check_parts
from tfcq.pretraining.batches import as_taken, batches_of, check_batch, takes_pixels
from tfcq.pretraining.bit_schedules import BitSchedule
from tfcq.pretraining.figures import StepFigures
from tfcq.pretraining.framework import Framework
from tfcq.pretraining.kinds import build_framework
from tfcq.pretraining.momentum import MomentumNetwork
from tfcq.pretraining.monitoring import RunLength, StopOnFailure, Throughput
from tfcq.pretraining.passes import make_passes, views_of_batch
from tfcq.pretraining.quantizer_checks import check_drawn, check_quantizers
from tfcq.pretraining.saving import SAVED, check_arguments, check_callbacks, saved_arguments
from tfcq.quantization.ops import NOT_FINITE
from tfcq.settings.bitwidths import PERIODIC
from tfcq.settings.policies import Policy
from tfcq.settings.recipes import Pass, Recipe, in_order, recipe_named
from tfcq.settings.training_groups import LOSS_REDUCTIONS
from tfcq.training.distribution import finite_everywhere
from tfcq.training.workers import reducible


@keras.saving.register_keras_serializable("tfcq")
class Pretrainer(keras.Model):
    """Pre-trains a backbone without labels; `fit` takes images, or batches of (view 1, view 2).

    One step makes every pass of the recipe once and minimizes the weighted mean of its pairs.

    Args:
        backbone: any functional or sequential Keras model from images to features
            [batch, width]; a float model is made quantizable with `policy`.
        framework: `"simsiam"`, `"simclr"`, `"byol"`, `"mocov2"`, `"mocov3"`, or a `Framework`.
        recipe: a name in `tfcq.settings.recipes.RECIPES`, a recipe's text, or a `Recipe`.
        weight_bits: candidates of the drawn weight bits, `"2-8"`, `"4"` or `"2,4,8"`; the
            recipe's own by default.
        activation_bits: candidates of the drawn activation bits; the recipe's own by default.
        precision_set: candidates drawn for weights and activations alike, instead of the two
            above; the recipe's own by default.
        bit_schedule: `"uniform"` (drawn anew each step), `"epoch"`, `"cyclic"`, `"list"` or
            `"fixed"`, see `BitSchedule`.
        policy: which layers are quantized, for a float backbone; the recipe's own by default.
        seed: seed of the drawn bits.
        loss_reduction: `"mean"` over the pairs by weight, or their weighted `"sum"`, as the papers
            write it.
        shuffle_keys: whether images change replicas on their way through the momentum network, so
            that batch norm tells nothing about their positives (MoCo, Sec. 3.3).
        error_correlation: whether the correlation of quantization and contrastive errors is
            measured (SSQL, Appendix C.1).
        accumulate: parts in which a batch is made, one after another, for one update; a step
            needs the memory of a part. Batch norm and negatives see a part alone.
        name: name of the model.
        **settings: settings of a framework given by name, such as `projection_width`; the
            paper's by default, see `tfcq.settings.frameworks`.

    Raises:
        UserError: on an unknown name or setting, bits that cannot be used, or a backbone whose
            output is not a vector of features.

    Example:

        >>> backbone = tfcq.cifar_resnet(8, width=2, input_shape=(8, 8, 1))
        >>> pretrainer = tfcq.Pretrainer(backbone, projection_width=8, predictor_width=4)
        >>> pretrainer.compile(keras.optimizers.SGD(0.05, momentum=0.9))
        >>> images = np.random.default_rng(0).integers(0, 256, (8, 8, 8, 1), np.uint8)
        >>> views = tfcq.two_views(tf.data.Dataset.from_tensor_slices(images), batch_size=4)
        >>> history = pretrainer.fit(views, epochs=1, steps_per_epoch=2, verbose=0)
        >>> sorted(history.history)[-1]
        'weight_bits'
    """

    def __init__(
        self,
        backbone: keras.Model,
        framework: str | Framework = "simsiam",
        recipe: str | Recipe = "ssql",
        weight_bits: str | None = None,
        activation_bits: str | None = None,
        precision_set: str | None = None,
        bit_schedule: str = "uniform",
        policy: str | Policy | None = None,
        seed: int = 0,
        loss_reduction: str = "mean",
        shuffle_keys: bool = False,
        error_correlation: bool = False,
        accumulate: int = 1,
        name: str = "pretrainer",
        **settings: Any,
    ) -> None:
        given = dict(locals())
        super().__init__(name=name)
        self.recipe = recipe_named(recipe)
        if loss_reduction not in LOSS_REDUCTIONS:
            raise unknown_choice("loss reduction", loss_reduction, LOSS_REDUCTIONS)
        self.loss_reduction = loss_reduction
        bits = self.recipe.bits(weight_bits, activation_bits, precision_set)
        self.bit_schedule = BitSchedule(**bits, kind=bit_schedule, seed=seed)
        self.recipe.check_candidates(
            self.bit_schedule.weight_choices, self.bit_schedule.activation_choices
        )
        self.backbone, self.policy = self._quantizable(backbone, policy)
        check_drawn(self.backbone, weight_bits, activation_bits)
        self.pixels = known_input_range(self.backbone, None)
        policies = self.recipe.projector_policy
        self.framework = build_framework(framework, settings, self.backbone, policies)
        self.momentum_network = None
        if self.framework.target_momentum is not None:
            self.momentum_network = MomentumNetwork(
                self.backbone, self.framework.projector, self.framework.target_momentum,
                self.framework.target_momentum_schedule,
            )  # fmt: skip
        elif shuffle_keys:
            raise UserError(
                f"shuffle_keys has no effect: {self.framework.name!r} has no momentum network."
            )
        # Float passes record the ranges of the others, see `make_passes`.
        # No dict, which checkpoints would hold.
        self._arguments = types.MappingProxyType({name: given[name] for name in SAVED} | settings)
        mark_trained(self.backbone, not any(one.is_float for one in self.online_passes))
        self.step = self._counter("step", (), "int64")
        self.steps_per_epoch = self._counter("steps_per_epoch", (), "int64")
        self.total_steps = self._counter("total_steps", (), "int64")
        self.bits = self._counter("bits", (len(self.recipe.draws), 2), "int32")
        self.knows_run_length = False
        self.shuffle_keys, self.accumulate = shuffle_keys, accumulate
        check_accumulation(accumulate, self.distribute_strategy.num_replicas_in_sync)
        self._replica_images = self._counter("replica_images", (), "int64")
        self.first_feature_ratio = self._counter("first_feature_ratio", (), "float32")
        self.figures = StepFigures(self.online_passes, self.recipe, error_correlation)
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

    def _quantizable(
        self, backbone: keras.Model, policy: str | Policy | None
    ) -> tuple[QuantizableModel, Policy | None]:
        """Returns a quantizable backbone, and its policy; None for one that was so already."""
        if not isinstance(backbone, QuantizableModel):
            chosen = self.recipe.policy_for(policy)
            return quantizable(backbone, chosen), chosen
        if policy is not None:
            raise UserError("policy has no effect: the backbone is quantizable already.")
        check_quantizers(backbone, self.recipe)
        return backbone, None

    @property
    def needs_run_length(self) -> bool:
        """Whether the length of an epoch or of the training decides what a step does."""
        cosine = self.framework.target_momentum_schedule == "cosine"
        moving = self.momentum_network is not None and cosine
        return moving or (bool(self.recipe.draws) and self.bit_schedule.kind in PERIODIC)

    @property
    def images_seen(self) -> int:
        """How many images all steps so far had, every view counted once."""
        replicas = self.distribute_strategy.num_replicas_in_sync
        return int(self._replica_images.numpy()) * replicas

    @property
    def networks(self) -> list[keras.Model]:
        """Backbone and heads, those of the momentum network included."""
        framework, momentum = self.framework, self.momentum_network
        online = [self.backbone, framework.projector, framework.predictor]
        moving = [] if momentum is None else [momentum.backbone, momentum.projector]
        return [model for model in online + moving if model is not None]

    @property
    def online_passes(self) -> tuple[Pass, ...]:
        """The passes of the trained network."""
        return self.recipe.online_passes(self.momentum_network is not None)

    @property
    def target_passes(self) -> tuple[Pass, ...]:
        """The passes whose embeddings are targets."""
        return in_order({pair.target for pair in self.recipe.pairs})

    @property
    def metrics(self) -> list[keras.metrics.Metric]:
        """The running means that every epoch starts anew."""
        return self.figures.metrics

    def set_run_length(self, steps_per_epoch: int, total_steps: int) -> None:
        """Tells how long an epoch and the training are; otherwise `fit` finds out.

        Args:
            steps_per_epoch: steps of an epoch.
            total_steps: steps of the whole training.
        """
        self.knows_run_length = True
        self.steps_per_epoch.assign(steps_per_epoch)
        self.total_steps.assign(total_steps)

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

    def save(self, filepath: Any, *args: Any, **kwargs: Any) -> None:
        """Saves all that the training goes on from; the file of the network is `backbone.save`'s.

        `tfcq.load(filepath)` reads it, as does `keras.saving.load_model` once `tfcq.Pretrainer` is
        imported; `fit(..., initial_epoch=N)` then goes on after N epochs.

        Args:
            filepath: the file, `PATH.keras`.
            *args: as for `keras.Model.save`.
            **kwargs: as for `keras.Model.save`.

        Raises:
            UserError: on another kind of file, or what `get_config` refuses.
        """
        if not str(filepath).endswith(".keras"):
            raise UserError(f"save() received {str(filepath)!r}; allowed: PATH.keras.")
        super().save(filepath, *args, **kwargs)

    def get_config(self) -> dict[str, Any]:
        """Returns what makes the model anew, for `save`.

        Raises:
            UserError: a framework that was built already, or a recipe with settings of its own.
        """
        return saved_arguments(dict(self._arguments), self.backbone, self.recipe)

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> "Pretrainer":
        """Returns a model from what `get_config` returned.

        Args:
            config: the configuration.
            custom_objects: classes of the user's own, by name.
        """
        backbone = keras.saving.deserialize_keras_object(config["backbone"], custom_objects)
        return cls(**{**config, "backbone": backbone})

    def compile_from_config(self, config: dict[str, Any]) -> None:
        """Compiles as before `save`.

        Args:
            config: what Keras kept of `compile`.
        """
        self.compile(**keras.saving.deserialize_keras_object(config))

    def fit(
        self,
        x: Any = None,
        y: Any = None,
        batch_size: int | None = None,
        epochs: int = 1,
        verbose: Any = "auto",
        callbacks: list | None = None,
        **kwargs: Any,
    ) -> Any:
        """Trains as `keras.Model.fit` does, watching for NaN and collapse.

        Args:
            x: batches of (view 1, view 2), each float [batch, height, width, channels] or uint8
                pixels, perhaps with labels, which are not used; or single images in any form that
                `tfcq.two_views` takes, of which the standard views are made anew each epoch. Of
                uint8 pixels and of single images the pixels are made that the backbone takes.
            y: labels beside arrays, which are not used.
            batch_size: images per batch, of arrays and what is in no batches; 256 by default.
            epochs: as for `keras.Model.fit`, as all that follows.
            verbose: how progress is shown.
            callbacks: further callbacks.
            **kwargs: further arguments of `keras.Model.fit`.

        Raises:
            UserError: on data that are no such images, a batch of one or one that does not fit into
                the memory of an accelerator, an endless data set without `steps_per_epoch`,
                arguments that need labels, or a `ModelCheckpoint` that could not save.
            TrainingStopped: when the loss is NaN or features have collapsed.
        """
        check_arguments(kwargs)
        callbacks = keras.tree.flatten(callbacks or [])
        check_callbacks(self, callbacks)
        first = kwargs.get("initial_epoch", 0)
        seed, pixels = self.bit_schedule.seed, self.pixels
        batches, steps = batches_of(
            x, y, self.recipe, batch_size, seed, first, self.backbone.input_shape,
            pixels, functools.partial(self._check_batch, pixels), kwargs.get("steps_per_epoch"),
        )  # fmt: skip
        if steps is not None and kwargs.get("shuffle") is False:
            raise UserError(
                "fit() received shuffle=False; the order of images and arrays follows from the "
                "Pretrainer's seed. For an order of your own pass views as a tf.data set."
            )
        if isinstance(batches, tf.data.Dataset | tf.distribute.DistributedDataset):
            # Data sets bring their own order and batches; Keras would only warn.
            y = batch_size = None
            kwargs.setdefault("shuffle", False)
        if isinstance(batches, tf.data.Dataset) and kwargs.get("steps_per_epoch") is None:
            kwargs["steps_per_epoch"] = steps
            if steps is None and batches.cardinality() == tf.data.INFINITE_CARDINALITY:
                raise UserError(
                    "fit() received an endless data set; pass steps_per_epoch, the number of "
                    "images divided by the batch size."
                )
        # Keras would begin at the epoch that BackupAndRestore chose for a call before.
        self._initial_epoch = None
        length = RunLength(made=None if steps is None else first)
        watching = [length, Throughput(), StopOnFailure(), *callbacks]
        try:
            with user_errors_of_pipelines():
                return super().fit(batches, y, batch_size, epochs, verbose, watching, **kwargs)
        except tf.errors.ResourceExhaustedError:
            raise UserError(
                "A step does not fit into the memory of its device; take smaller batches "
                f"(--batch_size, batch_size=), or more parts than {self.accumulate} "
                "(--accumulate, Pretrainer(accumulate=))."
            ) from None
        except tf.errors.InvalidArgumentError as error:
            if NOT_FINITE not in str(error):
                raise
            raise TrainingStopped(
                "Weights or activations became NaN or infinite; try a lower learning rate, and "
                "look for NaN in the images."
            ) from None

    def _check_batch(self, pixels: str, count: int, low: float, high: float) -> None:
        check_parts(count, self.accumulate)
        check_batch(count, low, high, takes_pixels(self.backbone), pixels)
        self.framework.check_targets(count * len(self.target_passes))

    def call(self, images: tf.Tensor, training: bool | None = None) -> tf.Tensor:
        """Returns the backbone's float features.

        Args:
            images: float tensor [batch, height, width, channels].
            training: whether batch norm uses the batch's statistics.
        """
        return self.backbone(images, training=training)

    def embed(
        self, views: dict[int, tf.Tensor], bits: tf.Tensor, training: bool = True
    ) -> tuple[dict[Pass, tf.Tensor], dict[Pass, tf.Tensor]]:
        """Makes every pass of the trained network once.

        Args:
            views: float tensor [batch, height, width, channels] of each view.
            bits: int32 tensor [draws, 2], weight and activation bits of each draw.
            training: whether batch norm uses the batch's statistics.

        Returns:
            The embeddings of every pass, and the predictions of the passes that predict.
        """

        def project(images: tf.Tensor, precision: Any) -> tf.Tensor:
            features = self.backbone(images, precision=precision, training=training)
            return self.framework.project(features, precision, training)

        noise = self.bit_schedule.rounding_seed(self.step.value)
        embeddings = self._passes(project, self.online_passes, views, bits, noise)
        predicting = {pair.prediction for pair in self.recipe.pairs}
        predictions = {
            one: self.framework.predict(embeddings[one], training)
            for one in self.online_passes
            if one in predicting
        }
        return embeddings, predictions

    def momentum_targets(
        self, views: dict[int, tf.Tensor], bits: tf.Tensor, training: bool = True
    ) -> dict[Pass, tf.Tensor]:
        """Makes every target pass of the momentum network once.

        Args:
            views: float tensor [batch, height, width, channels] of each view.
            bits: int32 tensor [draws, 2], weight and activation bits of each draw.
            training: whether batch norm uses the batch's statistics.
        """

        seed = self.bit_schedule.shuffling_seed(self.step.value)
        noise = self.bit_schedule.rounding_seed(self.step.value, targets=True)

        network: Any = self.momentum_network

        def project(images: tf.Tensor, precision: Any) -> tf.Tensor:
            if self.shuffle_keys:
                images = shuffled(images, seed)
            targets = network.project(images, precision, training)
            return unshuffled(targets, seed) if self.shuffle_keys else targets

        return self._passes(project, self.target_passes, views, bits, noise)

    def _passes(
        self,
        project: Callable[[tf.Tensor, Any], tf.Tensor],
        passes: tuple[Pass, ...],
        views: dict[int, tf.Tensor],
        bits: tf.Tensor,
        noise: tf.Tensor,
    ) -> dict[Pass, tf.Tensor]:
        bits_of = dict(zip(self.recipe.draws, tf.unstack(bits), strict=True))
        return make_passes(project, passes, views, bits_of, noise)

    def recipe_loss(
        self, predictions: dict[Pass, tf.Tensor], targets: dict[Pass, tf.Tensor]
    ) -> tf.Tensor:
        """Returns the weighted mean, or sum, of the recipe's pairs, of shape ().

        Args:
            predictions: predictions of the passes that predict, float [batch, width].
            targets: embeddings of the passes that are targets, float [batch, width].
        """
        pairs = self.recipe.pairs
        total = tf.add_n(
            [
                pair.weight
                * self.framework.compare(
                    predictions[pair.prediction],
                    targets[pair.target],
                    mutual=self.recipe.is_mutual(pair),
                )
                for pair in pairs
            ]
        )
        if self.loss_reduction == "sum":
            return total
        return total / sum(pair.weight for pair in pairs)

    def train_step(self, data: tuple[tf.Tensor, ...]) -> dict[str, tf.Tensor]:
        """Draws bits, makes the passes and applies one update.

        Args:
            data: a tensor for each view of the recipe, float [batch, height, width, channels],
                perhaps with labels, which are not used.

        Raises:
            UserError: when the data are not the recipe's views, of the same shape.
        """
        received = views_of_batch(self.recipe, data)
        views = {number: as_taken(view, self.pixels) for number, view in received.items()}
        images = tf.shape(next(iter(views.values())), out_type=tf.int64)[0]
        self._replica_images.assign_add(images)
        step, total_steps = self.step.value, self.total_steps.value
        draws = len(self.recipe.draws)
        self.bits.assign(self.bit_schedule.draw(step, draws, self.steps_per_epoch.value))
        network, order = self.momentum_network, self.framework.target_update
        if network is not None and order == "before_targets":
            network.follow(self.backbone, self.framework.projector, step, total_steps)
        if self.accumulate == 1:
            gradients, targets = self._differentiated(views)
        else:
            gradients, targets = accumulated(
                self._differentiated,
                views,
                self.accumulate,
                self.trainable_variables,
                [self.framework.projector.compute_dtype] * len(self.target_passes),
            )
        learning_rate = tf.convert_to_tensor(self.optimizer.learning_rate)
        if isinstance(self.optimizer, keras.optimizers.LossScaleOptimizer):
            gradients = finite_everywhere(gradients)
        self.optimizer.apply_gradients(zip(gradients, self.trainable_variables, strict=True))
        if network is not None and order == "after_step":
            network.follow(self.backbone, self.framework.projector, step, total_steps)
        self.framework.end_step(targets)
        self.step.assign_add(1)
        figures = {metric.name: metric.result() for metric in self.metrics}
        return reducible({**figures, "learning_rate": learning_rate})

    def _differentiated(
        self, views: dict[int, tf.Tensor]
    ) -> tuple[list[tf.Tensor | None], list[tf.Tensor]]:
        """Returns the gradients of the loss, and what every target pass returned."""
        # Outside the tape, which would keep the activations of these passes.
        moving = self.momentum_network is not None
        targets = self.momentum_targets(views, self.bits.value) if moving else None
        with tf.GradientTape() as tape:
            embeddings, predictions = self.embed(views, self.bits.value)
            targets = embeddings if targets is None else targets
            # What the user's layers add, such as weight regularizers.
            loss = tf.add_n([self.recipe_loss(predictions, targets), *self.losses])
            # Keras sums gradients over replicas; the step follows their mean.
            replicas = tf.distribute.get_strategy().num_replicas_in_sync
            scaled_loss = self.optimizer.scale_loss(loss / replicas)
        gradients = tape.gradient(scaled_loss, self.trainable_variables)
        self.figures.update(loss, embeddings, self.bits.value)
        return gradients, [targets[one] for one in self.target_passes]
