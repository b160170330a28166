"""Equations 4 to 8 of Contrastive Quant as explicit calls of one encoder."""

import dataclasses
import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from tests.pretraining.nt_xent import nt_xent
from tfcq.nn.quantizable import quantizable
from tfcq.pretraining import losses
from tfcq.pretraining.pretrainer import Pretrainer
from tfcq.quantization.precision import Precision
from tfcq.settings.policies import CONTRASTIVE_QUANT

BITS = (5, 9)
TEMPERATURE = 0.5


def backbone():
    return keras.Sequential(
        [
            keras.Input((6, 6, 1)),
            layers.Conv2D(4, 3, name="stem"),
            layers.ReLU(name="stem_relu"),
            layers.Conv2D(6, 3, name="second"),
            layers.ReLU(name="second_relu"),
            layers.GlobalAveragePooling2D(name="features"),
        ],
        name="tiny",
    )


@pytest.fixture(scope="module")
def images():
    """Two synthetic views and the image without augmentation."""
    random = np.random.default_rng(0)
    plain = random.random((8, 6, 6, 1)).astype(np.float32)
    noise = 0.2 * random.normal(size=(2, *plain.shape)).astype(np.float32)
    return {
        0: tf.constant(plain),
        1: tf.constant(plain + noise[0]),
        2: tf.constant(plain + noise[1]),
    }


def model_of(framework, recipe):
    keras.utils.set_random_seed(1)
    heads = {"projection_width": 6, "projection_hidden": 8}
    if framework == "byol":
        heads["predictor_width"] = 5
    return Pretrainer(backbone(), framework, recipe, loss_reduction="sum", **heads)


def terms(recipe, F, NCE):
    """The papers' losses, F(view, q) the encoder and NCE(f, f+) the loss of a pair."""
    q1, q2 = BITS
    if recipe == "cq_a":
        return NCE(F(1, q1), F(2, q2))  # Eq. 4
    if recipe == "cq_quant":
        return NCE(F(0, q1), F(0, q2))  # Sec. 4.5
    f1, f2 = F(1, q1), F(1, q2)  # Eq. 5
    f1_plus, f2_plus = F(2, q1), F(2, q2)  # Eq. 6
    same_precision = NCE(f1, f1_plus) + NCE(f2, f2_plus)  # Eq. 7
    if recipe == "cq_b":
        return same_precision
    return same_precision + NCE(f1, f2) + NCE(f1_plus, f2_plus)  # Eq. 8


def loss_and_gradients(model, loss_of):
    with tf.GradientTape() as tape:
        loss = loss_of()
    trained = [variable.value for variable in model.trainable_variables]
    return loss, tape.gradient(loss, trained, unconnected_gradients="zero")


def assert_same(found, expected):
    np.testing.assert_allclose(found[0], expected[0], rtol=1e-5)
    for ours, theirs in zip(found[1], expected[1], strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-5)


RECIPES = ["cq_a", "cq_b", "cq_c", "cq_quant"]


@pytest.mark.parametrize("recipe", RECIPES)
def test_recipe_on_simclr_is_the_papers_equation(recipe, images):
    model = model_of("simclr", recipe)

    def by_recipe():
        embeddings, predictions = model.embed(images, tf.constant([[q, q] for q in BITS]))
        return model.recipe_loss(predictions, embeddings)

    def encode(view, q):
        precision = Precision(q, q, ranges="tensor")
        features = model.backbone(images[view], precision=precision, training=True)
        return model.framework.project(features, precision)

    def by_equation():
        return terms(recipe, encode, lambda a, b: nt_xent(a, b, TEMPERATURE))

    assert_same(loss_and_gradients(model, by_recipe), loss_and_gradients(model, by_equation))


@pytest.mark.parametrize("recipe", RECIPES)
def test_recipe_on_byol_predicts_momentum_embeddings_in_both_directions(recipe, images):
    model = model_of("byol", recipe)
    for own, _ in model.momentum_network.pairs(model.backbone, model.framework.projector):
        own.assign(own * 1.25)
    bits = tf.constant([[q, q] for q in BITS])

    def by_recipe():
        targets = model.momentum_targets(images, bits)
        _, predictions = model.embed(images, bits)
        return model.recipe_loss(predictions, targets)

    def encode(view, q):
        precision = Precision(q, q, ranges="tensor")
        features = model.backbone(images[view], precision=precision, training=True)
        prediction = model.framework.predict(model.framework.project(features, precision))
        return prediction, model.momentum_network.project(images[view], precision)

    def regression(one, other):
        there = losses.normalized_mse(one[0], other[1])
        back = losses.normalized_mse(other[0], one[1])
        return (there + back) / 2

    def by_equation():
        return terms(recipe, encode, regression)

    assert_same(loss_and_gradients(model, by_recipe), loss_and_gradients(model, by_equation))


def test_every_pass_of_every_step_is_rounded_with_noise_of_its_own(images):
    policy = dataclasses.replace(CONTRASTIVE_QUANT, rounding="stochastic")
    model = Pretrainer(quantizable(backbone(), policy), "byol", "cq_c", seed=3)
    same = dict.fromkeys(images, images[0])
    bits = tf.constant([[3, 3], [3, 3]])
    drawn = []
    for step in (0, 1, 0):
        model.step.assign(step)
        for embeddings in (model.embed(same, bits)[0], model.momentum_targets(same, bits)):
            drawn.append(np.stack([embeddings[one] for one in model.recipe.passes]))
    for ours, again in zip(drawn[:2], drawn[4:], strict=True):
        np.testing.assert_array_equal(ours, again)
    # Both networks, equal still, at both steps.
    noisy = np.concatenate(drawn[:4])
    assert noisy.shape[0] == 16
    for one, other in itertools.combinations(noisy, 2):
        assert np.abs(one - other).max() > 1e-3
