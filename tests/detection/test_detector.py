"""What detectors share: graphs for all sizes and bit-widths, and what their parts read."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import tfcq
from tfcq.detection.detector import Detector
from tfcq.detection.quantized import post_training
from tfcq.detection.suppression import Kept
from tfcq.detection.thinning import REGIONS
from tfcq.errors import UserError
from tfcq.post_training.plan import Plan
from tfcq.quantization.precision import Precision
from tfcq.settings.bitwidths import FLOAT, BitWidth

SIZES = [(2, 8, 12), (3, 16, 8), (2, 24, 20)]
BITS = [BitWidth(bits, 11 - bits) for bits in range(2, 10)]


class Brightness(Detector):
    """Finds one box an image, of the mean of its cells; each cell is a region."""

    LOSSES = ("brightness",)
    READ_REGIONS = ("head",)
    # Whether a pass was traced, or run, in float.
    passes: list = []

    def find(self, images, sizes, precision=None):
        self.passes.append(precision is None)
        features = self.run("network", images, precision, False)
        regions = tf.reshape(features, [-1, 1, 1, features.shape[-1]])
        cells = tf.reshape(self.run("head", regions, precision, False), [tf.shape(images)[0], -1])
        mean = tf.reduce_mean(cells, axis=1)[:, tf.newaxis]
        boxes = tf.stack([mean, mean, mean + 1, mean + 1], axis=-1)
        return Kept(boxes, mean, tf.zeros(tf.shape(mean), tf.int32))

    def losses_of(self, batch, precision, seed):
        self.passes.append(precision is None)
        features = self.run("network", batch["images"], precision, True)
        return {"brightness": tf.reduce_mean(self.run("head", features, precision, True))}

    def with_parts(self, parts):
        return Brightness(parts, self.class_count, self.stride)


def part(channels, name, least=1.0, **options):
    inputs = keras.Input((None, None, channels))
    kernel = keras.initializers.RandomUniform(least, 1.0, seed=0)
    x = keras.layers.Conv2D(2, 1, activation="relu", kernel_initializer=kernel)(inputs)
    return tfcq.quantizable(keras.Model(inputs, x, name=name), "uniform", **options)


@pytest.fixture
def detector(monkeypatch):
    monkeypatch.setattr(Brightness, "passes", [])
    parts = {"network": part(1, "network"), "head": part(2, "head", 0.2, reads_images=False)}
    return Brightness(parts, 1, 4)


@pytest.fixture(scope="module")
def batches():
    """Batches of several sizes, as `plain_batches` yields them."""
    draws = np.random.default_rng(0)
    return [
        {
            "images": tf.constant(draws.uniform(0, 1, (count, *size, 1)), tf.float32),
            "sizes": tf.constant([size] * count), "scales": tf.ones((count, 2)),
        }
        for count, *size in SIZES
    ]  # fmt: skip


def test_a_sweep_traces_once_in_float_and_once_quantized(detector, batches, caplog):
    at = post_training(detector, batches[:1], Plan())
    del detector.passes[:]
    found = {}
    for bits in [FLOAT, *BITS, FLOAT]:
        chosen = at(bits)
        assert chosen is detector
        found[bits] = list(chosen.found(batches, bits))
    assert sorted(detector.passes) == [False, True]
    assert "retracing" not in caplog.text
    for bits, several in found.items():
        precision = None if bits.is_float else Precision(*bits.pair)
        expected = [
            score for one in batches
            for score in detector.find(one["images"], one["sizes"], precision).scores.numpy()
        ]  # fmt: skip
        np.testing.assert_allclose([one.scores for one in several], expected, rtol=1e-5)
    assert len({tuple(np.concatenate([o.scores for o in v])) for v in found.values()}) == 9


def test_networks_of_their_own_are_another_detector(detector, batches):
    at = post_training(detector, batches[:1], Plan(weight_scales="mse"))
    assert at(BITS[0]) is not detector
    at = post_training(detector, batches[:1], Plan(calibration="percentile"))
    assert at(BITS[0]) is at(BITS[1]) is detector


def test_training_on_several_sizes_traces_once(detector, batches):
    detector.compile(keras.optimizers.SGD(0.1))
    images = tf.data.Dataset.from_generator(
        lambda: iter([{"images": one["images"]} for one in batches]),
        output_signature={"images": tf.TensorSpec([None, None, None, 1])},
    )
    detector.fit(images.repeat(), steps_per_epoch=6, epochs=2, shuffle=False, verbose=0)
    assert detector.passes == [True] and int(detector.steps_done) == 12


def test_images_are_kept_all_and_of_regions_so_many_of_all_batches(detector, batches):
    one = batches[2]
    several = [{**one, "images": one["images"] + number} for number in range(3)]
    read = detector.inputs_of_parts(several)
    assert {name: len(found) for name, found in read.items()} == {"network": 1, "head": 1}
    np.testing.assert_array_equal(
        read["network"][0], np.concatenate([batch["images"] for batch in several])
    )
    regions = read["head"][0]
    assert regions.shape == (REGIONS, 1, 1, 2)
    # What the first network makes of images tells of which batch a region is.
    np.testing.assert_allclose(
        np.bincount(regions[:, 0, 0, 0].astype(int)), [REGIONS / 3] * 3, rtol=0.2
    )
    again = detector.inputs_of_parts(several)["head"][0]
    np.testing.assert_array_equal(regions, again)


def test_ranges_need_batches_of_one_shape(detector, batches):
    with pytest.raises(UserError, match=r"\(8, 12, 1\) and \(16, 8, 1\); allowed for ranges: one"):
        detector.inputs_of_parts(batches)
