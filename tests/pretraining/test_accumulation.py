"""A batch in parts is one update."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from tfcq.errors import UserError
from tfcq.pretraining.accumulation import check_accumulation, check_parts
from tfcq.pretraining.pretrainer import Pretrainer


def trained(accumulate, graph, steps=2):
    """Returns a model whose networks see each image alone, after some steps."""
    keras.utils.set_random_seed(1)
    backbone = keras.Sequential(
        [
            keras.Input((6, 6, 1)),
            layers.Conv2D(6, 3, name="stem", activation="relu"),
            layers.GlobalAveragePooling2D(name="features"),
        ]
    )
    model = Pretrainer(
        backbone, "mocov2", "float", accumulate=accumulate, projection_width=5, queue_size=24
    )
    model.compile(keras.optimizers.SGD(0.5, momentum=0.9), run_eagerly=not graph)
    # Each image a square of its own; its second view is darker.
    squares = np.kron(np.eye(9)[np.arange(8 * steps) % 9].reshape(-1, 3, 3, 1), np.ones((2, 2, 1)))
    views = [(light * squares).astype(np.float32) for light in (4, 3)]
    batches = tf.data.Dataset.from_tensor_slices(tuple(views)).batch(8, drop_remainder=True)
    history = model.fit(batches, verbose=0).history
    return model, history


def test_parts_give_the_update_the_queue_and_the_figures_of_the_whole_batch():
    (whole, figures), (parts, found) = trained(1, graph=False), trained(4, graph=True)
    assert int(parts.step.numpy()) == int(parts.optimizer.iterations.numpy()) == 2
    np.testing.assert_allclose(found["loss"], figures["loss"], rtol=1e-5)
    for one, other in zip(parts.variables, whole.variables, strict=True):
        # Their spread is that of each part.
        if one.dtype == "float32" and "feature" not in one.path:
            np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-6, err_msg=one.path)


@pytest.mark.parametrize("images", [6, 4])
def test_a_batch_that_does_not_fall_into_parts_is_refused_with_the_nearest(images):
    with pytest.raises(UserError, match=f"{images} images in 4 parts .* The nearest is 8"):
        check_parts(images, 4)


def test_no_part_is_refused():
    with pytest.raises(UserError, match="accumulate=0; allowed: 1 and above"):
        trained(0, graph=False)


def test_several_replicas_are_refused():
    with pytest.raises(UserError, match="accumulate=2 over 4 replicas; allowed: on one device"):
        check_accumulation(2, 4)
