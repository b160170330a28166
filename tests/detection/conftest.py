"""Vectors that every test of detection may use."""

import pathlib

import numpy as np
import pytest


@pytest.fixture(scope="session")
def vectors():
    """What torchvision, detectron2 and pycocotools gave: see tools/detection_vectors.py."""
    return dict(np.load(pathlib.Path(__file__).parents[1] / "vectors" / "detection.npz"))
