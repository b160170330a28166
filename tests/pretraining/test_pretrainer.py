"""The Pretrainer: one step, one trace, and what stops it."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from tfcq.errors import TrainingStopped, UserError
from tfcq.nn.quantizable import quantizable
from tfcq.pretraining import losses
from tfcq.pretraining.bit_schedules import BitSchedule
from tfcq.pretraining.pretrainer import Pretrainer
from tfcq.settings.policies import LayerBits, Policy
from tfcq.settings.recipes import RECIPES, Pass

SHAPE = (8, 8, 1)
BATCH = 16


def tiny_backbone():
    return keras.Sequential(
        [
            keras.Input(SHAPE),
            layers.Conv2D(6, 3, use_bias=False, name="stem"),
            layers.BatchNormalization(name="stem_norm"),
            layers.ReLU(name="stem_relu"),
            layers.Conv2D(8, 3, strides=2, name="second"),
            layers.ReLU(name="second_relu"),
            layers.GlobalAveragePooling2D(name="features"),
        ],
        name="tiny",
    )


def tiny(kind=Pretrainer, backbone=None, optimizer=None, graph=False, **options):
    """Returns a compiled model; eager unless told otherwise, since tracing takes seconds."""
    # With some seeds nearly every filter of so small a network is dead from the start.
    keras.utils.set_random_seed(1)
    model = kind(backbone or tiny_backbone(), projection_width=12, predictor_width=6, **options)
    optimizer = optimizer or keras.optimizers.SGD(0.05, momentum=0.9)
    model.compile(optimizer, run_eagerly=not graph)
    return model


def synthetic_views(batches=1, seed=0):
    """Two noisy views of synthetic images: bars at random places."""
    random = np.random.default_rng(seed)
    images = np.zeros((batches * BATCH, *SHAPE), np.float32)
    for image in images:
        image[random.integers(8), :, 0] = 1
        image[:, random.integers(8), 0] += random.random()
    views = [images + 0.1 * random.normal(size=images.shape).astype(np.float32) for _ in range(2)]
    return tf.data.Dataset.from_tensor_slices(tuple(views)).batch(BATCH, drop_remainder=True)


class Counting(Pretrainer):
    """Counts how often its step is traced, and keeps the bits of each step."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.traces = []

    def train_step(self, data):
        self.traces.append(1)
        return super().train_step(data)


class KeepBits(keras.callbacks.Callback):
    def __init__(self):
        super().__init__()
        self.kept = []

    def on_train_batch_end(self, batch, logs=None):
        self.kept.append(self.model.bits.numpy())


def test_one_trace_for_50_steps_of_bits_that_seed_and_step_decide():
    model = tiny(Counting, graph=True, seed=3)
    keep = KeepBits()
    model.fit(synthetic_views().repeat(), steps_per_epoch=25, epochs=2, verbose=0, callbacks=[keep])
    assert len(model.traces) == 1
    assert int(model.step.value) == len(keep.kept) == 50
    schedule = BitSchedule("2-8", "4-8", seed=3)
    expected = [schedule.draw(tf.constant(step, tf.int64), 1).numpy() for step in range(50)]
    np.testing.assert_array_equal(keep.kept, expected)
    weights, activations = np.transpose(np.array(keep.kept)[:, 0])
    assert set(weights) <= set(range(2, 9)) and len(set(weights)) > 3
    assert set(activations) <= set(range(4, 9)) and len(set(activations)) > 3


@pytest.fixture(scope="module")
def views():
    one, two = next(iter(synthetic_views()))
    return {0: one, 1: one, 2: two}


@pytest.mark.parametrize("recipe", RECIPES)
def test_loss_of_a_recipe_equals_explicit_comparisons(recipe, views):
    model = tiny(recipe=recipe)
    pairs, draws = RECIPES[recipe].pairs, RECIPES[recipe].draws
    bits = tf.constant([[4, 5], [6, 7]][: len(draws)], tf.int32, shape=(len(draws), 2))
    embeddings, predictions = model.embed(views, bits, training=False)
    terms = [
        float(losses.negative_cosine(predictions[pair.prediction], embeddings[pair.target]))
        for pair in pairs
    ]
    loss = model.recipe_loss(predictions, embeddings)
    np.testing.assert_allclose(loss, np.mean(terms), rtol=1e-5)
    assert set(embeddings) == set(RECIPES[recipe].passes)
    assert set(predictions) == {pair.prediction for pair in pairs}


def test_loss_reduction_sum_is_what_the_papers_write(views):
    bits = tf.constant([[4, 5]])
    embeddings, predictions = tiny().embed(views, bits, training=False)
    mean, total = (
        float(tiny(loss_reduction=reduction).recipe_loss(predictions, embeddings))
        for reduction in ("mean", "sum")
    )
    np.testing.assert_allclose(total, 4 * mean, rtol=1e-6)


