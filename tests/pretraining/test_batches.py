"""What `fit` takes: views, or images in whatever form, of which it makes views."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from tfcq.data.user_images import two_views
from tfcq.errors import UserError
from tfcq.pretraining.batches import batches_of
from tfcq.pretraining.pretrainer import Pretrainer
from tfcq.settings.recipes import recipe_named

PIXELS = np.random.default_rng(0).integers(0, 256, (24, 6, 6, 3), np.uint8)
LABELS = np.arange(24) % 3
FLOATS = PIXELS.astype(np.float32) / 255
slices = tf.data.Dataset.from_tensor_slices


def tiny(*first: layers.Layer, **options) -> Pretrainer:
    keras.utils.set_random_seed(1)
    backbone = keras.Sequential(
        [keras.Input((6, 6, 3)), *first, layers.Conv2D(4, 3, activation="relu", name="stem"),
         layers.Conv2D(4, 3, name="second"), layers.GlobalAveragePooling2D()]
    )  # fmt: skip
    options.setdefault("recipe", "float")
    heads = {} if options.get("framework", "simsiam") != "simsiam" else {"predictor_width": 4}
    model = Pretrainer(backbone, projection_width=4, **heads, **options)
    model.compile(run_eagerly=True)
    return model


def trained(data, *arguments, recipe="float", **further):
    """Returns steps, images and weights after an epoch."""
    model = tiny(recipe=recipe)
    model.fit(data, *arguments, verbose=0, **further)
    return int(model.step.value), model.images_seen, model.backbone.get_weights()


@pytest.mark.parametrize(
    ("data", "further"),
    [
        (PIXELS, {"batch_size": 8}),
        (FLOATS, {"batch_size": 8}),
        (FLOATS.astype(np.float64), {"y": LABELS, "batch_size": 8}),
        (slices(PIXELS), {"batch_size": 8}),
        (slices((FLOATS, LABELS)).batch(8), {}),
        (slices({"picture": PIXELS, "id": LABELS}).batch(8), {}),
    ],
)
def test_single_images_train_as_two_views_of_them(data, further):
    steps, images, weights = trained(data, **further)
    assert (steps, images) == (3, 24)
    _, _, expected = trained(two_views(PIXELS, 8), steps_per_epoch=3)
    for ours, theirs in zip(weights, expected, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-5)


def test_views_have_the_size_that_the_backbone_takes():
    large = np.kron(PIXELS, np.ones((1, 2, 2, 1), np.uint8))
    assert trained(large, batch_size=8)[:2] == trained(large.tolist(), batch_size=8)[:2] == (3, 24)


def test_recipe_of_the_image_itself_takes_single_images():
    for data in (PIXELS, slices((FLOATS, LABELS))):
        steps, images, _ = trained(data, batch_size=8, recipe="cq_quant")
        assert (steps, images) == (3, 24)


@pytest.mark.parametrize(
    "data",
    [
        slices((FLOATS, FLOATS[::-1])).batch(8),
        slices((PIXELS, PIXELS[::-1])).batch(8),
        slices(((FLOATS, FLOATS[::-1]), LABELS)).batch(8),
        slices({"a": FLOATS, "b": FLOATS[::-1]}).batch(8),
    ],
    ids=["floats", "pixels", "labelled", "named"],
)
def test_views_are_taken_as_they_are(data):
    steps, images, weights = trained(data)
    assert (steps, images) == (3, 24)
    _, _, expected = trained(slices((FLOATS, FLOATS[::-1])).batch(8))
    for ours, theirs in zip(weights, expected, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-6)


@pytest.mark.parametrize(
    "data", [(FLOATS, FLOATS), [FLOATS, FLOATS], slices((FLOATS, FLOATS))], ids=type
)
def test_arrays_and_single_pairs_are_put_in_batches(data):
    assert trained(data, batch_size=8)[:2] == (3, 24)


def test_second_array_of_images_is_the_second_view():
    assert trained(FLOATS, FLOATS, 8)[:2] == (3, 24)


def test_generators_are_left_to_keras_and_their_labels_unused():
    def pairs():
        for _ in range(3):
            yield (FLOATS[:8], FLOATS[8:16]), LABELS[:8]

    assert trained(pairs(), steps_per_epoch=3, shuffle=False)[:2] == (3, 24)


def test_bytes_of_a_generator_are_pixels_and_what_is_none_is_refused():
    def pairs(views):
        for _ in range(3):
            yield (views[:8], views[8:16])

    weights = [trained(pairs(views), steps_per_epoch=3)[2] for views in (PIXELS, FLOATS)]
    for ours, theirs in zip(*weights, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-5)

    class Views(keras.utils.PyDataset):
        def __len__(self):
            return 3

        def __getitem__(self, index):
            return 255 * FLOATS[:8], 255 * FLOATS[8:16]

    for data in (Views(), pairs(255 * FLOATS)):
        with pytest.raises(UserError, match="values from 0 to 255; allowed: 0 to 1"):
            trained(data, steps_per_epoch=3)


def test_arrays_of_views_follow_the_seed_and_the_epoch_in_whole_batches():
    def rows(first_epoch=0, epoch_steps=None):
        look = lambda *batch: None  # noqa: E731
        recipe = recipe_named("float")
        numbered = np.zeros((25, 6, 6, 3), np.float32) + np.arange(25)[:, None, None, None] / 25
        batches, steps = batches_of(
            (numbered, numbered), None, recipe, 10, 3, first_epoch, (None, 6, 6, 3), "0-1", look,
            epoch_steps,
        )  # fmt: skip
        assert steps == 2
        taken = [(one[:, 0, 0, 0], other[:, 0, 0, 0]) for one, other in batches.take(4)]
        assert all(np.array_equal(one, other) for one, other in taken)
        return [np.round(25 * one.numpy()).astype(int).tolist() for one, _ in taken]

    found = rows()
    assert [len(batch) for batch in found] == [10] * 4 and len({*found[0], *found[1]}) == 20
    keras.utils.set_random_seed(7)
    assert rows() == found != rows(first_epoch=1)
    assert rows(first_epoch=1)[:2] == found[2:]
    assert rows(first_epoch=3, epoch_steps=1)[:1] == found[3:]


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (slices((255 * FLOATS, 255 * FLOATS)).batch(8), "values from 0 to 255; allowed: 0 to 1"),
        (255 * FLOATS, "float32 images with values from 0 to 255; allowed: floats from 0 to 1"),
        (slices((FLOATS, FLOATS)).batch(1), "a batch of 1 image; allowed: 2 and above"),
        (slices((FLOATS, FLOATS, FLOATS)).batch(8), "of which 3 are images; allowed for recipe 'f"),
        (
            LABELS,
            "of which 0 are images; allowed for recipe .float.: .view 1, view 2.*make views of",
        ),
        ("pictures", "fit.. received 'pictures'"),
        (None, "fit.. received None"),
        (PIXELS.transpose(0, 3, 1, 2), "of which 0 are images"),
        (PIXELS[..., :1], r"views of shape .6, 6, 1.; allowed for this backbone: .6, 6, 3."),
        (slices((FLOATS[:, 1:, 1:], FLOATS[:, 1:, 1:])).batch(8), "views of shape .5, 5, 3."),
    ],
)
def test_what_cannot_be_trained_on_is_named_before_the_first_step(data, text):
    model = tiny()
    with pytest.raises(UserError, match=text) as caught:
        model.fit(data, verbose=0)
    assert "\n" not in str(caught.value) and int(model.step.value) == 0


@pytest.mark.parametrize(
    "first", [layers.Rescaling(1 / 255), layers.Normalization(mean=127.0, variance=60.0**2)]
)
def test_backbone_that_takes_pixels_is_given_them(first):
    model = tiny(first)
    model.fit(slices((255 * FLOATS, 255 * FLOATS)).batch(8), verbose=0)
    assert int(model.step.value) == 3


@pytest.mark.parametrize("data", [PIXELS, FLOATS, slices((PIXELS, PIXELS)).batch(8)])
def test_images_and_bytes_become_the_pixels_that_a_backbone_takes(data):
    options = {} if isinstance(data, tf.data.Dataset) else {"batch_size": 8}
    plain, scaling = tiny(), tiny(layers.Rescaling(1 / 255))
    for model in (plain, scaling):
        model.fit(data, verbose=0, **options)
    for ours, theirs in zip(
        scaling.backbone.get_weights(), plain.backbone.get_weights(), strict=True
    ):
        np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-5)


def test_views_far_darker_than_the_pixels_that_a_backbone_takes_are_refused():
    model = tiny(layers.Rescaling(1 / 127.5, -1))
    with pytest.raises(UserError, match=r"from 0 to 1, and .* 0 to 255; allowed: views \* 255"):
        model.fit(slices((FLOATS, FLOATS)).batch(8), verbose=0)


def test_queue_that_a_batch_of_unknown_size_does_not_fit_into_is_told_before_the_first_step():
    options = {"framework": "mocov2", "queue_size": 20}
    pairs = slices((FLOATS, FLOATS)).batch(12)
    assert pairs.element_spec[0].shape[0] is None
    model = tiny(**options)
    with pytest.raises(UserError, match="makes 24 keys, the queue holds 20; allowed.* 24 and abov"):
        model.fit(pairs, verbose=0)
    assert int(model.step.value) == 0
    model.fit(slices((FLOATS, FLOATS)).batch(10), verbose=0)


def test_what_reading_images_tells_is_one_line_here_too():
    def read(number):
        raise UserError("1 of 24 image files can be read no more.")

    views = slices(np.arange(24)).map(
        lambda i: tf.ensure_shape(tf.numpy_function(read, [i], tf.float32), (6, 6, 3))
    )
    with pytest.raises(UserError, match="^1 of 24 image files can be read no more.$"):
        tiny().fit(tf.data.Dataset.zip(views, views).batch(8), verbose=0)
