"""Pictures as Matplotlib's figures, which are exact and take no time to render."""

import pytest

from tfcq.reporting import correlation, curves, embedding, plots, weights


@pytest.fixture
def figures(monkeypatch):
    """Returns a list that takes every figure that is drawn, in place of its PNG."""
    drawn = []

    def keep(figure):
        drawn.append(figure)
        return b"\x89PNG"

    for module in (correlation, curves, embedding, plots, weights):
        monkeypatch.setattr(module, "png", keep)
    return drawn
