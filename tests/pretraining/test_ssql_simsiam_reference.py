"""One whole SSQL-SimSiam step against float64 vectors of the authors' code."""

import numpy as np
import pytest
import tensorflow as tf

from tfcq.backbones.resnet import resnet
from tfcq.pretraining.pretrainer import Pretrainer
from tfcq.pretraining.recipes import Pass

TOLERANCE = 1e-9
PASSES = 4


def _our_layer(module: str) -> str:
    """Translates a module name of the reference into the name of our layer."""
    if module.startswith("predictor."):
        return {"0": "predictor_dense1", "1": "predictor_norm1", "3": "predictor_dense2"}[
            module.split(".")[1]
        ]
    parts = module.removeprefix("encoder_q.").split(".")
    norm = "_norm" if parts[-1] == "bn_function" else ""
    if parts[0] == "conv1":
        return f"stem{norm}"
    if parts[0] == "fc":
        index = int(parts[1]) // 3 + 1
        return f"projector_norm{index}" if norm else f"projector_dense{index}"
    branch = "shortcut" if parts[2] == "downsample" else parts[2]
    return f"stage{parts[0].removeprefix('layer')}_block{int(parts[1]) + 1}_{branch}{norm}"


def _variables(pretrainer):
    """Returns every variable of the network by (layer, variable) name."""
    models = (
        pretrainer.backbone,
        pretrainer.framework.projector,
        pretrainer.framework.predictor,
    )
    return {
        (layer.name, variable.name): variable
        for model in models
        for layer in model.layers
        for variable in layer.variables
    }


def _our_key(reference_key: str) -> tuple[str, str]:
    module, kind = reference_key.split("/")[1].rsplit(".", 1)
    layer = _our_layer(module)
    if "norm" in layer:
        names = {"weight": "gamma", "bias": "beta"}
    else:
        names = {"weight": "kernel", "bias": "bias"}
    names |= {"running_mean": "moving_mean", "running_var": "moving_variance"}
    return layer, names[kind]


# A bias right before a batch norm moves only the running mean; our projector leaves it out.
FROZEN_BIAS = "param/encoder_q.fc.6.bias"


# Graph optimization once broke parity, so one case runs as a graph; tracing is slow, so two do not.
@pytest.fixture(
    scope="module",
    params=[("2w4a", False), ("4w5a", True), ("8w8a", False)],
    ids=["2w4a-eager", "4w5a-graph", "8w8a-eager"],
)
def step(request, reference, floatx):
    """Runs the reference's step in our Pretrainer; returns vectors, variables and results."""
    bits, in_graph = request.param
    with floatx("float64"):
        yield _run_step(reference(f"ssql_simsiam_{bits}"), in_graph)


def _run_step(vectors, in_graph: bool):
    pretrainer = Pretrainer(
        resnet(18, width=4, blocks=(1, 1, 1, 1)),
        recipe="ssql",
        projection_width=32,
        predictor_width=16,
    )
    variables = _variables(pretrainer)
    for key, value in vectors.items():
        if key.startswith(("param/", "stat_before/")) and key != FROZEN_BIAS:
            variables[_our_key(key)].assign(value)
    bits = tf.constant([[vectors["weight_bits"], vectors["activation_bits"]]], tf.int32)
    views = tf.constant(vectors["x1"]), tf.constant(vectors["x2"])

    def run():
        with tf.GradientTape() as tape:
            embeddings, predictions = pretrainer.embed(*views, bits)
            loss = pretrainer.recipe_loss(embeddings, predictions)
        trained = [variable.value for variable in pretrainer.trainable_variables]
        return embeddings, predictions, loss, tape.gradient(loss, trained)

    embeddings, predictions, loss, gradients = (tf.function(run) if in_graph else run)()
    by_id = {id(v): g for v, g in zip(pretrainer.trainable_variables, gradients, strict=True)}
    return vectors, variables, embeddings, predictions, loss, by_id


def _distance(ours, theirs) -> float:
    return float(np.max(np.abs(np.asarray(ours) - theirs)))


def test_step_matches_authors_code(step):
    vectors, variables, embeddings, predictions, loss, gradients = step
    assert _distance(loss, vectors["loss"]) < TOLERANCE
    for view in (1, 2):
        assert _distance(embeddings[Pass(view, "fp")], vectors[f"z{view}"]) < TOLERANCE
        assert _distance(predictions[Pass(view, "fp")], vectors[f"p{view}"]) < TOLERANCE
        assert _distance(predictions[Pass(view, "q")], vectors[f"p{view}_q"]) < TOLERANCE
    compared = [key for key in vectors if key.startswith("grad/")]
    assert len(compared) == len(gradients)
    for key in compared:
        gradient = gradients[id(variables[_our_key(key)])]
        assert _distance(gradient, vectors[key]) < TOLERANCE, key


def _values_per_channel(layer: str, vectors) -> int:
    """Returns how many values of one channel a batch norm of the reference network sees."""
    batch, size = vectors["x1"].shape[:2]
    stage = int(layer[5]) if layer.startswith("stage") else 1
    image = layer.startswith(("stage", "stem"))
    return batch * (size // 2 ** (stage - 1)) ** 2 if image else batch


def test_running_statistics_move_once_per_pass_as_in_authors_code(step):
    vectors, variables = step[:2]
    kept = 0.9**PASSES
    for key in (key for key in vectors if key.startswith("stat_after/")):
        layer, name = _our_key(key)
        ours = np.array(variables[layer, name])
        before = kept * vectors[key.replace("stat_after", "stat_before")]
        if name == "moving_variance":
            # Keras averages the biased variance of each batch, PyTorch the unbiased one.
            count = _values_per_channel(layer, vectors)
            ours = before + (ours - before) * count / (count - 1)
        if layer == "projector_norm3" and name == "moving_mean":
            ours = ours + (1 - kept) * vectors[FROZEN_BIAS]
        assert _distance(ours, vectors[key]) < TOLERANCE, key


def test_reference_names_cover_every_trained_variable(step):
    vectors, variables = step[:2]
    named = {_our_key(key) for key in vectors if key.startswith("param/") and key != FROZEN_BIAS}
    trained = {key for key, variable in variables.items() if variable.trainable}
    assert named == trained
    assert {variable.dtype for variable in variables.values()} == {"float64"}
