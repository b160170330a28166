"""What each pass of a step is made with."""

import pytest
import tensorflow as tf

from tfcq.pretraining.bit_schedules import BitSchedule
from tfcq.pretraining.passes import make_passes
from tfcq.quantization.precision import Precision, RecordRanges
from tfcq.settings.recipes import parse_recipe

VIEWS = {1: "view 1", 2: "view 2"}


def precisions(text: str, step: int = 0, seed: int = 0):
    """Returns what the network received in each pass, in order: by pass, images and precision."""
    recipe, received = parse_recipe(text), []
    bits = {name: tf.constant([k + 2, k + 4]) for k, name in enumerate(recipe.draws)}
    make_passes(
        lambda images, precision: received.append((images, precision)),
        recipe.passes,
        VIEWS,
        bits,
        BitSchedule(seed=seed).rounding_seed(tf.constant(step, tf.int64)),
    )
    return dict(zip(map(str, recipe.passes), received, strict=True))


ALL = "v1@fp->v2@fp, v1@q1->v2@q2, v2@q1->v1@q2"


def test_each_pass_sees_its_view_at_the_bits_of_its_draw():
    for name, (images, precision) in precisions(ALL).items():
        assert images == f"view {name[1]}"
        if isinstance(precision, Precision):
            drawn = {"q1": (2, 4), "q2": (3, 5)}[name.partition("@")[2]]
            assert (int(precision.weight_bits), int(precision.activation_bits)) == drawn
        else:
            assert name.endswith("@fp")


def test_weights_are_quantized_once_a_draw():
    shared = {name: id(p.shared) for name, (_, p) in precisions(ALL).items() if "@q" in name}
    assert shared["v1@q1"] == shared["v2@q1"] != shared["v1@q2"] == shared["v2@q2"]


def test_every_quantized_pass_of_every_step_has_rounding_noise_of_its_own():
    seeds = [
        tuple(precision.seed.numpy().tolist())
        for seed in (0, 1)
        for step in range(5)
        for _, precision in precisions(ALL, step, seed).values()
        if isinstance(precision, Precision)
    ]
    assert len(set(seeds)) == len(seeds) == 2 * 5 * 4


@pytest.mark.parametrize(
    ("text", "recording", "ranges"),
    [(ALL, [True, False], {"recorded"}), ("v1@fp->v2@fp", [None, None], set()),
     ("v1@q1->v2@q2", [], {"tensor"})],
)  # fmt: skip
def test_float_passes_record_the_ranges_of_the_quantized_ones(text, recording, ranges):
    received = precisions(text)
    floats = [precision for name, (_, precision) in received.items() if name.endswith("@fp")]
    assert [p and isinstance(p, RecordRanges) and p.reset for p in floats] == recording
    assert {p.ranges for n, (_, p) in received.items() if not n.endswith("@fp")} == ranges
