"""The command writes JSON and picture, tells a table, and names files by what was evaluated."""

import json
import shutil

import keras
import numpy as np
import pytest

from tests.evaluation.evaluations import command_of as command
from tfcq import command_line, evaluate
from tfcq.backbones.resnet import resnet
from tfcq.data.augmentation import Augmentation
from tfcq.data.sources import open_source
from tfcq.errors import UserError
from tfcq.evaluation import data as evaluation_data
from tfcq.evaluation import run as evaluation_run
from tfcq.evaluation.classifier import with_classifier
from tfcq.evaluation.protocols import fit
from tfcq.evaluation.records import add_record
from tfcq.files import UNFINISHED
from tfcq.nn.float_model import requantizable
from tfcq.nn.loading import load
from tfcq.nn.quantizable import quantizable
from tfcq.settings.policies import PAPER
from tfcq.settings.run_folder import RunFolder
from tfcq.settings.training import Config
from tfcq.settings.training_groups import DataSettings, MethodSettings


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run on digits that ended, with a small network as it was initialized."""
    keras.utils.set_random_seed(0)
    folder = RunFolder(tmp_path_factory.mktemp("run") / "digits")
    folder.begin(Config(data=DataSettings(train_images=500)))
    model = resnet(18, "cifar", 4, (8, 8, 1), blocks=(1,))
    quantizable(model, "contrastive_quant").save(folder.backbone)
    return folder


def test_files_and_table_are_written(run, tmp_path, capsys):
    # A copy, since other tests evaluate the run too.
    ignored = shutil.ignore_patterns("evaluation")
    run = RunFolder(shutil.copytree(run.path, tmp_path / "run", ignore=ignored))
    # What an evaluation left that was killed while it wrote.
    (run.evaluation / f"{UNFINISHED}killed").mkdir(parents=True)
    evaluate.main(command(run_dir=str(run.path), protocol="knn", bits="fp,4w8a"))
    assert sorted(path.name for path in run.evaluation.iterdir()) == ["knn.json", "knn.png"]
    found = json.loads((run.evaluation / "knn.json").read_text())
    assert (found["dataset"], found["protocol"], found["policy"]) == ("digits", "knn", "as trained")
    assert found["test_crop"] == 1.0
    assert [entry["bits"] for entry in found["results"]] == ["fp", "4w8a"]
    assert all(0 < entry["top1"] <= entry["top5"] <= 1 for entry in found["results"])
    printed = capsys.readouterr().out
    assert "| top-1 % " in printed and "| mean per class % |" in printed and "knn.json" in printed


def read(run, name):
    return json.loads((run.evaluation / f"{name}.json").read_text())


def test_ranges_and_steps_after_training_are_those_asked_for_and_recorded(run):
    values = {"run_dir": str(run.path), "protocol": "knn", "policy": "paper", "bits": "fp,2w2a",
              "calibration_images": 50}  # fmt: skip
    found = []
    for asked in ({}, {"calibration": "mse"}, {"weight_scales": "mse"}):
        evaluate.main(command(**asked, **values))
        newest = read(run, "knn")
        calibration = newest["calibration"]
        assert (calibration["method"], calibration["images"]) == (
            asked.get("calibration", "minmax"), 50,
        )  # fmt: skip
        assert newest["settings"].get("weight_scales") == asked.get("weight_scales")
        found.append([entry["top1"] for entry in newest["results"]])
    assert len({floats for floats, _ in found}) == 1
    assert len({quantized for _, quantized in found}) == 3


def test_protocols_asked_for_together_agree_with_each_alone(run, tmp_path):
    evaluate.main(command(run_dir=str(run.path), protocol="linear,knn", bits="4w8a"))
    linear = read(run, "linear")
    evaluate.main(command(run_dir=str(run.path), protocol="linear", bits="4w8a"))
    assert read(run, "linear") == linear


def test_backbone_is_scored_on_another_data_set(run, tmp_path, monkeypatch):
    random = np.random.default_rng(0)
    for split, count in (("train", 4), ("test", 2)):
        for level, name in ((40, "dark"), (200, "bright")):
            (tmp_path / split / name).mkdir(parents=True)
            for index in range(count):
                pixels = level + random.integers(-30, 30, (8, 8, 1))
                keras.utils.save_img(tmp_path / split / name / f"{index}.png", pixels, scale=False)
    dataset = f"folder:{tmp_path}"
    batches, used = fit.view_batches, []

    def seen(split, augmentation, *others, **named):
        used.append(augmentation)
        return batches(split, augmentation, *others, **named)

    monkeypatch.setattr(fit, "view_batches", seen)
    evaluate.main(
        command(run_dir=str(run.path), protocol="finetune", bits="fp", dataset=dataset, epochs=1,
                batch_size=4, learning_rate_schedule="cosine", crop_area="0.7-1", test_crop=0.75)
    )  # fmt: skip
    found = read(run, "finetune")
    settings = found["settings"]
    assert used == [Augmentation(**settings["augmentation"])]
    assert (used[0].crop_area, settings["classifier_start"]) == ((0.7, 1.0), "uniform")
    assert "crop_area" not in settings and found["test_crop"] == 0.75
    assert (found["dataset"], found["train_images"], found["test_images"]) == (dataset, 8, 4)
    assert found["settings"]["epochs"] == 1 and len(found["results"][0]["curve"]) == 1


@pytest.mark.parametrize("deterministic", [False, True])
def test_tensorflow_starts_as_a_deterministic_evaluation_needs_it(run, monkeypatch, deterministic):
    started = []

    def start_up(self, deterministic=False, **others):
        started.append(deterministic)
        raise SystemExit

    monkeypatch.setattr(command_line.Command, "start_up", start_up)
    with pytest.raises(SystemExit):
        evaluate.main(command(run_dir=run.path, protocol="qat", deterministic=deterministic))
    assert started == [deterministic]


def test_damaged_results_are_told_of_before_anything_is_computed(run, tmp_path, monkeypatch):
    run = RunFolder(shutil.copytree(run.path, tmp_path / "run"))
    run.evaluation.mkdir(exist_ok=True)
    monkeypatch.setattr(evaluation_run, "measure", None)
    for text in ("{", '{"results": [{"top1": 0.5}]}'):
        (run.evaluation / "knn.json").write_text(text)
        with pytest.raises(UserError, match="cannot be read as results"):
            evaluate.main(command(run_dir=run.path, protocol="knn"))


def test_quantizers_are_recorded_whatever_the_policy_is_called(run, tmp_path):
    other = RunFolder(tmp_path / "other")
    other.begin(Config(method=MethodSettings(recipe="cq_a")))
    requantizable(load(run.backbone), "contrastive_quant").save(other.backbone)
    found = []
    for one in (run, other):
        evaluate.main(command(run_dir=one.path, protocol="knn", bits="fp"))
        found.append(read(one, "knn"))
    assert [record["policy"] for record in found] == ["as trained"] * 2
    kinds = [record["quantization"]["weight_quantizer"] for record in found]
    assert kinds == ["minmax", "linear"]


def test_mixed_precision_tells_the_bits_of_every_layer(tmp_path, capsys):
    run = RunFolder(tmp_path / "run")
    run.begin(Config())
    keras.utils.set_random_seed(0)
    model = resnet(18, "cifar", 4, (8, 8, 1), blocks=(1, 1))
    quantizable(model, "paper").save(run.backbone)
    evaluate.main(
        command(run_dir=run.path, protocol="knn", policy="paper", bits="fp,4w8a",
                mixed_precision=True, calibration_images=50)
    )  # fmt: skip
    mixed = read(run, "knn")["results"][-1]["weight_bits"]
    assert mixed["stem"] == 8 and len(set(mixed.values())) > 2
    printed = capsys.readouterr().out
    assert f"weight bits: {', '.join(f'{n} {b}' for n, b in mixed.items())}" in printed


def test_weights_of_one_scale_a_layer_are_another_policy(run):
    values = {"run_dir": str(run.path), "protocol": "knn", "policy": "paper", "bits": "2w4a"}
    found = []
    for per_tensor in (False, True):
        evaluate.main(command(per_tensor=per_tensor, **values))
        found.append(read(run, "knn"))
    assert [record["policy"] for record in found] == ["paper", "paper, per tensor"]
    assert [record["quantization"]["per_channel"] for record in found] == [True, False]
    assert found[0]["results"] != found[1]["results"]


def test_backbone_without_pretraining_is_scored_in_a_file_of_its_own(run):
    values = {"run_dir": str(run.path), "bits": "fp", "from_scratch": True}
    found = []
    for seed, protocol in ((1, "linear,knn"), (1, "knn"), (2, "knn")):
        evaluate.main(command(protocol=protocol, seed=seed, **values))
        found.append(read(run, "knn_from_scratch")["results"])
    assert read(run, "linear_from_scratch")["seed"] == 1
    evaluate.main(command(run_dir=str(run.path), protocol="knn", bits="fp"))
    own = {entry["bits"]: entry for entry in read(run, "knn")["results"]}["fp"]
    assert found[0] == found[1] and found[0] != found[2] and own not in found[0]


def test_fine_tuning_does_not_leave_learned_scales_behind(run, tmp_path):
    other = RunFolder(tmp_path / "pact")
    other.begin(Config(method=MethodSettings(recipe="pact")))
    policy = PAPER.with_quantizers("dorefa", "pact")
    requantizable(load(run.backbone), policy).save(other.backbone)
    with pytest.raises(UserError, match="learned scale.*--policy=paper, or --protocol=qat"):
        evaluate.main(command(run_dir=other.path, protocol="finetune", bits="fp,4w4a"))


def test_weights_that_are_nan_are_refused(run, tmp_path):
    model = load(run.backbone)
    kernel = model.get_layer("stem").kernel
    place = {"model": tmp_path / "nan.keras", "output_dir": tmp_path, "dataset": "digits"}
    for value in (np.nan, np.inf):
        kernel.assign(np.full(kernel.shape, value))
        model.save(tmp_path / "nan.keras")
        with pytest.raises(UserError, match="'stem/kernel' of .*nan.keras holds NaN or infinity"):
            evaluate.main(command(bits="fp", **place))


def test_quantization_aware_training_of_a_saved_model_asks_where_quantizers_go(run, tmp_path):
    place = {"model": run.backbone, "output_dir": tmp_path, "dataset": "digits"}
    with pytest.raises(UserError, match="qat places quantizers .*--policy=paper"):
        evaluate.main(command(protocol="qat", bits="4w4a", **place))


def test_start_of_quantization_aware_training_fits_the_data(run):
    options = {"run_dir": run.path, "protocol": "qat", "start": "finetune", "train_images": 100}
    with pytest.raises(UserError, match="batches of 256, and there are 100 .*--batch_size"):
        evaluate.main(command(**options))


def test_images_that_are_decoded_anew_score_the_same(run, monkeypatch):
    options = {"run_dir": run.path, "protocol": "linear,knn", "bits": "fp,3w3a", "epochs": 1,
               "calibration_images": 100, "calibration_seed": 3}  # fmt: skip
    evaluate.main(command(**options))
    held = read(run, "linear"), read(run, "knn")
    for name in ("linear", "knn"):
        (run.evaluation / f"{name}.json").unlink()
    monkeypatch.setattr(evaluation_data, "HELD_BYTES", 0)
    evaluate.main(command(**options))
    assert read(run, "linear")["results"] == held[0]["results"]
    # Their fingerprint is the same too, so that both are one evaluation.
    assert {**read(run, "knn"), "earlier": []} == {**held[1], "earlier": []}


def test_whole_networks_are_trained_on_images_that_are_decoded_anew(run, monkeypatch):
    options = {"run_dir": run.path, "protocol": "finetune", "bits": "fp", "epochs": 1,
               "learning_rate_schedule": "cosine", "train_images": 300, "test_images": 150,
               "curve_images": 50}  # fmt: skip
    found = []
    for held in (evaluation_data.HELD_BYTES, 0):
        monkeypatch.setattr(evaluation_data, "HELD_BYTES", held)
        evaluate.main(command(**options))
        found.append(read(run, "finetune")["results"][0])
        (run.evaluation / "finetune.json").unlink()
    assert found[0] == found[1]


def test_bits_of_single_layers_can_be_named(run):
    values = {"run_dir": str(run.path), "protocol": "knn", "policy": "paper", "bits": "2w4a"}
    evaluate.main(command(layer_bits="stage1_*:8w8a,stem:fp", **values))
    newest = read(run, "knn")
    assert newest["policy"] == "paper, stage1_*:8w8a,stem:fp"
    evaluate.main(command(**values))
    assert read(run, "knn")["results"][0]["top1"] != newest["results"][0]["top1"]
    with pytest.raises(UserError, match="stagr2"):
        evaluate.main(command(layer_bits="stagr2_*:8w8a", **values))


def test_kept_classifier_scores_what_was_reported(run):
    options = {
        "run_dir": str(run.path), "protocol": "finetune", "bits": "fp,4w8a", "epochs": 1,
        "learning_rate_schedule": "cosine", "policy": "paper", "keep_classifiers": True,
        "curve_images": 100, "train_images": 300, "test_images": 150,
    }  # fmt: skip
    evaluate.main(command(**options))
    found = read(run, "finetune")
    assert found["settings"]["curve_images"] == 100
    reported = [entry["top1"] for entry in found["results"]]
    with pytest.raises(UserError, match="finetune_fp.keras exists"):
        evaluate.main(command(**options))
    file = run.evaluation / "finetune_fp.keras"
    evaluate.main(
        command(model=file, output_dir=run.evaluation, dataset="digits", protocol="classifier",
                train_images=300, test_images=150, bits="fp,4w8a", calibration="minmax")
    )  # fmt: skip
    assert [entry["top1"] for entry in read(run, "classifier")["results"]] == reported
    # Quantization-aware training goes on from it: without a change of weights, its own accuracy.
    qat = options | {"protocol": "qat", "start": file, "bits": "fp,4w8a", "learning_rate": 1e-12}
    evaluate.main(command(**qat))
    newest = read(run, "qat_lsq")
    # The classifier stays float there too.
    kept = run.evaluation / "qat_lsq_4w8a.keras"
    assert type(load(kept).get_layer("classifier")) is keras.layers.Dense
    assert newest["settings"]["start"] == "kept classifier" and newest["start_weights"]
    assert newest["results"][0]["top1"] == pytest.approx(reported[0], abs=0.02)
    for kept in run.evaluation.glob("*.keras"):
        kept.unlink()


def test_start_that_is_no_classifier_of_the_backbone_is_refused(run, tmp_path):
    other = resnet(18, "cifar", 8, (8, 8, 1), blocks=(1,))
    quantizable(other, "paper").save(tmp_path / "other.keras")
    options = {"run_dir": run.path, "protocol": "qat", "start": tmp_path / "other.keras"}
    with pytest.raises(UserError, match="is no classifier on a network like .*keep_classifiers"):
        evaluate.main(command(**options))
    own = requantizable(load(run.backbone), "paper")
    with_classifier(own, 7).save(tmp_path / "other.keras")
    with pytest.raises(UserError, match="tells 7 classes apart and the data have 10"):
        evaluate.main(command(**options))


def test_images_of_any_size_are_streamed_from_a_folder(run, tmp_path, monkeypatch):
    for split in ("train", "test"):
        for label, name in enumerate(("dark", "bright")):
            (tmp_path / split / name).mkdir(parents=True)
            for index in range(3):
                pixels = np.full((8 + index, 9, 1), 20 + 200 * label + index)
                keras.utils.save_img(tmp_path / split / name / f"{index}.png", pixels, scale=False)
    options = {"run_dir": run.path, "protocol": "knn", "bits": "fp,8w8a", "image_size": 8,
               "dataset": f"folder:{tmp_path}"}  # fmt: skip
    found = []
    for held in (evaluation_data.HELD_BYTES, 0):
        # Another test may or may not have evaluated the run in this process.
        (run.evaluation / "knn.json").unlink(missing_ok=True)
        monkeypatch.setattr(evaluation_data, "HELD_BYTES", held)
        evaluate.main(command(**options))
        found.append(read(run, "knn"))
    assert found[0] == found[1] and found[0]["test_images"] == 6
    assert found[0]["test_crop"] == 0.875


def test_saved_classifier_is_scored_by_its_own_logits(tmp_path):
    inputs = keras.Input((8, 8, 1))
    logits = keras.layers.Dense(10, name="logits")(keras.layers.Flatten()(inputs))
    model = keras.Model(inputs, logits)
    model.save(tmp_path / "mine.keras")
    place = {"model": tmp_path / "mine.keras", "output_dir": tmp_path / "out"}
    evaluate.main(command(dataset="digits", protocol="classifier", bits="fp,8w8a", **place))
    found = json.loads((tmp_path / "out" / "classifier.json").read_text())
    data = open_source("digits").split("test")
    batches = list(data.records.as_numpy_iterator())
    images = np.stack([b["image"] for b in batches]).astype(np.float32) / 255
    labels = np.array([b["label"] for b in batches])
    expected = np.mean(model.predict_on_batch(images).argmax(axis=1) == labels)
    assert found["results"][0]["top1"] == pytest.approx(expected)
    # A backbone has no logits for the classes.
    features = keras.layers.Dense(7)(keras.layers.Flatten()(inputs))
    keras.Model(inputs, features).save(tmp_path / "mine.keras")
    with pytest.raises(UserError, match="returns shape .* 10 classes; allowed"):
        evaluate.main(command(dataset="digits", protocol="classifier", bits="fp", **place))


def test_models_of_another_form_are_refused_in_one_line(tmp_path):
    inputs, other = keras.Input((8, 8, 1)), keras.Input((8, 8, 1))
    flat = keras.layers.Flatten()(inputs)
    models = {
        "has 2 inputs": keras.Model([inputs, other], keras.layers.Add()([inputs, other])),
        "2 outputs": keras.Model(inputs, [flat, flat]),
        "GlobalAveragePooling2D": keras.Model(inputs, keras.layers.Conv2D(2, 3)(inputs)),
        "named 'classifier'": keras.Model(inputs, keras.layers.Dense(2, name="classifier")(flat)),
    }
    for text, model in models.items():
        model.save(tmp_path / "mine.keras")
        with pytest.raises(UserError, match=text):
            evaluate.main(
                command(model=tmp_path / "mine.keras", output_dir=tmp_path / "out",
                        dataset="digits")
            )  # fmt: skip


def test_other_weights_are_another_evaluation(tmp_path):
    inputs = keras.Input((8, 8, 1))
    values = {"model": tmp_path / "mine.keras", "output_dir": tmp_path, "dataset": "digits"}
    for bits in ("fp", "4w4a"):
        flat = keras.layers.Flatten()(inputs)
        keras.Model(inputs, keras.layers.Dense(3)(flat)).save(tmp_path / "mine.keras")
        evaluate.main(command(protocol="knn", bits=bits, **values))
    found = json.loads((tmp_path / "knn.json").read_text())
    assert [entry["bits"] for entry in found["results"]] == ["4w4a"]
    assert [entry["bits"] for entry in found["earlier"][0]["results"]] == ["fp"]
    assert found["policy"] == "paper"
    for name in ("batch_size", "neighbours"):
        protocol = "linear" if name == "batch_size" else "knn"
        with pytest.raises(UserError, match=f"--{name}=2000 with 1437 training images"):
            evaluate.main(command(protocol=protocol, **{name: 2000}, **values))


def images_of(folder, classes):
    """Writes a folder data set with so many grey training images of each class, one to test."""
    for name, count in classes.items():
        for split, number in (("train", count), ("test", 1)):
            (folder / split / name).mkdir(parents=True)
            for index in range(number):
                pixels = np.full((8, 8, 1), 100 + index)
                keras.utils.save_img(folder / split / name / f"{index}.png", pixels, scale=False)
    return f"folder:{folder}"


@pytest.mark.parametrize(
    ("classes", "text"),
    [({"a": 3, "b": 1}, "Class 'b' has 1 training images; allowed: 2 and above"),
     ({"a": 3, "b": 0}, "train/b' holds no images")],
)  # fmt: skip
def test_classes_that_cannot_be_learned_leave_no_results(run, tmp_path, classes, text):
    # Another test may or may not have evaluated the run in this process.
    run.evaluation.mkdir(exist_ok=True)
    before = {path: path.read_bytes() for path in sorted(run.evaluation.iterdir())}
    with pytest.raises(UserError, match=text):
        evaluate.main(command(run_dir=str(run.path), dataset=images_of(tmp_path, classes)))
    assert {path: path.read_bytes() for path in sorted(run.evaluation.iterdir())} == before


def test_unreadable_files_are_told_in_one_line(run, tmp_path):
    (tmp_path / "broken.keras").write_text("no model")
    with pytest.raises(UserError, match="cannot be read as a Keras model"):
        evaluate.main(
            command(model=tmp_path / "broken.keras", output_dir=tmp_path, dataset="digits")
        )
    inputs = keras.Input((28, 28, 3))
    features = keras.layers.Dense(7)(keras.layers.Flatten()(inputs))
    keras.Model(inputs, features).save(tmp_path / "colour.keras")
    with pytest.raises(UserError, match=r"have shape \(28, 28, 1\); the model takes \(28, 28, 3\)"):
        evaluate.main(
            command(model=tmp_path / "colour.keras", output_dir=tmp_path, dataset="digits")
        )
    file = RunFolder(tmp_path).evaluation / "knn.json"
    file.parent.mkdir()
    file.write_text("{")
    with pytest.raises(UserError, match="cannot be read as results"):
        add_record(file, {"results": []})
    assert file.read_text() == "{"


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({}, "--run_dir is missing"),
        ({"run_dir": "x", "protocol": "liner"}, "Did you mean 'linear'"),
        ({"run_dir": "x", "protocol": "knn,knn"}, "'knn' stands twice"),
        ({"run_dir": "x", "model": "y.keras"}, "--run_dir and --model were both given"),
        ({"model": "y.keras", "dataset": "digits"}, "--output_dir is missing"),
        ({"model": "y.h5", "dataset": "digits", "output_dir": "z"}, "save it with model.save"),
        ({"model": "y.pb", "dataset": "digits", "output_dir": "z"}, "allowed: PATH.keras"),
        ({"model": "y.keras", "dataset": "digits", "output_dir": "z"}, "does not exist"),
        ({"run_dir": "x", "output_dir": "z"}, "--output_dir has no effect"),
        ({"run_dir": "x", "protocol": "semi"}, "--label_share is missing"),
        ({"run_dir": "x", "protocol": "semi", "label_share": 2}, "--label_share=2.0"),
        ({"run_dir": "x", "label_share": 0.1}, "--label_share has no effect.*linear"),
        ({"run_dir": "x", "quantizer": "pact"}, "--quantizer has no effect"),
        ({"run_dir": "x", "protocol": "qat", "quantizer": "lqs"}, "Did you mean 'lsq'"),
        ({"run_dir": "x", "protocol": "qat", "start": "finetun"}, "Did you mean 'finetune'"),
        ({"run_dir": "x", "protocol": "qat", "start": "no.keras"}, "no.keras does not exist"),
        ({"run_dir": "x", "weights": "imagenet"}, "--weights has no effect here"),
        (
            {
                "model": "applications:VGG16",
                "dataset": "digits",
                "output_dir": "z",
                "weights": "imagenett",
            },
            "Unknown weights 'imagenett'; allowed: imagenet",
        ),
        (
            {
                "model": "applications:VGG16",
                "dataset": "digits",
                "output_dir": "z",
                "protocol": "classifier",
            },
            "allowed: classifier alone and with --weights",
        ),
        (
            {
                "model": "applications:VGG16",
                "dataset": "digits",
                "output_dir": "z",
                "protocol": "finetune",
                "from_scratch": True,
                "weights": "imagenet",
            },
            "--weights has no effect here: --from_scratch",
        ),
        ({"run_dir": "x", "preset": "sqsl"}, "Did you mean 'ssql'"),
        ({"run_dir": "x", "protocol": "knn", "epochs": 3}, "--epochs has no effect"),
        ({"run_dir": "x", "epochs": 0}, "--epochs=0 .*1 and above"),
        ({"run_dir": "x", "learning_rate": "nan"}, "--learning_rate=nan .*finite"),
        ({"run_dir": "x", "weight_decay": -1}, "--weight_decay=-1.0 .*0 and above"),
        ({"run_dir": "x", "protocol": "qat", "epochs": 3}, "after 30 epochs, and --epochs=3"),
        ({"run_dir": "x", "milestones": "3epochs"}, "schedule=cosine with --milestones=3epochs"),
        ({"run_dir": "x", "protocol": "qat", "calibration": "mse"}, "--calibration has no effect"),
        (
            {"run_dir": "x", "protocol": "qat", "rounding": "adaround"},
            "--rounding has no effect here: qat",
        ),
        (
            {"run_dir": "x", "protocol": "semi", "label_share": 0.1, "equalize": True},
            "--equalize has no effect here: semi",
        ),
        ({"run_dir": "x", "rounding": "adaruond"}, "'adaruond'.*Did you mean 'adaround'"),
        ({"run_dir": "x", "rounding_iterations": 5}, "--rounding_iterations has no effect"),
        ({"run_dir": "x", "keep_classifiers": True}, "--keep_classifiers has no effect"),
        ({"run_dir": "x", "per_tensor": True}, "--policy is missing; --per_tensor needs"),
        ({"run_dir": "x", "calibration_images": 9, "bits": "fp"}, "--bits=fp quantizes nothing"),
        ({"run_dir": "x", "protocol": "qat", "calibration_seed": 3}, "--calibration_seed has no"),
        ({"run_dir": "x", "layer_bits": "stem:8w8a"}, "--policy is missing; --layer_bits needs"),
        ({"run_dir": "x", "layer_bits": "a:8w8a,a:4w4a"}, "name 'a' twice"),
        ({"run_dir": "x", "equalize": True, "bits": "fp"}, "--bits=fp quantizes nothing"),
        ({"run_dir": "x", "layer_bits": "stem"}, "'stem' cannot be read; allowed: PATTERN:BITS"),
        ({"run_dir": "x", "layer_bits": "stem:1w8a"}, "'1w8a'; allowed: 'fp', '8w8a'"),
        ({"run_dir": "x", "policy": "int4"}, "policy 'int4'.*Did you mean 'int8'"),
        ({"run_dir": "x", "calibration_images": 0}, "--calibration_images=0 .*1 and above"),
        ({"run_dir": "x", "seed": -1}, "--seed=-1 .*allowed: 0 to"),
        ({"run_dir": "x", "protocol": "knn", "seed": 1}, "--seed has no effect"),
        ({"run_dir": "x", "bits": "1w8a"}, "1w8a"),
        ({"run_dir": "x", "calibration": "msee"}, "calibration 'msee'.*Did you mean 'mse'"),
        ({"run_dir": "no_such_folder"}, "'no_such_folder' does not exist"),
    ],
)
def test_mistakes_are_told_before_anything_is_computed(values, text, monkeypatch):
    monkeypatch.setattr(evaluation_run, "evaluate", None)
    with pytest.raises(UserError, match=text):
        evaluate.main(command(**values))