def test_weights_of_pairs_weigh(views):
    model = tiny(recipe="3*v1@fp->v2@fp, v2@fp->v1@fp")
    embeddings, predictions = model.embed(views, tf.zeros([0, 2], tf.int32), training=False)
    one, two = (
        float(losses.negative_cosine(predictions[Pass(v, "fp")], embeddings[Pass(3 - v, "fp")]))
        for v in (1, 2)
    )
    loss = model.recipe_loss(predictions, embeddings)
    np.testing.assert_allclose(loss, (3 * one + two) / 4, rtol=1e-6)


def test_recipe_without_float_passes_takes_ranges_from_the_tensors(views):
    model = tiny(recipe="v1@q1->v2@q2, v2@q2->v1@q1")
    bits = tf.constant([[2, 4], [8, 8]])
    embeddings, _ = model.embed(views, bits, training=False)
    assert set(map(str, embeddings)) == {"v1@q1", "v2@q2"}
    assert all(np.all(np.isfinite(z)) for z in embeddings.values())


def test_ranges_start_anew_with_each_step_and_span_both_views(views):
    model = tiny()
    quantizer = model.backbone.get_layer("stem_relu_quantizer")
    upto = keras.Model(model.backbone.input, quantizer.input)
    bits = tf.constant([[8, 8]])
    model.embed({view: 100 * images for view, images in views.items()}, bits, training=False)
    model.embed(views, bits, training=False)
    seen = np.stack([upto(views[view], training=False) for view in (1, 2)])
    assert float(quantizer.minimum.value) == seen.min()
    assert float(quantizer.maximum.value) == seen.max()


def test_training_lowers_the_loss_on_synthetic_images():
    model = tiny(graph=True, optimizer=keras.optimizers.SGD(0.2, momentum=0.9))
    history = model.fit(
        synthetic_views(4).repeat(), steps_per_epoch=20, epochs=4, verbose=0
    ).history
    assert history["loss"][-1] < min(history["loss"][0] - 0.1, -0.9)
    assert all(-1 <= loss <= 1 for loss in history["loss"])


def test_history_carries_the_figures_of_the_run():
    rate = keras.optimizers.schedules.PiecewiseConstantDecay([2], [0.5, 0.25])
    model = tiny(optimizer=keras.optimizers.SGD(rate), weight_bits="4", activation_bits="8")
    history = model.fit(synthetic_views(2), epochs=2, verbose=0).history
    assert set(history) == {
        "loss", "feature_std_ratio", "cosine_float_quantized", "weight_bits", "activation_bits",
        "learning_rate", "images_per_second",
    }  # fmt: skip
    assert history["weight_bits"] == [4, 4]
    assert history["activation_bits"] == [8, 8]
    # The rate that the epoch's last step was made with: steps 1 and 3, counted from 0.
    assert history["learning_rate"] == [0.5, 0.25]
    assert all(0 < ratio < 1.2 for ratio in history["feature_std_ratio"])
    assert all(0.5 < cosine <= 1 for cosine in history["cosine_float_quantized"])
    float_history = tiny(recipe="float").fit(synthetic_views(2), verbose=0).history
    assert set(float_history) == {"loss", "feature_std_ratio", "learning_rate", "images_per_second"}


def test_nan_images_stop_training_with_an_explanation():
    bad = synthetic_views().map(lambda a, b: (a * np.nan, b))
    with pytest.raises(TrainingStopped, match="loss became nan at step 1"):
        tiny(recipe="float").fit(bad, verbose=0)


def test_nan_images_stop_quantized_training_with_an_explanation():
    bad = synthetic_views().map(lambda a, b: (a * np.nan, b))
    with pytest.raises(TrainingStopped, match="NaN"):
        tiny(recipe="ssql").fit(bad, verbose=0)


@pytest.mark.parametrize("recipe", ["float", "ssql"])
def test_constant_images_stop_training_as_collapsed(recipe):
    constant = synthetic_views().map(lambda a, b: (tf.ones_like(a), tf.ones_like(b)))
    with pytest.raises(TrainingStopped, match="Features collapsed in epoch 1"):
        tiny(recipe=recipe).fit(constant.repeat(3), epochs=2, verbose=0)


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_mixed_precision_trains(policy, dtype_policy):
    dtype_policy(policy)
    history = tiny().fit(synthetic_views().repeat(2), verbose=0).history
    assert np.isfinite(history["loss"]).all()


def test_stochastic_rounding_trains():
    policy = Policy("stochastic", rounding="stochastic")
    history = tiny(policy=policy).fit(synthetic_views().repeat(2), verbose=0).history
    assert np.isfinite(history["loss"]).all()


def test_quantizable_backbone_is_taken_as_it_is():
    from tfcq.nn.quantizable import quantizable

    backbone = quantizable(tiny_backbone(), "uniform")
    assert tiny(backbone=backbone).backbone is backbone


def test_data_that_are_not_two_views_are_refused():
    three = synthetic_views().map(lambda a, b: (a, b, a))
    with pytest.raises(UserError, match="allowed for recipe 'ssql': \\(view 1, view 2\\)"):
        tiny().fit(three, verbose=0)
    unequal = synthetic_views().map(lambda a, b: (a, b[:, :4]))
    with pytest.raises(UserError, match=r"views of shape \(4, 8, 1\); allowed for this"):
        tiny().fit(unequal, verbose=0)


