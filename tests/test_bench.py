"""tools/bench.py: what stands beside each other is the same work, and the page holds all of it."""

import collections
import json
import subprocess
import sys
import types

import bench
import keras
import numpy as np
import pytest
import tensorflow as tf
from benchmarks import convolutions, page, peer, pipeline, step, training

from tfcq.backbones.cifar_resnet import cifar_resnet
from tfcq.errors import UserError
from tfcq.nn.batch_norm import BatchNormalization
from tfcq.nn.products import multiply_in
from tfcq.pretraining.pretrainer import Pretrainer

PRODUCTS = {"Conv2D", "Conv2DBackpropInput", "Conv2DBackpropFilter", "MatMul"}
SMALL = {"projection_width": 8}


def pretrainer(framework="simsiam", recipe="ssql", **settings):
    backbone = cifar_resnet(8, width=2, input_shape=(8, 8, 3))
    return Pretrainer(backbone, framework, recipe, **settings)


def made(function, *arguments):
    """Returns how often a graph makes each product of which something is read."""
    graph = tf.function(function, autograph=False).get_concrete_function(*arguments).graph
    read = [op for op in graph.get_operations() if any(one.consumers() for one in op.outputs)]
    return collections.Counter((op.type, op.outputs[0].dtype.name) for op in read
                               if op.type in PRODUCTS)  # fmt: skip


@pytest.mark.parametrize(
    ("framework", "recipe", "settings", "dtype"),
    [
        ("simsiam", "ssql", {"predictor_width": 4}, "float32"),
        ("simsiam", "quantized_target", {"predictor_width": 4}, "bfloat16"),
        ("byol", "ssql_no_aux", {"projection_hidden": 4, "predictor_width": 4}, "float32"),
    ],
)  # fmt: skip
def test_products_beside_a_step_are_those_of_the_step(framework, recipe, settings, dtype):
    model = pretrainer(framework, recipe, **SMALL, **settings)
    for network in model.networks:
        multiply_in(network, dtype)
    model.set_run_length(1, 10)
    model.compile()
    of_step = made(model.train_step, (tf.zeros((4, 8, 8, 3)),) * 2)
    products, starts, _ = convolutions.floor(model, batch_size=4)
    assert made(products, *starts) == of_step


def test_operations_of_a_pass_are_two_for_each_value_of_the_kernel_at_each_place():
    inputs = keras.Input((8, 6, 3))
    x = keras.layers.Conv2D(4, 3, strides=2, padding="same")(inputs)
    x = keras.Sequential([keras.layers.DepthwiseConv2D(3)])(x)
    x = keras.layers.Dense(7)(keras.layers.Flatten()(x))
    found = convolutions.products(keras.Model(inputs, x), batch_size=5, reads_images=True)
    assert [one.flop for one in found] == [
        2 * 5 * (4 * 3) * (3 * 3 * 3 * 4), 2 * 5 * (2 * 1) * (3 * 3 * 4), 2 * 5 * (2 * 1 * 4) * 7,
    ]  # fmt: skip
    assert [one.reads_images for one in found] == [True, False, False]


def test_products_are_made_in_turn_and_none_is_left_out():
    network = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2), keras.layers.Dense(2)])
    found = convolutions.products(network, batch_size=4, reads_images=True)
    inputs, kernel, upstream = zip(
        *((np.array(one.inputs), np.array(one.kernel), np.array(one.upstream)) for one in found),
        strict=True,
    )
    outputs = [x @ k for x, k in zip(inputs, kernel, strict=True)]
    gradients = [x.T @ g for x, g in zip(inputs, upstream, strict=True)]
    gradients.append(upstream[1] @ kernel[1].T)
    firsts = [one[0, 0] for one in outputs]
    assert float(convolutions.forward_pass(found, 0.0)) == pytest.approx(sum(firsts), rel=1e-5)
    firsts += [one[0, 0] for one in gradients]
    assert float(convolutions.trained_pass(found, 0.0)) == pytest.approx(sum(firsts), rel=1e-5)


def test_batch_norms_of_keras_are_those_that_are_not_fused():
    network = keras.Sequential([keras.Input((4, 4, 3)), BatchNormalization()])
    nested = keras.Sequential([keras.Input((4, 4, 3)), network])
    images = tf.random.stateless_normal((2, 4, 4, 3), (0, 0))

    def operations():
        function = tf.function(lambda given: nested(given, training=True), autograph=False)
        return {op.type for op in function.get_concrete_function(images).graph.get_operations()}

    assert "FusedBatchNormV3" in operations()
    fused = nested(images, training=True)
    step.normalize_as_keras(nested)
    assert "FusedBatchNormV3" not in operations()
    np.testing.assert_allclose(nested(images, training=True), fused, atol=1e-5)


