"""Evaluation of a whole ResNet-18 against float64 features of the SSQL authors' code."""

import zlib

import numpy as np

from tests.reference_networks import our_key
from tfcq.backbones.resnet import resnet
from tfcq.evaluation.features import FeatureExtractor
from tfcq.nn.calibration import calibrate
from tfcq.nn.quantizable import quantizable
from tfcq.settings.bitwidths import parse_bit_width

TOLERANCE = 1e-12
# Images of an evaluation do not depend on each other, so that one of the eight suffices.
COMPARED = 1


def drawn(seed: int, name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Returns a parameter as the vectors' README draws it."""
    random = np.random.default_rng([seed, zlib.crc32(name.encode())])
    if name.endswith("running_var"):
        return random.uniform(0.3, 1.8, shape)
    if len(shape) == 4:
        return random.normal(size=shape) * np.sqrt(2 / np.prod(shape[:3]))
    if name.endswith("weight"):
        return random.uniform(0.5, 1.5, shape)
    return random.normal(size=shape) * 0.3


def test_features_at_every_bit_width_are_those_of_the_authors_code(float64, reference):
    vectors = reference("evaluation_resnet18")
    seed = int(vectors["seed"])
    network = resnet(18)
    variables = {(layer.name, v.name): v for layer in network.layers for v in layer.variables}
    for name in vectors["names"].tolist():
        variable = variables.pop(our_key(f"param/backbone.{name}")[1:])
        variable.assign(drawn(seed, name, tuple(variable.shape)))
    assert not variables
    random = np.random.default_rng([seed, 1])
    calibration = random.normal(size=(16, 32, 32, 3))
    test = (random.normal(size=(8, 32, 32, 3)) * 1.2)[:COMPARED]
    model = quantizable(network, "paper")
    calibrate(model, calibration, batch_size=8)
    features = FeatureExtractor(model)
    compared = [key for key in vectors if key.startswith("features/")]
    assert len(compared) == 8
    for key in compared:
        theirs = vectors[key][:COMPARED]
        ours = features(test, parse_bit_width(key.removeprefix("features/")))
        assert np.abs(ours - theirs).max() < TOLERANCE * np.abs(theirs).max(), key
