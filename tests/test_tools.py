"""Every tool starts and explains itself; what makes figures makes the right ones."""

import argparse
import json
import os
import pathlib
import re
import runpy
import subprocess
import sys
import types

import keras
import numpy as np
import pytest

ROOT = pathlib.Path(__file__).parent.parent
PYTHON_TOOLS = sorted(
    path.name for path in (ROOT / "tools").glob("*.py") if path.read_text().startswith("#!")
)


@pytest.mark.parametrize("name", PYTHON_TOOLS)
def test_tool_tells_its_options(name, capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", [name, "--help"])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(ROOT / "tools" / name), run_name="__main__")
    assert ended.value.code == 0
    assert "--help" in capsys.readouterr().out


def test_tool_starts_in_a_process_of_its_own():
    ended = subprocess.run(
        [sys.executable, ROOT / "tools" / "evidence.py", "--help"], capture_output=True, text=True,
        check=False, env={**os.environ, "PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "3"},
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr[-2000:]
    assert "--data_dir" in ended.stdout


def tool(name):
    """Returns a tool as a module; nothing is run."""
    module = types.ModuleType(name)
    module.__file__ = str(ROOT / "tools" / f"{name}.py")
    exec(compile(pathlib.Path(module.__file__).read_text(), name, "exec"), module.__dict__)
    return module


def test_readers_refuse_what_they_cannot_take_without_a_traceback():
    found = tool("fuzz").in_process(cases=600, seed=5)
    assert found["tracebacks"] == []
    counts = found["targets"]
    assert set(counts["config.json"]) == set(counts["recipe"]) == {"taken", "refused"}


def cells(text):
    """Returns the first cell of each row of a Markdown table to the others."""
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines()
            if line.startswith("| ")]  # fmt: skip
    return {first: others for first, *others in rows}


def test_study_of_post_training_scores_test_images_and_calibrates_on_others(tmp_path, monkeypatch):
    from tfcq.data.plain_images import labelled_arrays
    from tfcq.data.sources import open_source
    from tfcq.evaluation.classifier import CLASSIFIER, with_classifier
    from tfcq.nn.quantizable import quantizable
    from tfcq.post_training.plan import Plan
    from tfcq.settings.bitwidths import FLOAT, BitWidth

    keras.utils.set_random_seed(0)
    inputs = keras.Input((8, 8, 1))
    x = keras.layers.Conv2D(4, 3, activation="relu", name="conv")(inputs)
    network = keras.Model(inputs, keras.layers.Flatten(name="flat")(x))
    model = with_classifier(quantizable(network, "paper"), 10)
    kernel, bias = model.get_layer(CLASSIFIER).get_weights()
    random = np.random.default_rng(0)
    model.get_layer(CLASSIFIER).set_weights([random.normal(size=kernel.shape), bias])
    model.save(tmp_path / "model.keras")
    ptq = tool("ptq_table")
    study = ptq.Study(
        argparse.Namespace(
            model=tmp_path / "model.keras", policy="uniform", dataset="digits", data_dir=None,
            images=64, seed=3, iterations=5, batch_size=8, learning_rate=0.02,
        )
    )  # fmt: skip
    source = open_source("digits")
    train, test = (labelled_arrays(source.split(name), 8) for name in ("train", "test"))
    known = {image.tobytes() for image in train[0]}
    assert len(study.images) == 64 and all(image.tobytes() in known for image in study.images)
    assert type(study.model.get_layer(CLASSIFIER)) is keras.layers.Dense
    expected = np.mean(np.argmax(model(test[0]), axis=1) == test[1])
    assert study.top1(study.model, FLOAT) == pytest.approx(expected)
    settings = study.learning
    assert (settings.iterations, settings.batch_size, settings.seed) == (5, 8, 3)

    plans = study.plans()
    mse = {"calibration": "mse", "learning": settings}
    assert plans["mse, AdaRound"] == Plan(**mse, rounding="adaround")
    assert plans["mse, block reconstruction"] == Plan(**mse, rounding="block")
    assert plans["minmax, bias correction"] == Plan(correct_biases=True)
    assert len(set(map(repr, plans.values()))) == len(plans)

    bits, methods, taken = BitWidth(3, 4), [], []

    class Prepared:
        def __init__(self, model, images, plan):
            assert model is study.model and images is study.images
            taken.append(plan)
            count = len(taken)
            self.at = lambda asked: types.SimpleNamespace(model=(count, asked))

    monkeypatch.setattr(study.observations, "set_ranges", lambda *a: methods.append(a))
    monkeypatch.setattr(study, "features", lambda images, bits: np.eye(10)[test[1]])
    monkeypatch.setattr(ptq, "PostTraining", Prepared)
    monkeypatch.setattr(study, "top1", lambda model, bits: (model, bits))
    found = dict(study.by_method(bits, learned=True))
    assert methods == [(name, 4) for name in ptq.RANGES]
    assert [found[name] for name in ptq.RANGES] == [1] * len(methods)
    assert taken == list(plans.values())
    assert [found[name] for name in plans] == [
        ((place, bits), bits) for place in range(1, len(plans) + 1)
    ]

    learned = []
    monkeypatch.setattr(ptq, "with_stored_scales", lambda *a, **named: (*a[1:], named))
    monkeypatch.setattr(ptq, "learn_rounding", lambda *a: learned.append(a))
    alone = {name: model for name, (model, _) in study.weights_alone(3)}
    largest, least = ((3, scales, {"activations": False}) for scales in ("max", "mse"))
    assert alone == {
        "nearest": largest, "nearest, mse weights": least, "AdaRound": largest,
        "block reconstruction": largest,
    }  # fmt: skip
    assert [call[4] for call in learned] == ["layer", "block"]
    assert all(call[1] is study.model and call[3].weights == 3 for call in learned)


def test_peers_are_given_the_same_network_and_bits(tmp_path):
    import tfcq
    from tfcq.evaluation.classifier import with_classifier
    from tfcq.settings.bitwidths import parse_bit_widths

    peers = tool("ptq_peers")
    random = np.random.default_rng(0)
    model = with_classifier(tfcq.quantizable(tfcq.resnet(18, width=2, input_shape=(8, 8, 1))), 10)
    for layer in model.layers:
        layer.set_weights([random.uniform(0.5, 1, w.shape) if w.dtype == np.float32 else w
                           for w in layer.get_weights()])  # fmt: skip
    model.save(tmp_path / "model.keras")
    study = peers.Study(
        argparse.Namespace(
            model=tmp_path / "model.keras", policy="paper", layer_bits=peers.LAYER_BITS,
            dataset="digits", data_dir=None, bits="3w3a,2w4a", images=64, seed=3, iterations=5,
        )
    )  # fmt: skip
    assert study.widths == parse_bit_widths("3w3a,2w4a") and len(study.images) == 64
    study.give(tmp_path)
    given = json.loads((tmp_path / "given.json").read_text())
    assert given["bits"] == [[3, 3], [2, 4]] and given["seed"] == 3
    nodes = {node["name"]: node for node in given["nodes"]}
    bits = {name: (node["weights"], node.get("activations")) for name, node in nodes.items()}
    assert bits["stem"] == (8, None) and bits["stem_relu"] == (None, 8)
    assert bits["stage2_block1_conv1"] == ("of the pass", None)
    assert bits["stage2_block1_relu"] == (None, "of the pass")
    assert (bits["features"], bits["classifier"]) == ((None, 8), (8, None))
    place = [nodes["stage2_block1_conv1"][key] for key in ("inputs", "stride", "padding")]
    assert place == [["stage1_block2_relu"], 2, 1]
    with np.load(tmp_path / "given.npz") as arrays:
        layer, norm = (study.model.get_layer(name) for name in ("stem", "stem_norm"))
        image = arrays["test_images"][:1]
        expected = norm(layer(image), training=False).numpy()[0, 3, 4]
        patch = image[0, 2:5, 3:6].transpose(2, 0, 1)
        found = (arrays["stem/kernel"] * patch).sum((1, 2, 3)) + arrays["stem/bias"]
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_peers_are_given_depthwise_kernels_and_clipped_relus():
    from peers.description import described

    import tfcq
    from tfcq.evaluation.classifier import with_classifier

    network = tfcq.mobilenet_v2(width=8, input_shape=(8, 8, 1))
    model = with_classifier(tfcq.quantizable(network), 10)
    random = np.random.default_rng(0)
    norm = model.get_layer("stage2_block1_depthwise_norm")
    norm.set_weights([random.uniform(0.5, 1, w.shape) for w in norm.get_weights()])
    nodes, arrays = described(model)
    named = {node["name"]: node for node in nodes}
    depthwise = named["stage2_block1_depthwise"]
    assert (depthwise["groups"], named["stem"]["groups"]) == (48, 1)
    assert named["stage2_block1_depthwise_relu"]["largest"] == 6
    peers = tool("ptq_peers")
    with pytest.raises(peers.UserError, match="such as --layer_bits=classifier:8w8a"):
        peers.check_quantized(nodes)
    named["classifier"]["weights"] = named["stem"]["weights"] = 8
    peers.check_quantized(nodes)
    layer = model.get_layer("stage2_block1_depthwise")
    image = random.normal(size=(1, 8, 8, 48)).astype(np.float32)
    patch = image[0, 2:5, 3:6].transpose(2, 0, 1)[:, None]
    kernel, bias = (arrays[f"stage2_block1_depthwise/{name}"] for name in ("kernel", "bias"))
    found = (kernel * patch).sum((1, 2, 3)) + bias
    np.testing.assert_allclose(found, norm(layer(image), training=False)[0, 3, 4], atol=1e-5)


def test_peers_of_another_network_are_refused_and_the_page_names_who_is_ahead():
    peers = tool("ptq_peers")
    about = {"versions": {"torch": "2", "brevitas": "1"}, "difference": 1e-6, "top1": 0.9}
    peers.check_same(about, 0.9)
    for other in ({"difference": 1e-3}, {"top1": 0.8}, {"versions": {"torch": "2"}}):
        with pytest.raises(peers.UserError):
            peers.check_same({**about, **other}, 0.9)
    rows = [
        {"by": by, "method": "min-max", "bits": bits, "top1": top1, "seconds": 1.25}
        for by, bits, top1 in (
            ("tfcq", "3w3a", 0.8), ("tfcq", "2w4a", 0.75), ("aimet", "3w3a", 0.85),
        )
    ]  # fmt: skip
    record = {
        "command": "C", "commit": "abc", "policy": "paper", "layer_bits": "a:8w8a", "images": 64,
        "seed": 3, "iterations": 5, "classifier": "net", "test_images": 1000, "machine": "m",
        "versions": {"keras": "3"}, "peers": about, "fp": 0.9, "rows": rows,
    }  # fmt: skip
    page = peers.page(record)
    assert cells(page)["tfcq: min-max"] == ["1.2", "1.2"]
    assert "| tfcq: min-max  | 80.00 | 75.00 |" in page
    assert "| aimet: min-max | 85.00 |       |" in page
    assert "- 3w3a: aimet (min-max) 5.00 points ahead of the best of tfcq (min-max); 1 m" in page
    assert "brevitas 1" in page and "float: 90.00" in page and "- 2w4a" not in page
    assert "Ours alone" in peers.page({**record, "peers": None, "rows": rows[:2]})


def test_lowest_versions_that_are_tried_are_those_that_are_allowed():
    allowed = re.findall(r"^    ([\w-]+) >= ([\d.]+)$", (ROOT / "setup.cfg").read_text(), re.M)
    tried = re.findall(r"^([\w-]+)==([\d.]+)$", (ROOT / "constraints-lowest.txt").read_text(), re.M)
    assert {name for name, _ in allowed} == {name for name, _ in tried}
    for name, version in tried:
        assert version.startswith(dict(allowed)[name])


def test_applications_tells_what_was_refused_from_what_failed(tmp_path, monkeypatch, capsys):
    zoo = tool("applications")
    refusal = "Layer 'a' holds; pass overrides={'a*': 'fp', 'b': 'fp'} (--layer_bits=a*:fp,b:fp)."
    assert zoo.left_in_float(refusal) == {"a*": "fp", "b": "fp"}
    assert zoo.left_in_float("Model 'a' is another.") == {}
    whole = {"image": 32, "parameters": 3_210_000, **dict.fromkeys(zoo.CHECKS, "yes")}
    found = {"VGG16": {**whole, "int8 export": refusal}, "Xception": whole}
    monkeypatch.setattr(zoo, "in_own_process", lambda name, seed: found[name])
    files = f"--output={tmp_path / 'zoo'}"
    monkeypatch.setattr(sys, "argv", ["applications", "--networks=VGG16,Xception", files])
    for broken, code in (({}, 0), ({"4w4a": "NO"}, 1), ({"SSQL step": f"{zoo.FAILED}x"}, 1),
                         ({"converts": "two\nlines"}, 1)):  # fmt: skip
        (tmp_path / "zoo.json").unlink(missing_ok=True)
        found["Xception"] = {**whole, **broken}
        with pytest.raises(SystemExit) as ended:
            zoo.main()
        assert ended.value.code == code
        page, record = (tmp_path / "zoo.md").read_text(), (tmp_path / "zoo.json").read_text()
        assert cells(page)["VGG16"] == ["32", "3.2 M", *["yes"] * 6, "note 1"]
        networks = json.loads(record)["networks"]
        assert f"1. {refusal}\n" in page
        assert [networks["Xception"][column] for column in zoo.CHECKS] == [
            found["Xception"][column] for column in zoo.CHECKS
        ]
    # What stands in the file is not checked again.
    found.clear()
    with pytest.raises(SystemExit):
        zoo.main()
    assert json.loads((tmp_path / "zoo.json").read_text())["networks"] == networks