STUB = """
import sys
print("stub 1", sys.argv[1], flush=True)
count = sum(print(0.5, flush=True) is None for _ in sys.stdin)
print(100 + count)
"""
SIZES = {"framework": "simsiam", "steps": 2, "batch_size": 4, "image_size": 8, "width": 2}


def test_peer_takes_a_step_when_it_is_asked(monkeypatch):
    monkeypatch.setattr(peer, "STEPS", STUB)
    command = peer.lightly(sys.executable, SIZES)
    other = peer.Peer(command)
    assert other.name == "stub 1 [4, 8, 2]"
    for _ in range(3):
        other.step()
    assert step.peak(SIZES, {"command": command}) == 103
    monkeypatch.setattr(peer, "STEPS", "print('a name')")
    with pytest.raises((RuntimeError, BrokenPipeError)):
        peer.Peer(peer.lightly(sys.executable, SIZES)).step()


@pytest.mark.parametrize("python", [sys.executable, "/no/python"])
def test_interpreter_without_the_peer_is_refused(python):
    with pytest.raises(UserError, match="cannot import lightly"):
        peer.check_peer(python)


def test_rows_are_relative_to_the_first_in_the_same_process(monkeypatch):
    seconds = iter([(2.0, 5.0), (4.0, 3.0)])

    def alone(call, sizes, given):
        if call == "step:megabytes":
            return float(len(given["recipe"]))
        assert sizes["width"] == 2
        pair = []
        for case, taken in zip(given, next(seconds), strict=True):
            name = case["command"][0] if "command" in case else " ".join(case.values())
            pair.append({"name": name, "seconds": taken})
            if "command" not in case:
                cost = {"float": 6, "ssql": 12}[case["recipe"]]
                pair[-1] |= {"cost": cost, "floor": taken / 2, "flop": 1e9}
        return pair

    monkeypatch.setattr(step, "alone", alone)
    monkeypatch.setattr(step, "check_peer", lambda python: None)
    monkeypatch.setattr(step, "last_line", lambda command, sent: f"{len(sent.split())}")
    words = ["step", "--width=2", "--peer=P", "--recipes=ssql"]
    arguments, _ = bench.parsed([*words, "--product_dtype=float32,bfloat16"])
    first, second, lightly = step.figures(arguments)
    assert first == {
        "step": "ssql float32 fused", "s": 2.0, "over the first": 1.0, "passes over its": 1.0,
        "its convolutions, s": 1.0, "over its convolutions": 2.0, "their GFLOP/s": 1.0, "MB": 4.0,
    }  # fmt: skip
    assert (second["step"], second["s"]) == ("ssql bfloat16 fused", 5.0)
    assert second["over the first"] == 2.5
    assert lightly == {"step": "P", "s": 3.0, "over the first": 0.75, "MB": 3.0}
    seconds = iter([(1.0, 3.0)])
    _, second = step.figures(bench.parsed(["step", "--width=2"])[0])
    assert (second["over the first"], second["passes over its"]) == (3.0, 2.0)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--product_dtype=float8"], "float8"),
        (["--batch_norm=none"], "none"),
        (["--recipes=flota"], "flota"),
        (["--framework=byol", "--peer=P"], "allowed: simsiam"),
    ],
)
def test_steps_that_do_not_exist_are_refused(words, told):
    with pytest.raises(UserError, match=told):
        step.figures(bench.parsed(["step", *words])[0])


def test_no_step_at_all_is_refused(capsys):
    with pytest.raises(SystemExit) as ended:
        bench.parsed(["step", "--steps=0"])
    assert ended.value.code == 2
    assert "--steps=0 cannot be used; allowed: 1 and above" in capsys.readouterr().err


def test_figures_of_views_are_medians_over_rounds(monkeypatch, tmp_path):
    rates = {str(pipeline.ROOT): iter((1.0, 5.0, 6.0)), str(tmp_path): iter((2.0,) * 3)}
    monkeypatch.setattr(
        pipeline, "alone",
        lambda call, name, folder, checkout: {"rate": next(rates[str(checkout)])},
    )  # fmt: skip
    monkeypatch.setattr(pipeline, "write_photographs", lambda *given: "")
    names = {"images": "28x28x1 array"}
    monkeypatch.setattr(pipeline, "SIZES", {})
    monkeypatch.setattr(pipeline, "SMALL", {names["images"]: (28, 28, 1)})
    arguments, _ = bench.parsed(["pipeline", "--rounds=3", f"--baseline={tmp_path}"])
    assert pipeline.figures(arguments) == [
        {**names, "by": "tfcq", "images per CPU-second": 5.0, "tfcq over it": 1.0},
        {**names, "by": "baseline", "images per CPU-second": 2.0, "tfcq over it": 2.5},
    ]


