"""Builds the model of a pre-training from settings."""

from typing import Any

import keras
import tensorflow as tf

from tfcq.backbones.build import backbone_from
from tfcq.data.order import steps_per_epoch
from tfcq.data.split import Split, view_size
from tfcq.errors import UserError
from tfcq.nn.products import multiply_in, product_dtype
from tfcq.nn.quantizable import QuantizableModel
from tfcq.pretraining.accumulation import check_accumulation, check_parts
from tfcq.pretraining.memory import batch_that_fits, has_accelerator
from tfcq.pretraining.pretrainer import Pretrainer
from tfcq.pretraining.start import check_start, give_start
from tfcq.settings.defaults import choice, replaced
from tfcq.settings.policies import Policy
from tfcq.settings.saving import check_steps_per_execution, parse_save_every
from tfcq.settings.training import Config, for_images, policy, total_steps
from tfcq.settings.training_groups import FLOAT16
from tfcq.training.distribution import check_batch_size, synchronize
from tfcq.training.optimizers import optimizer_from
from tfcq.training.workers import of_every_worker


def built(
    config: Config,
    left_open: frozenset[str],
    split: Split,
    strategy: tf.distribute.Strategy,
    begins: bool,
) -> tuple[dict[str, Any], Pretrainer]:
    """Builds the model of a run, and tells what machine and images chose for it.

    Returns:
        The values that were chosen, by setting, and the model.
    """
    chosen = choice(config, left_open, split.image_shape, split.size, has_accelerator())
    replicas = strategy.num_replicas_in_sync

    def model() -> tuple[int, Pretrainer]:
        # Anew: a network begins as that of a run that was given what is chosen.
        keras.utils.set_random_seed(config.execution.seed)
        settings = replaced(config, chosen.values)
        batch_size, execution = settings.optimization.batch_size, settings.execution
        steps = steps_per_epoch(split, batch_size)
        check_batch_size(batch_size, replicas)
        check_accumulation(execution.accumulate, replicas)
        check_parts(batch_size, execution.accumulate)
        size = view_size(split, settings.data.image_size)
        shape = (size, size, split.image_shape[2])
        return batch_size, pretrainer_from(settings, shape, steps, begins)

    def check_calls(batch_size: int) -> None:
        save_every = parse_save_every(config.execution.save_every)
        steps = steps_per_epoch(split, batch_size)
        check_steps_per_execution(config.execution.steps_per_execution, steps, save_every)

    try:
        # Before the network is built, which may take half a minute.
        if "batch_size" not in left_open:
            check_calls(config.optimization.batch_size)
        batch_size, pretrainer = model()
        fitting = batch_size
        if "batch_size" in left_open:
            fitting = batch_that_fits(pretrainer, batch_size, replicas)
            fitting = int(of_every_worker(strategy, fitting).min())
            if fitting < batch_size:
                chosen.values["batch_size"] = fitting
                chosen.reasons.append(f"A step of {batch_size} images exceeds the memory")
            check_calls(fitting)
        if fitting < batch_size:
            _, pretrainer = model()
    finally:
        # Also above an error, which may come of it.
        if chosen.values:
            print(chosen.in_words())
    return chosen.values, pretrainer


def pretrainer_from(
    config: Config, shape: tuple[int, int, int], steps: int, begins: bool = True
) -> Pretrainer:
    """Returns the compiled model that pre-trains the run's backbone.

    Args:
        config: the settings.
        shape: height, width and channels of a view.
        steps: steps per epoch.
        begins: whether the run begins, with the weights of another one if it names one.

    Raises:
        UserError: on settings that do not fit each other or the length of the run.
    """
    config = for_images(config, shape[0])
    method = config.method
    if begins:
        check_start(config.network, shape[2])
    backbone = backbone_from(config.network, shape)
    if begins:
        give_start(backbone, config.network)
    model = Pretrainer(
        backbone,
        framework=method.framework,
        recipe=method.recipe,
        weight_bits=method.weight_bits,
        activation_bits=method.activation_bits,
        precision_set=method.precision_set,
        bit_schedule=method.bit_schedule,
        policy=_policy_for(config, backbone),
        seed=config.execution.seed,
        loss_reduction=method.loss_reduction,
        error_correlation=config.execution.error_correlation,
        shuffle_keys=config.execution.batch_norm == "shuffled",
        accumulate=config.execution.accumulate,
        **method.framework_settings(),
    )
    model.set_run_length(steps, total_steps(config.optimization, steps))
    products = product_dtype(config.execution.product_dtype)
    for network in model.networks:
        multiply_in(network, products)
        if config.execution.batch_norm == "synchronized":
            synchronize(network)
    optimizer = optimizer_from(config.optimization, steps)
    if products == FLOAT16:
        # Gradients below its smallest value would be zero.
        optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
    model.compile(optimizer, jit_compile=config.execution.xla)
    return model


def _policy_for(config: Config, network: keras.Model) -> Policy | None:
    """Returns how a backbone becomes quantizable; None for one that is so already."""
    if not isinstance(network, QuantizableModel):
        return policy(config)
    for name in ("policy", "layer_bits", "weight_quantizer", "activation_quantizer", "rounding"):
        if getattr(config.network, name) != getattr(type(config.network)(), name):
            raise UserError(
                f"--{name} has no effect here: {config.network.backbone} holds a model that is "
                "quantizable already, with quantizers of its own; leave it out."
            )
    return None
