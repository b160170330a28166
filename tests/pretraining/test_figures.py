"""The figures of a step are what their formulas say."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfcq.errors import UserError
from tfcq.pretraining.figures import StepFigures, error_correlation, feature_std_ratio
from tfcq.settings.recipes import FLOAT_PASS, Pass, recipe_named


def unit(angles):
    return np.stack([np.cos(angles), np.sin(angles)], axis=1)


def test_error_correlation_is_the_cross_term_over_the_other_two():
    random = np.random.default_rng(0)
    quantized, embeddings, targets = (random.normal(size=(7, 3)) for _ in range(3))
    rows = [[row / np.linalg.norm(row) for row in x] for x in (quantized, embeddings, targets)]
    cross = first = second = 0.0
    for q, z, t in zip(*rows, strict=True):
        cross += (q - z) @ (z - t)
        first += (q - z) @ (q - z)
        second += (z - t) @ (z - t)
    expected = cross / np.sqrt(first * second)
    found = error_correlation(*map(tf.constant, (quantized, embeddings, targets)))
    np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_errors_that_point_the_same_or_opposite_way_or_vanish():
    z, step = unit(np.array([0.0, 1.0])), 1e-4
    ahead, behind = (unit(np.array([0.0, 1.0]) + sign * step) for sign in (1, -1))
    for quantized, target, expected in ((ahead, behind, 1), (ahead, ahead, -1), (z, ahead, 0)):
        found = error_correlation(tf.constant(quantized), tf.constant(z), tf.constant(target))
        np.testing.assert_allclose(found, expected, atol=1e-3)


def test_spread_is_one_on_a_sphere_and_zero_when_collapsed():
    around = unit(np.linspace(0, 2 * np.pi, 400, endpoint=False))
    np.testing.assert_allclose(feature_std_ratio(tf.constant(around)), 1, rtol=1e-6)
    np.testing.assert_allclose(feature_std_ratio(tf.ones([5, 4])), 0, atol=1e-6)


def cosines(one, other):
    return [a @ b / np.linalg.norm(a) / np.linalg.norm(b) for a, b in zip(one, other, strict=True)]


def test_figures_are_means_over_the_steps_of_what_the_trained_network_made():
    recipe, random = recipe_named("ssql"), np.random.default_rng(2)
    figures, steps = StepFigures(recipe.passes, recipe), []
    for bits in ([2, 8], [5, 4]):
        # Spread and angles of their own for every pass.
        made = {p: random.normal(k, 1 + k, (6, 4)) for k, p in enumerate(recipe.passes)}
        loss = random.normal()
        figures.update(
            tf.constant(loss, tf.float32),
            {p: tf.constant(z, tf.float32) for p, z in made.items()},
            tf.constant([bits]),
        )
        steps.append(
            {
                "loss": loss,
                "feature_std_ratio": feature_std_ratio(tf.constant(made[Pass(1, FLOAT_PASS)])),
                "cosine_float_quantized": np.mean(
                    [cosines(made[Pass(v, FLOAT_PASS)], made[Pass(v, "q")]) for v in (1, 2)]
                ),
                "weight_bits": bits[0],
                "activation_bits": bits[1],
            }
        )
    found = {m.name: float(m.result()) for m in figures.metrics}
    assert found.keys() == steps[0].keys()
    for name, value in found.items():
        np.testing.assert_allclose(value, np.mean([s[name] for s in steps]), rtol=1e-5)


def test_correlation_is_averaged_over_both_views_and_refused_without_them():
    recipe = recipe_named("ssql")
    passes = recipe.passes
    figures = StepFigures(passes, recipe, correlation=True)
    random = np.random.default_rng(1)
    embeddings = {p: tf.constant(random.normal(size=(6, 4)), tf.float32) for p in passes}
    figures.update(tf.constant(0.0), embeddings, tf.constant([[4, 4]]))
    floats = {view: embeddings[Pass(view, FLOAT_PASS)] for view in (1, 2)}
    quantized = {p.view: embeddings[p] for p in passes if not p.is_float}
    expected = [error_correlation(quantized[v], floats[v], floats[3 - v]) for v in (1, 2)]
    found = {m.name: m.result() for m in figures.metrics}["error_correlation"]
    np.testing.assert_allclose(keras.ops.convert_to_numpy(found), np.mean(expected), rtol=1e-6)
    recipe = recipe_named("cq_a")
    with pytest.raises(UserError, match="error_correlation has no effect: recipe 'cq_a'"):
        StepFigures(recipe.passes, recipe, correlation=True)