def test_slower_one_of_views_and_step_limits_a_training():
    found = training.in_turn({"views alone": 2.0, "step alone": 4.0, "both": 5.0}, images=20)
    assert [row["limits"] for row in found] == ["", "yes", ""]
    assert [row["images/s"] for row in found] == [10.0, 5.0, 4.0]
    assert [row["over both"] for row in found] == [2.5, 1.25, 1.0]


def test_training_is_measured_on_the_flags_of_a_run(monkeypatch):
    words = ["--train_images=16", "--batch_size=8", "--backbone=cifar_resnet8", "--width=2",
             "--projection_width=4", "--predictor_width=2"]  # fmt: skip
    takes = []

    def timed(batches, take, steps):
        takes.append((take is next, batches.cardinality() == tf.data.INFINITE_CARDINALITY))
        assert batches.element_spec[0].shape[1:] == (8, 8, 1)
        return float(len(takes))

    monkeypatch.setattr(training, "timed", timed)
    seconds, images = training.measured(words, steps=2, rounds=1)
    # Of the round that traces nothing is told; the step alone sees the same batch again.
    assert seconds == {"views alone": 4.0, "step alone": 5.0, "both": 6.0} and images == 16
    assert takes[:3] == takes[3:] and [views for views, _ in takes[:3]] == [True, False, False]
    # What is left open is chosen as a run chooses it.
    _, images = training.measured(words[:1] + words[2:], steps=2, rounds=1)
    assert images == 2 * 16
    with pytest.raises(UserError, match="--strategy in --train changes no figure"):
        training.figures(types.SimpleNamespace(train="--strategy=mirrored"))


def test_page_holds_the_latest_figures_of_every_command(monkeypatch, tmp_path):
    figures = [{"step": "a", "s": 123.4, "MB": 12.34}, {"step": "b", "s": 1.0}]
    stub = types.SimpleNamespace(**vars(step) | {"figures": lambda arguments: figures})
    monkeypatch.setitem(bench.BENCHMARKS, "step", stub)
    monkeypatch.setattr(
        bench, "alone", lambda call: {"convolutions:machine": "2 cores",
                                      "convolutions:rate": {"GFLOP/s": 210.6}}[call]
    )  # fmt: skip
    monkeypatch.setattr(bench, "commit_here", lambda: "0123456789")

    def run(*words):
        monkeypatch.setattr(sys, "argv", ["bench", "step", *words, f"--output={tmp_path / 'all'}"])
        bench.main()
        return json.loads((tmp_path / "all.json").read_text())

    run()
    figures[1]["s"] = 0.25
    run("--width=16", "--peer=/a/place", "--xla")
    assert [one["figures"][1]["s"] for one in run()] == [0.25, 0.25]
    page_of_all = (tmp_path / "all.md").read_text()
    for line in (
        "- Command: `tools/bench.py step`", "| a    |   123 | 12.3 |", "| b    | 0.250 |      |",
        "- Command: `tools/bench.py step --peer=PYTHON --width=16 --xla`",
        "- Commit: 0123456; 2 cores; 211 GFLOP/s of a convolution",
    ):  # fmt: skip
        assert line in page_of_all.splitlines()


def test_figures_of_another_tool_are_refused_before_anything_is_measured(monkeypatch, tmp_path):
    (tmp_path / "all.json").write_text('{"recipes": "float,ssql"}')
    with pytest.raises(UserError, match="allowed: a list"):
        page.read_records(tmp_path / "all.json")
    monkeypatch.setattr(bench, "measured", lambda *given: pytest.fail("measured"))
    monkeypatch.setattr(sys, "argv", ["bench", "step", f"--output={tmp_path / 'all'}"])
    with pytest.raises(SystemExit) as ended:
        bench.main()
    assert ended.value.code == 2


def test_process_that_fails_ends_the_benchmark_in_one_line(monkeypatch):
    failed = subprocess.CalledProcessError(1, ["python"])
    monkeypatch.setattr(bench, "measured", lambda *given: (_ for _ in ()).throw(failed))
    monkeypatch.setattr(sys, "argv", ["bench", "sweep"])
    with pytest.raises(SystemExit, match="^error: .*python.* returned non-zero"):
        bench.main()
