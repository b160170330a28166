"""A step of every framework is the one written out here."""

import math

import numpy as np
import pytest
import tensorflow as tf

from tests.pretraining.test_frameworks import pretrainer, synthetic_batches
from tfcq.pretraining.bit_schedules import BitSchedule

RATE, MOMENTUM, STEPS, TOTAL, KEPT = 0.1, 0.9, 2, 4, 0.75


def follow(model, step):
    """Moves the momentum network, m rising along a cosine (BYOL, Eq. 1 and Sec. 3.3)."""
    share = 1 - (1 - KEPT) * (math.cos(math.pi * step / TOTAL) + 1) / 2
    moving, trained = model.momentum_network, model.framework.projector
    for own, online in (*zip(moving.backbone.weights, model.backbone.weights, strict=True),
                        *zip(moving.projector.weights, trained.weights, strict=True)):  # fmt: skip
        # Batch norm statistics are those of its own passes.
        if online.trainable:
            own.assign(share * own + (1 - share) * online)


def written_out(model, views, step, order, velocity):
    """Makes a step by hand and returns its loss; `velocity` is that of SGD."""
    bits = BitSchedule("2-8", "4-8").draw(tf.constant(step, tf.int64), 1)
    moving = model.momentum_network is not None
    if moving and order == "before_targets":
        follow(model, step)
    targets = model.momentum_targets(views, bits) if moving else None
    with tf.GradientTape() as tape:
        embeddings, predictions = model.embed(views, bits)
        targets = targets if moving else embeddings
        loss = model.recipe_loss(predictions, targets)
    trained = model.trainable_variables
    gradients = tape.gradient(loss, [variable.value for variable in trained])
    for number, (variable, gradient) in enumerate(zip(trained, gradients, strict=True)):
        velocity[number] = MOMENTUM * velocity.get(number, 0) - RATE * gradient
        variable.assign_add(velocity[number])
    if moving and order == "after_step":
        follow(model, step)
    model.framework.end_step([targets[one] for one in model.target_passes])
    model.step.assign_add(1)
    return loss


@pytest.mark.parametrize(
    ("framework", "order"),
    [("simsiam", None), ("simclr", None), ("byol", "before_targets"), ("byol", "after_step"),
     ("mocov2", "after_step"), ("mocov3", "before_targets")],
)  # fmt: skip
def test_steps_are_those_written_out(framework, order):
    settings = {} if order is None else {
        "target_update": order, "target_momentum": KEPT, "target_momentum_schedule": "cosine",
    }  # fmt: skip
    model, by_hand = (pretrainer(framework, "ssql", **settings) for _ in range(2))
    for one in (model, by_hand):
        # Networks that differ from the start, so that a move at another time shows.
        for variable in one.trainable_variables:
            variable.assign(variable * 1.5)
        one.set_run_length(2, TOTAL)
    velocity = {}
    for step, batch in enumerate(synthetic_batches(steps=STEPS)):
        views = dict(zip((1, 2), batch, strict=True))
        expected = written_out(by_hand, views, step, order, velocity)
        model.reset_metrics()
        found = model.train_step(batch)["loss"]
        np.testing.assert_allclose(found, expected, rtol=1e-5)
        for ours, theirs in zip(model.weights, by_hand.weights, strict=True):
            if "bits" not in ours.path and "replica" not in ours.path:
                np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6, err_msg=ours.path)
