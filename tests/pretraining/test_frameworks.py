"""Frameworks: how pairs compare, what moves behind the trained network, what steps leave behind."""

import math

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from tests.pretraining.nt_xent import nt_xent
from tfcq.errors import UserError
from tfcq.nn.heads import multi_layer_perceptron
from tfcq.nn.replicas import shuffled
from tfcq.pretraining import losses
from tfcq.pretraining.byol import byol
from tfcq.pretraining.framework import Framework
from tfcq.pretraining.kinds import FRAMEWORKS
from tfcq.pretraining.moco import mocov2, mocov3
from tfcq.pretraining.momentum import MomentumNetwork
from tfcq.pretraining.pretrainer import Pretrainer
from tfcq.pretraining.simclr import simclr
from tfcq.settings.frameworks import FRAMEWORK_SETTINGS
from tfcq.settings.recipes import RECIPES, Pass

SMALL = {
    "projection_width": 6, "projection_hidden": 8, "predictor_width": 4, "queue_size": 64,
}  # fmt: skip


def small_settings(framework):
    own = FRAMEWORK_SETTINGS[framework]
    return {name: value for name, value in SMALL.items() if name in own}


def backbone():
    return keras.Sequential(
        [
            keras.Input((6, 6, 1)),
            layers.Conv2D(4, 3, use_bias=False, name="stem"),
            layers.BatchNormalization(name="stem_norm"),
            layers.ReLU(name="stem_relu"),
            layers.Conv2D(6, 3, name="second"),
            layers.ReLU(name="second_relu"),
            layers.GlobalAveragePooling2D(name="features"),
        ],
        name="tiny",
    )


def pretrainer(framework, recipe="ssql", seed=2, **settings):
    keras.utils.set_random_seed(seed)
    model = Pretrainer(backbone(), framework, recipe, **{**small_settings(framework), **settings})
    model.compile(keras.optimizers.SGD(0.1, momentum=0.9), run_eagerly=True)
    return model


def synthetic_batches(recipe="ssql", steps=2, seed=0):
    """Batches of synthetic images, one tensor for each view of the recipe."""
    count = len(RECIPES[recipe].views) if recipe in RECIPES else 2
    random = np.random.default_rng(seed)
    # Images must differ in more than their pixels: noise alone gives every image the same features.
    images = random.random((steps * 8, 6, 6, 1)) * random.integers(0, 2, (steps * 8, 6, 1, 1))
    views = tuple((3 * images + 0.05 * view).astype(np.float32) for view in range(count))
    return tf.data.Dataset.from_tensor_slices(views).batch(8, drop_remainder=True)


def rows(seed, count=5, width=6):
    return tf.constant(np.random.default_rng(seed).normal(size=(count, width)), tf.float32)


def test_mutual_simclr_pairs_are_nt_xent_with_gradients_into_both():
    framework, a, b = simclr(4, projection_width=6, projection_hidden=8), rows(0), rows(1)

    def gradients(loss):
        with tf.GradientTape() as tape:
            tape.watch([a, b])
            value = loss()
        return value, *tape.gradient(value, [a, b])

    found = gradients(
        lambda: (framework.compare(a, b, mutual=True) + framework.compare(b, a, mutual=True)) / 2
    )
    expected = gradients(lambda: nt_xent(a, b, framework.temperature))
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-6)


def test_one_directional_simclr_pairs_contrast_with_detached_targets_alone():
    framework, a, b = simclr(4, projection_width=6, projection_hidden=8), rows(0), rows(1)
    with tf.GradientTape() as tape:
        tape.watch([a, b])
        loss = framework.compare(a, b)
    expected = losses.contrastive_cross_entropy(a, b, range(5), framework.temperature)
    np.testing.assert_allclose(loss, expected, rtol=1e-6)
    to_anchors, to_targets = tape.gradient(loss, [a, b])
    assert to_targets is None and np.any(to_anchors != 0)


