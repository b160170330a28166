"""Whole SSQL steps on SimSiam and BYOL against float64 vectors of the authors' code."""

import pytest

from tests.reference_networks import (
    FROZEN_BIASES,
    MOMENTUM,
    as_reference_statistic,
    distance,
    our_key,
    reference_backbone,
    run_step,
    set_state,
    variables_of,
)
from tfcq.nn.heads import multi_layer_perceptron
from tfcq.pretraining.byol import BYOL
from tfcq.pretraining.pretrainer import Pretrainer

TOLERANCE = 1e-9
# The momentum encoder makes two float passes; every other batch norm sees four passes.
PASSES = {"online": 4, "target": 2}


def simsiam(**bits):
    return Pretrainer(reference_backbone(), projection_width=32, predictor_width=16, **bits)


def byol(**bits):
    projector = multi_layer_perceptron(32, (16, 16, 32), last_norm=True, name="projector")
    predictor = multi_layer_perceptron(32, (16, 32), last_norm=False, name="predictor")
    framework = BYOL(
        projector,
        predictor,
        regression_loss="negative_cosine",
        target_momentum=MOMENTUM,
        target_update="before_targets",
    )
    return Pretrainer(reference_backbone(), framework, **bits)


# Graph optimization once broke parity, so one case runs as a graph; tracing others is slow.
CASES = [
    ("simsiam", "2w4a", False),
    ("simsiam", "4w5a", True),
    ("simsiam", "8w8a", False),
    ("byol", "2w4a", False),
    ("byol", "4w5a", False),
    ("byol", "8w8a", False),
]


@pytest.fixture(
    scope="module", params=CASES, ids=[f"{f}-{b}-{'graph' if g else 'eager'}" for f, b, g in CASES]
)
def step(request, reference, floatx):
    """Runs the reference's step in our Pretrainer; returns vectors, variables and results."""
    framework, bits, in_graph = request.param
    vectors = reference(f"ssql_{framework}_{bits}")
    with floatx("float64"):
        drawn = {name: str(vectors[name]) for name in ("weight_bits", "activation_bits")}
        pretrainer = {"simsiam": simsiam, "byol": byol}[framework](**drawn)
        variables = variables_of(pretrainer)
        set_state(variables, vectors)
        yield vectors, variables, *run_step(pretrainer, vectors, in_graph)


def test_step_matches_authors_code(step):
    vectors, variables, loss, gradients = step
    assert distance(loss, vectors["loss"]) < TOLERANCE
    compared = [key for key in vectors if key.startswith("grad/")]
    assert len(compared) == len(gradients)
    for key in compared:
        gradient = gradients[id(variables[our_key(key)])]
        assert distance(gradient, vectors[key]) < TOLERANCE, key


def test_running_statistics_move_once_per_pass_as_in_authors_code(step):
    vectors, variables = step[:2]
    for key in (key for key in vectors if key.startswith("stat_after/")):
        network = our_key(key)[0]
        if key.startswith("stat_after/predictor"):
            network = "online"
        theirs = as_reference_statistic(variables[our_key(key)], key, vectors, PASSES[network])
        assert distance(theirs, vectors[key]) < TOLERANCE, key


def test_reference_names_cover_every_trained_variable(step):
    vectors, variables = step[:2]
    named = {
        our_key(key) for key in vectors if key.startswith("param/") and key not in FROZEN_BIASES
    }
    trained = {key for key, variable in variables.items() if variable.trainable}
    assert {key for key in named if key[0] == "online"} == trained
    numbers = [v for v in variables.values() if not v.dtype.startswith("int")]
    assert {variable.dtype for variable in numbers} == {"float64"}
