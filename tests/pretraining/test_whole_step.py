"""A whole `train_step` moves weights as one step of the SSQL authors' SGD does."""

import pytest
import tensorflow as tf

from tests.pretraining.test_ssql_reference import TOLERANCE, byol, simsiam
from tests.reference_networks import FROZEN_BIASES, distance, our_key, set_state, variables_of
from tfcq.training.sgd import SGD

# Exact in float32, in which Keras keeps both.
RATE, MOMENTUM, DECAY = 2**-4, 7 / 8, 1e-4


@pytest.mark.parametrize("framework", [simsiam, byol])
def test_train_step_adds_decay_and_momentum_to_authors_gradient(framework, reference, floatx):
    vectors = reference(f"ssql_{framework.__name__}_4w5a")
    with floatx("float64"):
        pretrainer = framework(weight_bits="4", activation_bits="5")
        variables = variables_of(pretrainer)
        set_state(variables, vectors)
        optimizer = SGD(RATE, MOMENTUM, DECAY)
        pretrainer.compile(optimizer)
        trained = zip(pretrainer.trainable_variables, optimizer.momentums, strict=True)
        velocity = {id(variable): momentum for variable, momentum in trained}
        for momentum in velocity.values():
            momentum.assign(tf.fill(momentum.shape, tf.constant(-RATE, tf.float64)))
        pretrainer.train_step((tf.constant(vectors["x1"]), tf.constant(vectors["x2"])))
    names = [key.removeprefix("grad/") for key in vectors if key.startswith("grad/")]
    assert len(names) == len(velocity)
    for name in names:
        before = vectors[f"param/{name}"]
        # Momentum starts as if every past gradient had summed to one.
        step = MOMENTUM * 1 + vectors[f"grad/{name}"] + DECAY * before
        after = variables[our_key(f"param/{name}")]
        assert distance(after, before - RATE * step) < TOLERANCE, name
    assert not {f"param/{name}" for name in names} & set(FROZEN_BIASES)
