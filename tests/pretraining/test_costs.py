"""What a step costs: products of its passes, and what replicas exchange."""

import math

import keras
import pytest
import tensorflow as tf
from keras import layers

from tfcq.nn import replicas
from tfcq.nn.flops import forward_flops
from tfcq.pretraining import costs, figures, moco, simclr
from tfcq.pretraining.pretrainer import Pretrainer
from tfcq.training.distribution import synchronize

BATCH, SIZE = 4, 8
SMALL = {
    "simsiam": {"projection_width": 8, "predictor_width": 4},
    "simclr": {"projection_width": 8, "projection_hidden": 4},
    "byol": {"projection_width": 8, "projection_hidden": 4, "predictor_width": 4},
    "mocov2": {"projection_width": 8, "projection_hidden": 4, "queue_size": 16},
    "mocov3": {"projection_width": 8, "projection_hidden": 4, "predictor_width": 4},
}


def pretrainer(framework, recipe, **settings):
    backbone = keras.Sequential([
        keras.Input((SIZE, SIZE, 3)), layers.Conv2D(2, 3, use_bias=False),
        layers.BatchNormalization(), layers.ReLU(), layers.Conv2D(3, 3),
        layers.GlobalAveragePooling2D(),
    ])  # fmt: skip
    model = Pretrainer(backbone, framework, recipe, **SMALL[framework], **settings)
    model.set_run_length(1, 10)
    model.compile()
    return model


def flops_of(*networks):
    return sum(map(forward_flops, networks))


def test_trained_passes_count_three_times_and_those_that_only_make_targets_once():
    model = pretrainer("simsiam", "ssql")
    whole = flops_of(model.backbone, model.framework.projector, model.framework.predictor)
    assert costs.pass_counts(model) == (4, 0)
    assert costs.step_flops(model, BATCH) == BATCH * 3 * 4 * whole
    model = pretrainer("byol", "ssql_no_aux")
    encoder = flops_of(model.backbone, model.framework.projector)
    whole = encoder + flops_of(model.framework.predictor)
    assert costs.pass_counts(model) == (2, 2)
    assert costs.step_flops(model, BATCH) == BATCH * (3 * 2 * whole + 2 * encoder)
    model = pretrainer("simsiam", "quantized_target")
    encoder = flops_of(model.backbone, model.framework.projector)
    whole = encoder + flops_of(model.framework.predictor)
    assert costs.step_flops(model, BATCH) == BATCH * (3 * 2 * whole + 2 * encoder)


def test_a_float_recipe_sums_its_gradients_alone():
    model = pretrainer("simsiam", "float")
    parameters = sum(math.prod(one.shape) for one in model.trainable_variables)
    assert costs.all_reduce_bytes(model, BATCH, synchronized=False) == 4 * parameters


def size(tensors):
    return sum(4 * math.prod(one.shape) for one in tf.nest.flatten(tensors) if one is not None)


@pytest.mark.parametrize(
    ("framework", "recipe", "settings"),
    [
        ("simsiam", "ssql", {"error_correlation": True}), ("simclr", "cq_c", {}),
        ("simclr", "ssql_no_aux", {}), ("byol", "quantized_target", {}),
        ("mocov2", "v1@fp->v2@fp", {"shuffle_keys": True}), ("mocov3", "float", {}),
        ("simsiam", "pact", {}),
    ],
)  # fmt: skip
def test_bytes_are_those_of_what_a_step_gathers_and_sums(framework, recipe, settings, monkeypatch):
    gathered, summed = [], []

    def gather(rows):
        gathered.append(size(rows))
        # As TensorFlow's: the gradients of all replicas are summed.
        return tf.custom_gradient(lambda rows: (tf.identity(rows), summed_up))(rows)

    def summed_up(rows):
        summed.append(size(rows))
        return rows

    def all_reduce(self, operation, value, options=None):
        reduced = tf.custom_gradient(lambda value: (summed_up(value), summed_up))
        return tf.nest.map_structure(reduced, value)

    for module in (replicas, figures, moco, simclr):
        monkeypatch.setattr(module, "gathered", gather)
    monkeypatch.setattr(type(tf.distribute.get_replica_context()), "all_reduce", all_reduce)
    model = pretrainer(framework, recipe, **settings)
    for network in model.networks:
        synchronize(network)
    view = tf.TensorSpec((BATCH, SIZE, SIZE, 3))
    step = tf.function(model.train_step, autograph=False)
    step.get_concrete_function((view,) * len(model.recipe.views))
    assert sum(gathered) == costs.all_gather_bytes(model, BATCH, 1, synchronized=True)
    assert sum(summed) == costs.all_reduce_bytes(model, BATCH, synchronized=True)
