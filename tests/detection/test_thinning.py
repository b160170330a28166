"""What is kept of what a network reads."""

import numpy as np

from tfcq.detection.thinning import Thinned, tiles


def thinned(arrays, most, place=0):
    made = Thinned(most, place)
    for array in arrays:
        made.add(array)
    return made.rows()


def test_so_many_rows_are_kept_in_their_order_each_as_likely_as_any_other():
    arrays = np.split(np.arange(60), [1, 21, 21, 50])
    found = [thinned(arrays, 20, place) for place in range(200)]
    np.testing.assert_array_equal(found[7], thinned(arrays, 20, 7))
    assert all(len(rows) == 20 and np.all(np.diff(rows) > 0) for rows in found)
    counts = np.bincount(np.concatenate(found), minlength=60)
    # A third of 200 draws, and four deviations.
    assert np.all(np.abs(counts - 200 / 3) < 4 * np.sqrt(200 * 2 / 9))


def test_all_rows_are_kept_where_there_are_few_or_no_limit():
    arrays = np.split(np.arange(24).reshape(12, 2), [5, 7])
    for most in (None, 12, 13):
        np.testing.assert_array_equal(thinned(arrays, most), np.concatenate(arrays))


def test_what_is_kept_takes_no_more_memory_than_it_has_rows():
    made = Thinned(20)
    for number in range(5):
        made.add(np.full((100, 3), number))
        (rows, draws), *others = made._kept
        assert not others and len(rows) == len(draws) == 20 and rows.base is None
    assert set(made.rows().ravel()) == set(range(5))


def test_tiles_are_those_of_the_map_filled_up_with_zeros():
    maps = np.random.default_rng(0).uniform(1, 2, (2, 20, 40, 3))
    found = tiles(maps).reshape(2, 2, 3, 16, 16, 3)
    for row in range(2):
        for column in range(3):
            part = maps[:, 16 * row : 16 * row + 16, 16 * column : 16 * column + 16]
            height, width = part.shape[1:3]
            np.testing.assert_array_equal(found[:, row, column, :height, :width], part)
            assert not found[:, row, column, height:].any()
            assert not found[:, row, column, :, width:].any()