def test_optimizer_is_sgd_unless_given_and_losses_of_compile_are_refused():
    model = tiny()
    model.compile()
    config = model.optimizer.get_config()
    assert type(model.optimizer) is keras.optimizers.SGD and config["momentum"] == 0.9
    assert config["learning_rate"] == pytest.approx(0.05)
    assert not model.jit_compile
    with pytest.raises(UserError, match="compile\\(\\) received loss"):
        model.compile("sgd", loss="mse")


def test_backbone_must_return_vectors():
    with pytest.raises(UserError, match="Add keras.layers.GlobalAveragePooling2D"):
        Pretrainer(keras.Sequential([keras.Input(SHAPE), layers.Conv2D(2, 3)]))


def test_unknown_framework_names_the_nearest():
    with pytest.raises(UserError, match="Did you mean 'simsiam'"):
        Pretrainer(tiny_backbone(), "simsaim")


def test_weight_regularizers_are_part_of_the_loss():
    losses_of = {}
    for factor in (0.0, 3.0):
        keras.utils.set_random_seed(1)
        backbone = tiny_backbone()
        backbone.get_layer("second").kernel_regularizer = keras.regularizers.L2(factor)
        model = tiny(backbone=backbone)
        kernel = model.backbone.get_layer("second").kernel.numpy()
        logs = model.train_step(next(iter(synthetic_views())))
        losses_of[factor] = float(logs["loss"])
        expected = losses_of[0.0] + factor * np.sum(kernel**2)
        assert losses_of[factor] == pytest.approx(expected, rel=1e-5)


def test_images_of_batches_of_any_size_are_counted():
    model = tiny()
    views = synthetic_views(2).unbatch().batch(BATCH + 8)
    model.fit(views, verbose=0)
    assert model.images_seen == 2 * BATCH


def test_recipes_with_quantizers_of_their_own_refuse_a_backbone_with_others():
    backbone = quantizable(tiny_backbone(), "paper")
    for recipe, kind in (("pact", "dorefa"), ("cq_a", "linear")):
        with pytest.raises(UserError, match=f"quantizes weights by '{kind}'.*float backbone"):
            tiny(backbone=backbone, recipe=recipe)


def test_pairs_that_would_compare_a_pass_with_its_copy_are_refused():
    for recipe in ("cq_quant", "cq_c"):
        with pytest.raises(UserError, match="the same at 8w8a; allowed: two candidates"):
            tiny(recipe=recipe, precision_set="8")
    # The views differ.
    tiny(recipe="cq_a", precision_set="8")


def test_arguments_of_fit_that_need_labels_are_refused_with_what_to_do():
    for given, told in (
        ({"validation_data": synthetic_views()}, "validation_data; .*validate on.*tfcq.evaluate"),
        ({"validation_data": np.zeros((2, 8, 8, 1))}, "validation_data; .*validate on"),
        ({"validation_split": 0.2}, "validation_split; .*validate on"),
        ({"class_weight": {0: 1.0}}, "class_weight; .*no labels to weigh"),
        ({"sample_weight": np.ones(8)}, "sample_weight; .*no labels to weigh"),
    ):
        with pytest.raises(UserError, match=told):
            tiny().fit(synthetic_views(), verbose=0, **given)


def test_backbones_of_several_inputs_or_outputs_are_refused():
    image, other = keras.Input((8, 8, 1)), keras.Input((3,))
    features = layers.GlobalAveragePooling2D()(layers.Conv2D(4, 3)(image))
    both = keras.Model([image, other], layers.Concatenate()([features, other]))
    for backbone, told in (
        (keras.Model(image, [features, layers.Dense(2)(features)]), "1 inputs and 2 outputs"),
        (both, "2 inputs and 1 outputs"),
    ):
        with pytest.raises(UserError, match=f"has {told}; allowed: one of images and one of feat"):
            Pretrainer(backbone)


def test_a_step_that_a_device_has_no_memory_for_is_told_in_one_line(monkeypatch):
    def full(*arguments, **named):
        raise tf.errors.ResourceExhaustedError(None, None, "OOM when allocating\nmore")

    monkeypatch.setattr(keras.Model, "fit", full)
    with pytest.raises(UserError, match="not fit into the memory .*--batch_size.*--accumulate"):
        tiny().fit(synthetic_views(), verbose=0)


def test_schedules_that_begin_anew_with_a_call_of_fit_are_told():
    model = tiny(framework="byol")
    model.fit(synthetic_views(), epochs=2, verbose=0)
    with pytest.warns(UserWarning, match="ended its schedules at step .*set_run_length"):
        model.fit(synthetic_views(), epochs=2, verbose=0)


def test_bits_that_no_layer_draws_are_refused():
    for given in ({"weight_bits": "2-8"}, {"activation_bits": "4-8"}):
        (name,) = given
        with pytest.raises(UserError, match=f"{name}='.-8' has no effect: the policy fixes"):
            tiny(policy=Policy("fixed", default=LayerBits(8, 8)), **given)
    with pytest.raises(UserError, match="activation_bits='4-8' has no effect"):
        tiny(policy="weights_8_bit", activation_bits="4-8")
