"""A step that cannot fit into memory is refused with the flags that make it fit."""

import re

import pytest

from tfcq.errors import UserError
from tfcq.pretraining import memory
from tfcq.pretraining.run import pretrainer_from
from tfcq.settings.training import config_from_flat


def model(size=32, **values):
    values = {"width": 4, "projection_width": 8, "predictor_width": 4, **values}
    return pretrainer_from(config_from_flat(values), (size, size, 3), 10)


def test_estimate_grows_with_batch_area_and_passes():
    ssql, plain = model(), model(recipe="float")
    weights = memory.step_bytes(ssql, 0, 32)
    one = memory.step_bytes(ssql, 1, 32) - weights
    assert memory.step_bytes(ssql, 8, 32) - weights == pytest.approx(8 * one, rel=1e-3)
    assert memory.step_bytes(plain, 1, 32) - weights == pytest.approx(one / 2, rel=0.01)
    larger = memory.step_bytes(model(64), 1, 64) - weights
    assert larger == pytest.approx(4 * one, rel=0.01)


def test_a_run_that_cannot_fit_is_told_what_makes_it_fit(monkeypatch):
    large = model()
    needed = memory.step_bytes(large, 64, 32)
    monkeypatch.setattr(memory, "free_bytes", lambda: needed / 4)
    with pytest.raises(UserError, match="64 images of 32x32 takes about .*--stem=imagenet") as told:
        memory.check_memory(large, 64, 32, large_stem=True)
    batch = int(re.search(r"--batch_size=(\d+)", str(told.value))[1])
    memory.check_memory(large, batch, 32, large_stem=True)
    monkeypatch.setattr(memory, "free_bytes", lambda: needed)
    memory.check_memory(large, 64, 32, large_stem=True)


def test_free_memory_is_known_here():
    assert 10**8 < memory.free_bytes() < 10**14
