"""The command writes all its files, tells its figures and answers with its exit code."""

import contextlib
import importlib.util
import io
import json
import shutil

import keras
import numpy as np
import pytest

import tfcq
from tests.integer.conftest import randomize_norms
from tfcq import export
from tfcq.backbones.resnet import resnet
from tfcq.data.plain_images import labelled_arrays
from tfcq.data.sources import open_source
from tfcq.deployment import backends, compared, tfmot
from tfcq.deployment import run as deployment
from tfcq.deployment.tflite import int8_tflite
from tfcq.errors import UserError
from tfcq.evaluation.classifier import with_classifier
from tfcq.evaluation.evaluation import open_subject
from tfcq.evaluation.features import FeatureExtractor
from tfcq.evaluation.probe import fit_linear_probe
from tfcq.integer.form import with_dense
from tfcq.integer.labels import labels_of, with_labels
from tfcq.integer.lite_file import LiteFile
from tfcq.integer.runtime import LiteModel
from tfcq.nn.calibration import calibrate
from tfcq.nn.float_model import requantizable
from tfcq.nn.loading import load
from tfcq.nn.quantizable import quantizable
from tfcq.post_training.plan import Plan, PostTraining
from tfcq.reporting import gate, tables
from tfcq.settings.bitwidths import parse_bit_width
from tfcq.settings.run_folder import RunFolder
from tfcq.settings.training import Config


