"""Few labels: a share of every class, nested, drawn by the seed and the class alone."""

import numpy as np
import pytest

from tfcq.errors import UserError
from tfcq.evaluation.label_subsets import label_subset

# Every class has another size, so that its place tells nothing of it.
SIZES = {0: 1, 1: 3, 2: 15, 4: 38, 5: 101}
LABELS = np.random.default_rng(0).permutation(np.repeat(list(SIZES), list(SIZES.values())))
SHARES = (0.01, 0.1, 0.17, 0.5, 1)


@pytest.mark.parametrize("seed", range(5))
def test_share_of_every_class_is_rounded_and_part_of_every_larger_share(seed):
    smaller = set()
    for share in SHARES:
        chosen = label_subset(LABELS, share, seed)
        assert list(chosen) == sorted(set(chosen.tolist()))
        counts = {label: int(np.sum(LABELS[chosen] == label)) for label in SIZES}
        assert counts == {label: max(1, round(share * size)) for label, size in SIZES.items()}
        assert smaller <= set(chosen)
        smaller = set(chosen)


def test_every_image_of_a_class_is_as_likely_and_other_classes_do_not_matter():
    members = np.flatnonzero(LABELS == 4)
    drawn = np.zeros(len(members))
    for seed in range(400):
        own = label_subset(LABELS[members], 0.5, seed)
        chosen = label_subset(LABELS, 0.5, seed)
        np.testing.assert_array_equal(members[own], chosen[LABELS[chosen] == 4])
        drawn[own] += 1
    # Six standard deviations of a fair draw.
    assert np.abs(drawn / 400 - 0.5).max() < 6 * 0.5 / np.sqrt(400)


def test_shares_outside_their_range_and_no_labels_are_refused():
    for share in (0, -0.1, 1.01):
        with pytest.raises(UserError, match="above 0 to 1"):
            label_subset(LABELS, share)
    with pytest.raises(UserError, match="0 labels"):
        label_subset(LABELS[:0], 0.5)
