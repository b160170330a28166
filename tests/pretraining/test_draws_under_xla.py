"""A step draws the same in a graph and under XLA, which is how TPUs run it."""

import types

import numpy as np
import pytest
import tensorflow as tf

from tfcq.detection.matching import sampled
from tfcq.nn.replicas import shuffled
from tfcq.pretraining.bit_schedules import BitSchedule
from tfcq.pretraining.passes import make_passes
from tfcq.quantization.ops import to_integer
from tfcq.settings.recipes import Pass

SCHEDULE = BitSchedule(seed=5)


def seeds_of_passes(step):
    """Returns the seeds that the passes of a step give to the layers."""
    seeds = []
    stochastic, layer = types.SimpleNamespace(is_stochastic=True), types.SimpleNamespace(path="a/b")

    def project(images, precision):
        seeds.append(precision.seed_for(layer, stochastic))
        return images

    passes, views = (Pass(1, "a"), Pass(2, "a")), {1: step, 2: step}
    make_passes(project, passes, views, {"a": (4, 4)}, SCHEDULE.rounding_seed(step))
    return tf.stack(seeds)


def noise(dtype):
    """Returns how stochastic rounding rounds halves."""
    return lambda step: to_integer(
        tf.fill([6, 5], tf.constant(0.5, dtype)), "stochastic", [3, step]
    )


DRAWS = {
    "bits": lambda step: SCHEDULE.draw(step, 3),
    "rounding": lambda step: SCHEDULE.rounding_seed(step, targets=True),
    "shuffling": SCHEDULE.shuffling_seed,
    "layers": seeds_of_passes,
    "noise": noise(tf.float32),
    "noise_of_float64": noise(tf.float64),
    "order": lambda step: shuffled(tf.range(12), tf.stack([step, 3])),
    "anchors": lambda step: sampled(tf.constant([[1, 0, -1] * 9]), 6, 0.5, tf.stack([step, 3])),
}


@pytest.mark.parametrize("name", DRAWS)
def test_graph_and_xla_draw_the_same_at_every_step(name):
    graph, xla = (tf.function(DRAWS[name], jit_compile=compiled) for compiled in (False, True))
    drawn = []
    for step in tf.range(10, dtype=tf.int64):
        drawn.append([np.array(part) for part in tf.nest.flatten(graph(step))])
        for one, other in zip(drawn[-1], tf.nest.flatten(xla(step)), strict=True):
            np.testing.assert_array_equal(one, other)
    assert any((one != other).any() for one, other in zip(drawn[0], drawn[1], strict=True))