def command(**values):
    few = {"calibration_images": 64, "test_images": 30, "min_agreement": 0.5, "images": 20}
    arguments = [f"--{name}={value}" for name, value in {**few, **values}.items()]
    return export.flag_set().parse(["--verbosity=1", *arguments])


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run on digits that ended, with a small network as it was initialized."""
    keras.utils.set_random_seed(0)
    folder = RunFolder(tmp_path_factory.mktemp("run") / "digits")
    folder.begin(Config())
    model = resnet(18, "cifar", 4, (8, 8, 1), blocks=(1,))
    randomize_norms(model)
    quantizable(model).save(folder.backbone)
    return folder


@pytest.fixture(scope="module")
def printed(run):
    """Exports the run, and returns what was printed; its models take 2 and 4 milliseconds."""
    seconds = {"int8": 0.002, "float": 0.004}
    with contextlib.redirect_stdout(io.StringIO()) as output, pytest.MonkeyPatch.context() as patch:
        patch.setattr(compared, "median_seconds", lambda models: seconds)
        # How well an untrained network's features survive is not the point here.
        assert export.main(command(run_dir=str(run.path), min_agreement=0.0)) == 0
    return output.getvalue()


def test_files_figures_and_table_are_written(run, printed):
    assert sorted(path.name for path in run.export.iterdir()) == [
        "float.tflite", "int8.json", "int8.tflite",
        *(f"int8_gate.{end}" for end in ("json", "md", "png")),
    ]  # fmt: skip
    figures = json.loads((run.export / "int8.json").read_text())
    assert figures["dataset"] == "digits"
    assert (figures["calibration"]["images"], figures["test_images"]) == (64, 30)
    assert figures["agreement"] == figures["int8_against_simulation"]["agreement"]
    for name in ("int8", "float"):
        assert figures["bytes"][name] == (run.export / f"{name}.tflite").stat().st_size
    assert figures["milliseconds_per_image"] == {"int8": 2, "float": 4}
    assert "int8 against 8w8a simulation" in printed and "int8.json" in printed


def test_weights_leave_with_their_batch_norms_though_the_file_has_none(run):
    subject = open_subject(export.config_of(command(run_dir=str(run.path))))
    kinds = [
        {layer.name for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization)}
        for model in (subject.network, subject.model)
    ]
    assert kinds == [
        {f"{n}_norm" for n in ("stem", "stage1_block1_conv1", "stage1_block1_conv2")},
        set(),
    ]


def test_figures_are_those_of_a_model_calibrated_on_the_first_training_images(run, printed):
    source = open_source("digits")
    (train, labels), (test, test_labels) = (
        labelled_arrays(source.split(name), 8) for name in ("train", "test")
    )
    test, test_labels = test[:30], test_labels[:30]
    model = tfcq.deployable(requantizable(load(run.backbone), "int8"))
    calibrate(model, train[:64])
    content = (run.export / "int8.tflite").read_bytes()
    assert content == int8_tflite(model, train[:64])
    figures = json.loads((run.export / "int8.json").read_text())
    bits = parse_bit_width("8w8a")
    features = FeatureExtractor(model)
    probe = fit_linear_probe(features(train, bits), labels, 10).logits
    outputs = {
        "int8": LiteModel(content)(test), "simulation": features(test, bits),
        "float": features(test),
    }  # fmt: skip
    classes = {name: probe(found).argmax(axis=1) for name, found in outputs.items()}
    # The float network's accuracy is that under a probe of its own, as evaluation has it.
    own = fit_linear_probe(features(train), labels, 10).logits
    scored = {**classes, "float": own(outputs["float"]).argmax(axis=1)}
    assert figures["top1"] == {n: np.mean(found == test_labels) for n, found in scored.items()}
    assert figures["top1"]["float"] != np.mean(classes["float"] == test_labels)
    for one, other in (("int8", "simulation"), ("int8", "float"), ("simulation", "float")):
        agreement = figures[f"{one}_against_{other}"]["agreement"]
        assert agreement == np.mean(classes[one] == classes[other])


def test_too_little_agreement_is_told_with_exit_code_1_and_the_files_are_written(
    run, capsys, monkeypatch
):
    written = []

    def exported(config, settings, check):
        written.append(config)
        figures = {"agreement": 0.98, "evaluated_bits": "8w8a", "gate": {"passed": True}}
        return figures | {"int8_against_simulation": {}}, {"figures": [run.export / "int8.json"]}

    monkeypatch.setattr(deployment, "export", exported)
    monkeypatch.setattr(tables, "export_tables", lambda figures, files: "")
    monkeypatch.setattr(gate, "gate_tables", lambda figures: "")
    monkeypatch.setattr(gate, "write_gate", lambda *arguments: [])
    assert export.main(command(run_dir=str(run.path), min_agreement=0.99)) == 1
    assert export.main(command(run_dir=str(run.path), min_agreement=0.98)) == 0
    assert len(written) == 2
    assert (
        "0.9800 with the 8w8a simulation is under --min_agreement=0.99" in capsys.readouterr().out
    )


def test_run_of_another_quantizer_is_exported_under_a_policy_that_int8_can_compute(
    run, printed, tmp_path_factory
):
    other = RunFolder(tmp_path_factory.mktemp("run") / "contrastive_quant")
    other.begin(Config())
    requantizable(load(run.backbone), "contrastive_quant").save(other.backbone)
    with pytest.raises(UserError, match="LinearWeightQuantizer.*--policy=int8"):
        export.main(command(run_dir=str(other.path), policy="contrastive_quant"))
    assert not other.export.exists()
    export.main(command(run_dir=str(other.path), policy="int8", min_agreement=0.0))
    files = [folder.export / "int8.tflite" for folder in (run, other)]
    assert files[0].read_bytes() == files[1].read_bytes()
    assert json.loads((other.export / "int8.json").read_text())["policy"] == "int8"


@pytest.fixture(scope="module")
def classifier(run, tmp_path_factory):
    """What `evaluate --keep_classifiers` saves: a backbone and a float classifier, 10 logits."""
    keras.utils.set_random_seed(0)
    network = with_classifier(load(run.backbone), 10)
    kernel, bias = network.get_layer("classifier").get_weights()
    rng = np.random.default_rng(0)
    network.get_layer("classifier").set_weights([rng.normal(size=kernel.shape), bias])
    file = tmp_path_factory.mktemp("kept") / "finetune_fp.keras"
    network.save(file)
    return file


def test_classifier_is_exported_whole_and_compared_by_its_own_logits(classifier, tmp_path):
    given = {"model": classifier, "dataset": "digits", "output_dir": tmp_path / "out"}
    assert export.main(command(classifier=True, test_images=360, test_crop=0.75, **given)) == 0
    figures = json.loads((tmp_path / "out" / "int8.json").read_text())
    assert (figures["compared"], figures["policy"]) == ("logits", "int8")
    assert figures["test_crop"] == 0.75
    lite = LiteModel((tmp_path / "out" / "int8.tflite").read_bytes())
    source = open_source("digits", None, False, False).split("test")
    images, labels = labelled_arrays(source, 8, test_crop=0.75)
    logits = lite(images)
    assert logits.shape == (360, 10)
    assert figures["top1"]["int8"] == np.mean(logits.argmax(axis=1) == labels)


def test_another_export_is_not_replaced_without_a_word(run, printed, tmp_path):
    run = RunFolder(shutil.copytree(run.path, tmp_path / "run"))
    written = (run.export / "int8.tflite").read_bytes()
    other = {"run_dir": run.path, "min_agreement": 0.0, "layer_bits": "stem:4w8a"}
    with pytest.raises(UserError, match="another export \\(policy: 'int8' -> 'int8, stem:4w8a'"):
        export.main(command(**other))
    assert (run.export / "int8.tflite").read_bytes() == written
    export.main(command(output_dir=tmp_path / "other", **other))
    assert (tmp_path / "other" / "int8.tflite").read_bytes() != written


def test_classifier_that_ends_in_softmax_is_exported_with_it(tmp_path):
    inputs = keras.Input((8, 8, 1))
    flat = keras.layers.Flatten()(inputs)
    outputs = keras.layers.Dense(10, activation="softmax", name="scores")(flat)
    keras.Model(inputs, outputs).save(tmp_path / "softmax.keras")
    place = {"model": tmp_path / "softmax.keras", "output_dir": tmp_path, "dataset": "digits"}
    export.main(command(classifier=True, min_agreement=0.0, **place))
    image = np.zeros((1, 8, 8, 1), np.float32)
    probabilities = LiteModel((tmp_path / "int8.tflite").read_bytes())(image)
    assert abs(np.sum(probabilities) - 1) < 0.03


def test_a_probe_makes_a_classifier_that_names_its_classes(run, tmp_path, capsys):
    given = {"run_dir": run.path, "probe": True, "min_agreement": 0.0, "output_dir": tmp_path}
    forms = {"format": "c,json", "profile": True}
    assert export.main(command(test_images=100, **given, **forms)) == 0
    assert {path.name for path in tmp_path.iterdir()} == {
        "float_classifier.tflite",
        *(f"int8_classifier{end}" for end in (".tflite", ".json", ".c", ".h", "_integers.json")),
        *(f"int8_classifier_gate.{end}" for end in ("json", "md", "png")),
    }
    content = (tmp_path / "int8_classifier.tflite").read_bytes()
    digits = list("0123456789")
    assert labels_of(content) == digits
    figures = json.loads((tmp_path / "int8_classifier.json").read_text())
    (train, labels), (test, test_labels) = (
        labelled_arrays(open_source("digits").split(name), 8) for name in ("train", "test")
    )
    # The probe is that of protocol linear on the integer form.
    form = tfcq.deployable(requantizable(load(run.backbone), "int8"))
    calibrate(form, train[:64])
    features, bits = FeatureExtractor(form), parse_bit_width("8w8a")
    probe = fit_linear_probe(features(train, bits), labels, 10)
    classifier = with_dense(form, *probe.dense())
    calibrate(classifier, train[:64])
    assert with_labels(LiteFile.read(int8_tflite(classifier, train[:64])), digits) == content
    found = LiteModel(content)(test[:100])
    assert figures["top1"]["int8"] == np.mean(found.argmax(axis=1) == test_labels[:100])
    assert figures["top1"]["int8"] == figures["gate"]["top1"]["xnnpack"]
    assert figures["compared"] == "logits of a linear probe"
    assert len(figures["profile"]) == len(figures["gate"]["operations"])
    printed = capsys.readouterr().out
    assert "share %" in printed and "Also: " in printed and "Microcontrollers: " in printed


def test_other_batches_are_another_export_and_flags_of_tfmot_are_used_with_a_classifier(
    run, printed, tmp_path
):
    for given in ({"batch": 2, "run_dir": run.path}, {"backend": "tfmot", "run_dir": run.path}):
        with pytest.raises(
            UserError, match="another export .batch: 1 -> 2|fine-tunes a classifier"
        ):
            export.main(command(**given))
    asked = {"backend": "tfmot", "classifier": True, "epochs": 2, "batch_size": 7}
    export.config_of(command(run_dir=run.path, **asked))


def test_another_librarys_file_goes_through_the_same_gate(run, tmp_path, monkeypatch, capsys):
    def foreign(model, images, bits):
        form = tfcq.deployable(tfcq.quantizable(tfcq.float_model(model), "int8"))
        calibrate(form, images)
        return int8_tflite(form, images, bits=bits)

    monkeypatch.setattr(backends, "quantizer_tflite", foreign)
    given = {"run_dir": run.path, "output_dir": tmp_path, "min_agreement": 1.0}
    other = command(backend="ai_edge_quantizer", bits="4w8a", **given)
    assert export.main(other) == 1
    assert "with the float network is under --min_agreement=1.0" in capsys.readouterr().out
    figures = json.loads((tmp_path / "ai_edge_quantizer_4w8a.json").read_text())
    assert figures["backend"] == "ai_edge_quantizer"
    assert figures["agreement"] == figures["int8_against_float"]["agreement"] < 1
    assert "int8_against_simulation" not in figures and "simulation" not in figures["top1"]
    assert figures["gate"]["passed"] and figures["gate"]["simulation_equal_steps"] is None


def test_tfmot_is_given_the_labels_and_told_how_to_fine_tune(run, tmp_path, monkeypatch):
    given = []

    def tuned(model, images, labels, *settings):
        given.append((model.output_shape, len(images), len(labels), *settings[:-1]))
        form = tfcq.deployable(tfcq.quantizable(tfcq.float_model(model), "int8"))
        calibrate(form, images)
        content = int8_tflite(form, images)
        return tfmot.FineTuned(
            content, [2.0, 1.0], 0.0, 0.5, 0.4, 0.6, LiteModel(content)(settings[-1])
        )

    monkeypatch.setattr(backends, "tfmot_tflite", tuned)
    asked = {"epochs": 2, "learning_rate": 0.5, "batch_size": 16, "seed": 3, "backend": "tfmot"}
    assert export.main(command(run_dir=run.path, probe=True, output_dir=tmp_path, **asked)) == 0
    assert given == [((None, 10), 1437, 1437, 2, 0.5, 16, 3)]
    figures = json.loads((tmp_path / "tfmot_classifier.json").read_text())
    assert figures["fine_tuning"]["losses"] == [2.0, 1.0]
    for other in ({"epochs": 3}, {"learning_rate": 0.1}, {"batch_size": 8}):
        with pytest.raises(UserError, match=f"another export .{next(iter(other))}: "):
            export.main(command(run_dir=run.path, probe=True, output_dir=tmp_path, **asked | other))
    assert len(given) == 1
    assert figures["agreement"] == figures["int8_against_simulation"]["agreement"] == 1


def test_storage_of_4_bits_that_holds_no_kernel_is_refused(run, tmp_path):
    asked = {"bits": "4w8a", "storage": "int4", "layer_bits": "*:8w8a"}
    with pytest.raises(UserError, match="int4 holds no kernel of this network"):
        export.main(command(run_dir=run.path, output_dir=tmp_path, **asked))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("layer_bits", "floats"), [("scores:fp", ["scores"]), ("*:fp", ["hidden", "scores"])]
)
def test_layers_in_float_of_a_float_classifier_are_told_by_their_names(
    layer_bits, floats, tmp_path, capsys
):
    keras.utils.set_random_seed(0)
    inputs = keras.Input((8, 8, 1))
    x = keras.layers.Dense(6, activation="relu", name="hidden")(keras.layers.Flatten()(inputs))
    model = keras.Model(inputs, keras.layers.Dense(10, name="scores")(x))
    model.save(tmp_path / "own.keras")
    given = {"model": tmp_path / "own.keras", "output_dir": tmp_path / "out", "dataset": "digits"}
    asked = {"classifier": True, "policy": "int8", "layer_bits": layer_bits}
    assert export.main(command(**given, **asked)) == 0
    figures = json.loads((tmp_path / "out" / "int8.json").read_text())
    assert figures["in_float"]["names"] == floats and figures["gate"]["passed"]
    assert f"In float: {', '.join(floats)}, " in capsys.readouterr().out
    content = (tmp_path / "out" / "int8.tflite").read_bytes()
    tensors = LiteFile.read(content).tensors
    kernels = {one.name.removesuffix("/kernel") for one in tensors if one.name.endswith("/kernel")}
    assert kernels == {"hidden", "scores"} - set(floats)
    if not kernels:
        images = np.random.default_rng(0).integers(0, 256, (20, 8, 8, 1)) / np.float32(255)
        np.testing.assert_allclose(LiteModel(content)(images), model(images), atol=1e-5)


def test_a_layer_that_no_integer_form_has_is_exported_in_float(tmp_path):
    inputs = keras.Input((8, 8, 1))
    x = keras.layers.Conv2DTranspose(4, 2, name="up")(inputs)
    x = keras.layers.Dense(10)(keras.layers.GlobalAveragePooling2D()(x))
    keras.Model(inputs, x).save(tmp_path / "own.keras")
    given = {"model": tmp_path / "own.keras", "output_dir": tmp_path / "out", "dataset": "digits"}
    asked = {"classifier": True, "layer_bits": "up:fp", "min_agreement": 0.0}
    assert export.main(command(**given, **asked)) == 0
    figures = json.loads((tmp_path / "out" / "int8.json").read_text())
    assert figures["in_float"]["names"] == ["up"]


def test_kept_classifier_without_its_flag_is_told_the_flag(classifier, tmp_path):
    place = {"model": classifier, "output_dir": tmp_path, "dataset": "digits"}
    with pytest.raises(UserError, match="exported with --classifier"):
        export.main(command(**place))


def test_features_are_not_taken_for_logits(run):
    with pytest.raises(UserError, match="10 classes"):
        export.main(command(run_dir=run.path, classifier=True))


def test_steps_after_training_reach_the_exported_model(run, printed, tmp_path):
    ignored = shutil.ignore_patterns("export")
    plain = run
    stepped = RunFolder(shutil.copytree(run.path, tmp_path / "stepped", ignore=ignored))
    steps = {"calibration": "mse", "correct_biases": True}
    export.main(command(run_dir=stepped.path, min_agreement=0.0, **steps))
    figures = [json.loads((one.export / "int8.json").read_text()) for one in (plain, stepped)]
    assert [f["post_training"] for f in figures] == [{}, {"correct_biases": True}]
    assert [f["calibration"]["method"] for f in figures] == ["minmax", "mse"]
    files = [one.export / "int8.tflite" for one in (plain, stepped)]
    assert files[0].read_bytes() != files[1].read_bytes()
    # One after the other, on the same images, as their functions do.
    train, _ = labelled_arrays(open_source("digits").split("train"), 8)
    plan = Plan(calibration="mse", correct_biases=True)
    form = tfcq.deployable(requantizable(load(run.backbone), "int8"))
    model = PostTraining(form, train[:64], plan)
    expected = int8_tflite(model.at(parse_bit_width("8w8a")).model, train[:64])
    assert files[1].read_bytes() == expected


def test_images_without_labels_are_refused(run, tmp_path):
    (tmp_path / "images").mkdir()
    image = keras.utils.array_to_img([[[0.0]] * 8] * 8)
    image.save(tmp_path / "images" / "a.png")
    with pytest.raises(UserError, match="labels|test"):
        export.main(command(run_dir=str(run.path), dataset=f"folder:{tmp_path / 'images'}"))


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({}, "--run_dir is missing"),
        ({"run_dir": "x", "min_agreement": 1.5}, "--min_agreement=1.5 .*allowed: 0 to 1"),
        ({"run_dir": "x", "policy": "papr"}, "policy 'papr'.*Did you mean 'paper'"),
        ({"run_dir": "x", "test_images": 0}, "--test_images=0 .*1 and above"),
        ({"run_dir": "no_such_folder"}, "'no_such_folder' does not exist"),
        ({"model": "a.keras", "dataset": "digits"}, "--output_dir is missing"),
        ({"run_dir": "x", "rounding_iterations": 5}, "--rounding_iterations has no effect"),
        ({"run_dir": "x", "probe": True, "classifier": True}, "allowed: one of them"),
        ({"run_dir": "x", "backend": "tfmot"}, "fine-tunes a classifier; allowed: with --probe"),
        ({"run_dir": "x", "backend": "tfmot", "probe": True, "bits": "4w8a"}, "allowed: 8w8a"),
        ({"run_dir": "x", "backend": "tf_mot"}, "Did you mean 'tfmot'"),
        ({"run_dir": "x", "epochs": 5}, "--epochs has no effect here: --backend=tfcq"),
        ({"run_dir": "x", "backend": "ai_edge_quantizer", "calibration": "mse"}, "--calibration h"),
        ({"run_dir": "x", "storage": "int4"}, "int4 does not hold weights at 8w8a"),
        ({"run_dir": "x", "format": "c,onyx"}, "Unknown format 'onyx'.* 'onnx'"),
        ({"run_dir": "x", "format": "onnx"}, "onnx needs tf2onnx; .*`pip install tf2onnx onnx`"),
    ],
)
def test_mistakes_are_told_before_anything_is_computed(values, text, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=text):
        export.main(command(**values))
