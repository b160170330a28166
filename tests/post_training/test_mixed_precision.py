"""Sensitivities are those of the float pass, and the budget holds."""

import itertools

import numpy as np
import pytest

from tests.post_training.networks import quantizable_network, residual_network, small_images
from tfcq.errors import UserError
from tfcq.nn.quantizable import quantizable
from tfcq.post_training.mixed_precision import (
    allocate,
    kernel_sizes,
    scan_sensitivities,
)
from tfcq.quantization.precision import Precision
from tfcq.settings.policies import PAPER, Policy

SIZES = {"stem": 36, "first": 144, "second": 144, "classifier": 12}


def test_sizes_are_the_kernels():
    assert kernel_sizes(quantizable_network()) == SIZES


def test_sensitivity_is_the_error_of_a_network_with_one_quantized_layer():
    images, model = small_images(12), quantizable_network(PAPER)
    before = [w.numpy() for w in model.weights]
    found = scan_sensitivities(model, images, (8, 2), batch_size=5)
    expected = model(images).numpy()
    for name in SIZES:
        policy = Policy("one", overrides=((name, "2w"), ("*", "fp")))
        alone = quantizable(residual_network(), policy)
        outputs = alone(images, precision=Precision(4, 4)).numpy()
        share = np.sum((outputs - expected) ** 2) / np.sum(expected**2)
        np.testing.assert_allclose(found[name][2], share, rtol=1e-3)
        assert 0 < found[name][8] < 0.1 * found[name][2]
    for kept, weight in zip(before, model.weights, strict=True):
        np.testing.assert_array_equal(kept, weight)


def cost(bits, sizes):
    return sum(bits[name] * size for name, size in sizes.items())


def test_allocation_is_the_best_where_sensitivities_are_convex():
    sizes = dict.fromkeys("abcd", 10)
    table = {
        name: {bits: weight * 4.0**-bits for bits in (2, 3, 4, 5)}
        for name, weight in zip("abcd", (1, 30, 5, 300), strict=True)
    }
    for budget in range(80, 201, 10):
        found = allocate(table, sizes, budget)
        assert cost(found, sizes) <= budget
        best = min(
            sum(table[n][b] for n, b in zip(sizes, choice, strict=True))
            for choice in itertools.product((2, 3, 4, 5), repeat=4)
            if cost(dict(zip(sizes, choice, strict=True)), sizes) <= budget
        )
        assert sum(table[n][b] for n, b in found.items()) == pytest.approx(best)


def test_allocation_skips_a_step_that_gains_nothing_and_one_that_does_not_fit():
    table = {"small": {2: 1.0, 3: 1.0, 4: 0.1}, "large": {2: 9.0, 3: 0.0, 4: 0.0}}
    sizes = {"small": 1, "large": 100}
    assert allocate(table, sizes, 299) == {"small": 4, "large": 2}
    assert allocate(table, sizes, 304) == {"small": 4, "large": 3}


def test_budgets_names_and_candidates_that_cannot_be_used_are_refused():
    table, sizes = {"a": {2: 1.0, 4: 0.0}}, {"a": 10}
    with pytest.raises(UserError, match="The nearest is 20"):
        allocate(table, sizes, 19)
    with pytest.raises(UserError, match="Layer 'b' stands in one"):
        allocate(table, {"a": 10, "b": 1}, 100)
    model = quantizable_network()
    with pytest.raises(UserError, match="each once"):
        scan_sensitivities(model, small_images(2), (4, 4))
    with pytest.raises(UserError, match="scales of its own"):
        scan_sensitivities(quantizable_network(PAPER.with_quantizers("lsq", None)), small_images(2))