def unit_rows(x):
    return [[value / math.hypot(*row) for value in row] for row in np.asarray(x).tolist()]


def naive_contrast(anchors, candidates, positives, temperature, excluded):
    """Mean over anchors of -log(exp(a . c+ / T) / sum of exp(a . c / T)), loop by loop."""
    total = 0.0
    for i, anchor in enumerate(anchors):
        likely = [
            math.exp(sum(a * c for a, c in zip(anchor, candidate, strict=True)) / temperature)
            for candidate in candidates
        ]
        rest = sum(likely) - (likely[i] if excluded else 0)
        total -= math.log(likely[positives[i]] / rest)
    return total / len(anchors)


def naive_nt_xent(one, other, temperature):
    views, count = unit_rows(one) + unit_rows(other), len(one)
    positives = [(i + count) % (2 * count) for i in range(2 * count)]
    return naive_contrast(views, views, positives, temperature, excluded=True)


@pytest.mark.parametrize("reading", ["ssql", "quantized_both_aux"])
def test_readings_of_ssql_nce_equal_a_naive_double_loop(reading):
    model = pretrainer("simclr", reading, temperature=0.3)
    names = ("v1@fp", "v2@fp", "v1@q", "v2@q")
    passes = {Pass(int(n[1]), n[3:]): rows(seed) for seed, n in enumerate(names)}
    f1, f2, q1, q2 = passes.values()
    with tf.GradientTape() as tape:
        tape.watch([f1, f2, q1, q2])
        loss = model.recipe_loss(passes, passes)
    between_floats = naive_nt_xent(f1, f2, 0.3)
    if reading == "ssql":
        one, other = (
            naive_contrast(unit_rows(q), unit_rows(f), range(len(f)), 0.3, excluded=False)
            for q, f in ((q1, f2), (q2, f1))
        )
        expected = (2 * between_floats + one + other) / 4
    else:
        # The SSQL authors' public loss: 2N - 1 candidates, all of the same kind of pass.
        expected = (between_floats + naive_nt_xent(q1, q2, 0.3)) / 2
    np.testing.assert_allclose(loss, expected, rtol=1e-5)
    # No gradient flows from the quantized pairs into the float passes, whichever the reading.
    with tf.GradientTape() as tape_of_floats:
        tape_of_floats.watch([f1, f2])
        floats = nt_xent(f1, f2, 0.3) / 2
    for found, alone in zip(
        tape.gradient(loss, [f1, f2]), tape_of_floats.gradient(floats, [f1, f2]), strict=True
    ):
        np.testing.assert_allclose(found, alone, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("framework", ["byol", "simclr"])
@pytest.mark.parametrize("norm", ["none", "fixed", "affine"])
def test_depth_and_end_of_a_projector_are_settings(framework, norm):
    model = pretrainer(framework, projection_layers=3, projection_norm=norm)
    found = model.framework.projector.layers[1:]
    denses = [layer for layer in found if isinstance(layer, layers.Dense)]
    assert [layer.units for layer in denses] == [8, 8, 6]
    assert [layer.use_bias for layer in denses] == [False, False, norm == "none"]
    norms = [layer for layer in found if isinstance(layer, layers.BatchNormalization)]
    ends = [[True] * 2, [True] * 2] + {"none": [], "fixed": [[False] * 2], "affine": [[True] * 2]}[
        norm
    ]
    assert [[layer.scale, layer.center] for layer in norms] == ends
    assert (found[-1] is norms[-1]) == (norm != "none")


def test_mocov3_is_twice_the_temperature_times_info_nce():
    framework = mocov3(4, 6, 8, 4, 0.99, temperature=0.3)
    a, b = rows(0), rows(1)
    expected = 2 * 0.3 * losses.contrastive_cross_entropy(a, b, range(5), 0.3)
    np.testing.assert_allclose(framework.compare(a, b), expected, rtol=1e-6)


def test_queue_replaces_its_oldest_keys_and_holds_unit_vectors():
    framework = mocov2(4, 6, 8, 0.999, queue_size=12)
    start = framework.queue.numpy()
    first, second = rows(0), rows(1, count=10)
    framework.end_step([first])
    np.testing.assert_allclose(framework.queue[:5], losses.normalized(first), rtol=1e-6)
    np.testing.assert_array_equal(framework.queue[5:], start[5:])
    framework.end_step([second[:4], second[4:]])
    assert int(framework.oldest.value) == 3
    np.testing.assert_allclose(framework.queue[5:], losses.normalized(second)[:7], rtol=1e-6)
    np.testing.assert_allclose(framework.queue[:3], losses.normalized(second)[7:], rtol=1e-6)
    np.testing.assert_allclose(framework.queue[3:5], losses.normalized(first)[3:], rtol=1e-6)


def test_queue_smaller_than_a_step_is_refused():
    with pytest.raises(UserError, match="makes 5 keys, the queue holds 4; .* of 5 and above"):
        mocov2(4, 6, 8, 0.999, queue_size=4).end_step([rows(0)])


def test_mocov2_compares_with_the_queue_of_earlier_steps():
    framework = mocov2(4, 6, 8, 0.999, queue_size=7)
    a, b = rows(0), rows(1)
    expected = losses.queue_info_nce(a, b, framework.queue.value, framework.temperature)
    np.testing.assert_array_equal(framework.compare(a, b), expected)


MOVING = [name for name, settings in FRAMEWORK_SETTINGS.items() if "target_momentum" in settings]


def pairs_of(model):
    return model.momentum_network.pairs(model.backbone, model.framework.projector)


def test_momentum_rises_to_one_along_a_cosine():
    model = pretrainer("byol")
    network = MomentumNetwork(model.backbone, model.framework.projector, 0.9, "cosine")
    found = [float(network.momentum_at(tf.constant(k), tf.constant(10))) for k in (0, 5, 10, 15)]
    np.testing.assert_allclose(found, [0.9, 0.95, 1, 1], rtol=1e-12)
    by_formula = 1 - 0.1 * (math.cos(math.pi * 0.3) + 1) / 2
    np.testing.assert_allclose(
        network.momentum_at(tf.constant(3), tf.constant(10)), by_formula, rtol=1e-12
    )


@pytest.mark.parametrize("framework", MOVING)
def test_momentum_network_starts_equal_and_is_not_trained(framework):
    model = pretrainer(framework)
    assert pairs_of(model)
    for own, online in pairs_of(model):
        np.testing.assert_array_equal(own, online)
    trained = {id(v) for v in model.trainable_variables}
    assert trained.isdisjoint(id(v) for v in model.momentum_network.variables)
    assert {id(online) for _, online in pairs_of(model)} <= trained


@pytest.mark.parametrize("framework", MOVING)
def test_targets_are_what_the_momentum_network_makes_of_the_pass(framework):
    model = pretrainer(framework, recipe="quantized_both")
    images, bits = dict(zip((1, 2), next(iter(synthetic_batches())), strict=True)), [[2, 4]]
    embeddings, _ = model.embed(images, tf.constant(bits))
    targets = model.momentum_targets(images, tf.constant(bits))
    assert list(map(str, targets)) == ["v1@q", "v2@q"] == list(map(str, embeddings))
    # The networks are equal still, backbone and projector, at this precision too.
    for one in targets:
        np.testing.assert_array_equal(targets[one], embeddings[one])
    for own, _ in pairs_of(model):
        own.assign(own * 1.5 + 0.1)
    moved = model.momentum_targets(images, tf.constant(bits))
    for one in targets:
        assert np.any(np.abs(moved[one] - embeddings[one]) > 1e-4)


def test_recipe_decides_which_network_makes_a_pass():
    model = pretrainer("byol", "ssql_no_aux")
    assert model.online_passes == (Pass(1, "q"), Pass(2, "q"))
    assert model.target_passes == (Pass(1, "fp"), Pass(2, "fp"))
    assert pretrainer("simclr", "ssql_no_aux").online_passes == RECIPES["ssql_no_aux"].passes


@pytest.mark.parametrize("framework", FRAMEWORKS)
@pytest.mark.parametrize("recipe", ["ssql", "cq_c", "cq_quant", "pact"])
def test_every_framework_trains_with_recipes_of_both_papers(framework, recipe):
    model = pretrainer(framework, recipe)
    before = [v.numpy() for v in model.trainable_variables]
    figures = model.train_step(next(iter(synthetic_batches(recipe, steps=1))))
    assert np.isfinite(figures["loss"])
    for variable, old in zip(model.trainable_variables, before, strict=True):
        # PACT's clipping has a gradient only where something is clipped.
        assert np.any(variable.numpy() != old) or "clipping" in variable.path, variable.path


def test_cosine_momentum_needs_to_know_the_length_of_the_training():
    model = pretrainer("byol", target_momentum_schedule="cosine")
    endless = synthetic_batches().repeat()
    unknown = endless.filter(lambda *views: True)
    with pytest.raises(UserError, match="unknown length.* pass steps_per_epoch"):
        model.fit(unknown, verbose=0)
    model.fit(endless, steps_per_epoch=3, epochs=2, verbose=0)
    assert int(model.total_steps.value) == 6
    model.fit(endless, steps_per_epoch=3, epochs=3, initial_epoch=2, verbose=0)
    assert int(model.total_steps.value) == 9
    model.fit(endless, steps_per_epoch=2, verbose=0)
    assert int(model.total_steps.value) == 11


@pytest.mark.parametrize(
    "setting",
    [{"target_update": "before_target"}, {"target_momentum_schedule": "cosin"},
     {"target_momentum": 1.0}],
)  # fmt: skip
def test_framework_refuses_a_setting_that_it_would_not_follow(setting):
    with pytest.raises(UserError, match="allowed"):
        byol(4, 6, 8, 4, **{"target_momentum": 0.9, **setting})


def test_contrastive_quant_leaves_the_projector_in_float():
    for recipe, kernels in (("cq_c", 0), ("ssql", 2)):
        projector = pretrainer("simclr", recipe).framework.projector
        quantized = [layer for layer in projector.layers if hasattr(layer, "weight_quantizer")]
        assert len(quantized) == kernels


def layers_of(network):
    """Returns the layers of a head in short."""
    short = []
    for layer in network.layers[1:]:
        if isinstance(layer, layers.Dense):
            short.append(f"{layer.units}{'+bias' if layer.use_bias else ''}")
        elif isinstance(layer, layers.BatchNormalization):
            assert layer.scale == layer.center and (layer.momentum, layer.epsilon) == (0.9, 1e-5)
            short.append("norm" if layer.scale else "plain_norm")
        elif isinstance(layer, layers.ReLU):
            short.append("relu")
    return " ".join(short)


# Projector and predictor, 6 the embedding, 8 the projector's hidden width, 4 the predictor's.
HEADS = {
    # SimSiam, Sec. 3.
    "simsiam": ("6 norm relu 6 norm relu 6 plain_norm", "4 norm relu 6+bias"),
    # SimCLR, Sec. 2.1, with the batch norm of its code.
    "simclr": ("8 norm relu 6+bias", None),
    # BYOL, Sec. 3.3.
    "byol": ("8 norm relu 6+bias", "4 norm relu 6+bias"),
    # MoCo v2, Sec. 2: no batch norm.
    "mocov2": ("8+bias relu 6+bias", None),
    # MoCo v3, Sec. 3 and Algorithm 1.
    "mocov3": ("8 norm relu 8 norm relu 6 plain_norm", "4 norm relu 6 plain_norm"),
}


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_heads_are_those_of_the_papers(framework):
    built = pretrainer(framework, "float").framework
    projector, predictor = HEADS[framework]
    assert layers_of(built.projector) == projector
    assert (built.predictor and layers_of(built.predictor)) == predictor


def test_settings_are_those_of_the_papers():
    # SimSiam, Sec. 3; SimCLR, Sec. 4.2 and Appendix B; BYOL, Sec. 3.3; MoCo, Sec. 3.3, and MoCo v2,
    # Table 1; MoCo v3, Sec. 4.
    papers = {
        "simsiam": {"projection_width": 2048, "predictor_width": 512},
        "simclr": {"projection_width": 128, "projection_hidden": 2048, "temperature": 0.5},
        "byol": {
            "projection_width": 256, "projection_hidden": 4096, "predictor_width": 4096,
            "target_momentum": 0.996, "target_momentum_schedule": "cosine",
            "regression_loss": "normalized_mse", "target_update": "after_step",
        },
        "mocov2": {
            "projection_width": 128, "projection_hidden": 2048, "temperature": 0.2,
            "queue_size": 65536, "target_momentum": 0.999, "target_momentum_schedule": "constant",
            "target_update": "after_step",
        },
        "mocov3": {
            "projection_width": 256, "projection_hidden": 4096, "predictor_width": 4096,
            "temperature": 0.2, "target_momentum": 0.99, "target_momentum_schedule": "cosine",
            "target_update": "after_step",
        },
    }  # fmt: skip
    assert FRAMEWORK_SETTINGS.keys() == papers.keys()
    for framework, settings in papers.items():
        assert FRAMEWORK_SETTINGS[framework].items() >= settings.items()


def test_settings_of_another_framework_are_refused():
    with pytest.raises(UserError, match="temperature has no effect with framework 'simsiam'"):
        Pretrainer(backbone(), "simsiam", temperature=0.1)
    with pytest.raises(UserError, match="projection_width has no effect"):
        Pretrainer(backbone(), simclr(6, 4, 4), projection_width=3)


def test_heads_of_the_user_make_a_framework():
    class Mine(Framework):
        def compare(self, predictions, targets, mutual=False):
            return tf.reduce_mean(tf.square(predictions - tf.stop_gradient(targets)))

    projector = multi_layer_perceptron(6, (5,), last_norm=True, name="projector")
    model = Pretrainer(backbone(), Mine(projector))
    model.compile(run_eagerly=True)
    assert np.isfinite(model.fit(synthetic_batches(), verbose=0).history["loss"]).all()
    wrong = multi_layer_perceptron(5, (4,), last_norm=False, name="predictor")
    with pytest.raises(UserError, match="Predictor returns shape"):
        Mine(projector, wrong)


def test_shuffled_images_come_back_as_targets_of_their_own(monkeypatch):
    one, two = next(iter(synthetic_batches()))
    bits, seeds = tf.zeros([0, 2], tf.int32), []
    plain, shuffling = (
        pretrainer("mocov3", "float", shuffle_keys=shuffle) for shuffle in (False, True)
    )
    monkeypatch.setattr(
        "tfcq.pretraining.pretrainer.shuffled",
        lambda rows, seed: seeds.append(seed.numpy().tolist()) or shuffled(rows, seed),
    )
    for _ in range(2):
        expected, found = (
            model.momentum_targets({1: one, 2: two}, bits) for model in (plain, shuffling)
        )
        for name, targets in expected.items():
            np.testing.assert_allclose(found[name], targets, rtol=1e-4, atol=1e-5)
        shuffling.step.assign_add(1)
    # Each view of each step; on one replica the order makes no difference but to that.
    assert len(seeds) == 4 and seeds[0] == seeds[1] != seeds[2]


def test_shuffling_is_refused_without_a_momentum_network():
    with pytest.raises(UserError, match="shuffle_keys has no effect"):
        Pretrainer(backbone(), "simclr", shuffle_keys=True)
