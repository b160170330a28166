"""tools/bench.py: what stands beside each other is the same work, and the page holds all of it."""

import collections
import json
import subprocess
import sys
import types

import keras
import numpy as np
import pytest
import tensorflow as tf
from benchmarks import convolutions, page, peer, pipeline, step

import bench
from tfcq.backbones.cifar_resnet import cifar_resnet
from tfcq.errors import UserError
from tfcq.nn.batch_norm import BatchNormalization
from tfcq.nn.products import multiply_in
from tfcq.pretraining.pretrainer import Pretrainer

PRODUCTS = {"Conv2D", "Conv2DBackpropInput", "Conv2DBackpropFilter", "MatMul"}
SMALL = {"projection_width": 8}


def pretrainer(framework="simsiam", recipe="ssql", **settings):
    backbone = cifar_resnet(8, width=2, input_shape=(8, 8, 3))
    return Pretrainer(backbone, framework, recipe, **settings)


def made(function, *arguments):
    """Returns how often a graph makes each product of which something is read."""
    graph = tf.function(function, autograph=False).get_concrete_function(*arguments).graph
    read = [op for op in graph.get_operations() if any(one.consumers() for one in op.outputs)]
    return collections.Counter((op.type, op.outputs[0].dtype.name) for op in read
                               if op.type in PRODUCTS)  # fmt: skip


@pytest.mark.parametrize(
    ("framework", "recipe", "settings", "dtype"),
    [
        ("simsiam", "ssql", {"predictor_width": 4}, "float32"),
        ("simsiam", "quantized_target", {"predictor_width": 4}, "bfloat16"),
        ("byol", "ssql_no_aux", {"projection_hidden": 4, "predictor_hidden": 4}, "float32"),
    ],
)  # fmt: skip
def test_products_beside_a_step_are_those_of_the_step(framework, recipe, settings, dtype):
    model = pretrainer(framework, recipe, **SMALL, **settings)
    for network in model.networks:
        multiply_in(network, dtype)
    model.set_run_length(1, 10)
    model.compile()
    of_step = made(model.train_step, (tf.zeros((4, 8, 8, 3)),) * 2)
    whole, encoder = convolutions.products_of(model, batch_size=4)
    trained, further = convolutions.passes(model)
    alone = collections.Counter()
    for count, run, given in [
        (trained, convolutions.trained_pass, whole), (further, convolutions.forward_pass, encoder)
    ]:  # fmt: skip
        for product, times in made(lambda run=run, given=given: run(given)).items():
            alone[product] += count * times
    assert alone == of_step
