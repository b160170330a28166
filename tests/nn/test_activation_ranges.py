"""A network that was trained quantized is scored, saved and exported with ranges that it knows."""

import json

import keras
import numpy as np
import pytest
import tensorflow as tf

import tfcq
from tests.evaluation.evaluations import config_of
from tfcq import evaluate, export
from tfcq.backbones.resnet import resnet
from tfcq.data.sources import open_source
from tfcq.deployment.tflite import calibrated_form
from tfcq.errors import UserError
from tfcq.evaluation.classifier import train_classifier, with_classifier
from tfcq.evaluation.evaluation import open_subject
from tfcq.evaluation.features import FeatureExtractor
from tfcq.evaluation.protocols import linear
from tfcq.evaluation.run_subject import trained_backbone
from tfcq.integer.form import deployable
from tfcq.integer.runtime import LiteModel
from tfcq.nn.activation_ranges import (
    activation_layers,
    is_trained_quantized,
    mark_trained,
    trained_bits,
)
from tfcq.nn.calibration import calibrate
from tfcq.nn.float_model import requantizable
from tfcq.nn.loading import load
from tfcq.nn.quantizable import QuantizableModel, quantizable, quantizers_of
from tfcq.post_training.plan import Plan, PostTraining, Quantized
from tfcq.quantization.precision import Observe, Precision
from tfcq.settings.bitwidths import FLOAT, parse_bit_width
from tfcq.settings.policies import Policy
from tfcq.settings.run_folder import RunFolder
from tfcq.settings.training import Config
from tfcq.settings.training_groups import DataSettings, MethodSettings

# Two batches, so that ranges are unions.
CALIBRATION, TESTED = 300, 100
FEW = "3w4a"


def command(of, **values):
    arguments = [f"--{name}={value}" for name, value in values.items()]
    return of.flag_set().parse(["--verbosity=1", *arguments])


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A small network, trained on digits at few bits and at 8w8a, and kept."""
    keras.utils.set_random_seed(0)
    folder = RunFolder(tmp_path_factory.mktemp("run") / "digits")
    folder.begin(Config(data=DataSettings(train_images=400)))
    quantizable(resnet(18, "cifar", 8, (8, 8, 1), blocks=(1,)), "int8").save(folder.backbone)
    evaluate.main(
        command(evaluate, run_dir=folder.path, protocol="semi", label_share=1,
                bits=f"{FEW},8w8a", epochs=5, batch_size=20, curve_images=1,
                calibration_images=CALIBRATION, test_images=TESTED, keep_classifiers=True)
    )  # fmt: skip
    return folder


@pytest.fixture(scope="module")
def images():
    records = open_source("digits").split("train").first(400).records.as_numpy_iterator()
    return np.stack([record["image"] for record in records]).astype(np.float32) / 255


@pytest.fixture(scope="module")
def test_images():
    records = open_source("digits").split("test").first(TESTED).records.as_numpy_iterator()
    return np.stack([record["image"] for record in records]).astype(np.float32) / 255


def kept_file(run, bits):
    return run.evaluation / f"semi_100_{bits}.keras"


def held(model):
    return {n: (float(q.minimum), float(q.maximum)) for n, q in activation_layers(model)}


def seen(model, batches, precision):
    """Returns each quantizer's least and greatest input, pass by pass."""
    shown = {}
    for batch in batches:
        watch = Observe(lambda layer, x: shown.setdefault(layer.name, []).extend([x.numpy()]))
        model(batch, precision=precision(watch))
    return {
        name: (float(min(x.min() for x in xs)), float(max(x.max() for x in xs)))
        for name, xs in shown.items()
    }


def results(file):
    return {entry["bits"]: entry for entry in json.loads(file.read_text())["results"]}


def scores(entry):
    return entry["top1"], entry["top5"], entry["mean_per_class"]


def test_kept_ranges_are_those_of_the_quantized_pass_over_the_training_images(run, images):
    model = load(kept_file(run, FEW))
    batches = images[:256], images[256:CALIBRATION]
    quantized = seen(model, batches, lambda watch: Precision(3, 4, "tensor", watch=watch))
    ours = held(model)
    for name, ends in quantized.items():
        assert ours[name] == pytest.approx(ends, rel=1e-5, abs=1e-6)
    assert trained_bits(model) == parse_bit_width(FEW)
    # Or else this test would not tell the two passes apart.
    floats = seen(model, batches, lambda watch: watch)
    assert max(abs(floats[n][1] - quantized[n][1]) for n in floats) > 0.05


def test_saved_network_scores_as_it_did_behind_its_training(run, tmp_path):
    trained = results(run.evaluation / "semi_100.json")
    assert {entry["ranges"] for entry in trained.values()} == {"quantized pass"}
    values = {"model": kept_file(run, FEW), "dataset": "digits", "protocol": "classifier",
              "output_dir": tmp_path, "test_images": TESTED}  # fmt: skip
    evaluate.main(command(evaluate, bits=f"8w8a,{FEW}", **values))
    again = results(tmp_path / "classifier.json")
    assert scores(again[FEW]) == scores(trained[FEW])
    assert trained[FEW]["top1"] > 0.15
    assert again[FEW]["ranges"] == "of its training"
    assert again["8w8a"]["ranges"] == "quantized pass"
    evaluate.main(command(evaluate, bits=FEW, calibration_pass="float", **values))
    floats = results(tmp_path / "classifier.json")[FEW]
    assert floats["ranges"] == "float pass"


def test_int8_file_computes_what_the_pass_of_training_did(run, test_images, tmp_path):
    file = kept_file(run, "8w8a")
    export.main(
        command(export, model=file, dataset="digits", output_dir=tmp_path, classifier=True,
                test_images=TESTED, min_agreement=0)
    )  # fmt: skip
    figures = json.loads((tmp_path / "int8.json").read_text())
    assert figures["ranges"].startswith("of its training")
    trained = load(file)(test_images, precision=Precision(8, 8, "tensor")).numpy()
    deployed = LiteModel((tmp_path / "int8.tflite").read_bytes())(test_images)
    assert np.mean(deployed.argmax(axis=1) == trained.argmax(axis=1)) > 0.9


@pytest.mark.parametrize(
    ("framework", "recipe", "quantized"),
    [
        ("simsiam", "float", False),
        ("simsiam", "ssql", False),
        ("simsiam", "cq_a", True),
        # The trained network of BYOL has no float pass under this recipe: its target network has.
        ("byol", "ssql_no_aux", True),
        ("simsiam", "ssql_no_aux", False),
    ],
)
def test_networks_without_float_passes_are_calibrated_quantized(framework, recipe, quantized):
    keras.utils.set_random_seed(0)
    inputs = keras.Input((8, 8, 1))
    x = keras.layers.Conv2D(2, 3, activation="relu")(inputs)
    backbone = keras.Model(inputs, keras.layers.GlobalAveragePooling2D()(x))
    encoder = tfcq.Pretrainer(backbone, framework=framework, recipe=recipe).backbone
    assert is_trained_quantized(encoder) is quantized
    assert is_trained_quantized(requantizable(encoder, "uniform")) is quantized
    images = np.random.default_rng(0).random((4, 8, 8, 1), np.float32)
    if quantized:
        with pytest.raises(UserError, match="trained in quantized passes.*bits='4w8a'"):
            tfcq.calibrate(encoder, images)
        tfcq.calibrate(encoder, images, bits="4w8a")
        assert trained_bits(encoder) == parse_bit_width("4w8a")
    else:
        tfcq.calibrate(encoder, images)
        assert not is_trained_quantized(encoder)


def tiny(policy):
    """A quantizable model of one convolution, trained at FEW bits as far as its ranges know."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((8, 8, 1))
    x = keras.layers.Conv2D(3, 3, activation="relu")(inputs)
    model = quantizable(keras.Model(inputs, keras.layers.GlobalAveragePooling2D()(x)), policy)
    mark_trained(model, quantized=True)
    return model


def test_training_in_float_forgets_that_a_network_was_trained_quantized(images):
    network = with_classifier(tiny("uniform"), 10)
    batches = tf.data.Dataset.from_tensors((images[:4], np.arange(4))).repeat()
    for bits, quantized in ((FLOAT, False), (parse_bit_width(FEW), True)):
        train_classifier(network, batches, 1, 1, keras.optimizers.SGD(0.1), bits, lambda: 0.0)
        assert is_trained_quantized(network) is quantized


@pytest.mark.parametrize("method", ["minmax", "moving_average"])
def test_every_method_sees_the_quantized_pass(images, method):
    bits = parse_bit_width(FEW)
    model = PostTraining(tiny("uniform"), images[:32], Plan(calibration=method)).at(bits).model
    quantized = seen(
        model, [images[:32]], lambda watch: Precision(3, 4, "tensor", watch=watch)
    )  # fmt: skip
    for name, ends in held(model).items():
        assert ends == pytest.approx(quantized[name], rel=1e-5, abs=1e-7)
    assert trained_bits(model) == bits


def test_ranges_that_deployment_adds_are_those_of_the_quantized_pass(images):
    keras.utils.set_random_seed(0)
    inputs = keras.Input((8, 8, 1))
    x = keras.layers.Conv2D(3, 3, activation="relu")(inputs)
    # Policy `paper` leaves it float: an operand of a sum.
    operand = keras.layers.Conv2D(3, 3, padding="same", name="operand")(x)
    x = keras.layers.ReLU()(keras.layers.Add()([x, operand]))
    outputs = keras.layers.GlobalAveragePooling2D()(x)
    model = quantizable(keras.Model(inputs, outputs), "paper")
    mark_trained(model, quantized=True)
    PostTraining(model, images[:32], Plan()).at(parse_bit_width("8w8a"))
    layer = QuantizableModel(model.inputs[0], model.get_layer("operand").output)
    form = calibrated_form(model, images[:32])
    operand = form.get_layer("operand_quantizer")
    found = float(operand.minimum), float(operand.maximum)
    quantized, plain = (
        layer(images[:32], precision=precision).numpy() for precision in (Precision(8, 8), None)
    )
    # The form leaves out the lowest level of weights, which moves its passes a little.
    assert found == pytest.approx((quantized.min(), quantized.max()), rel=0.01)
    assert abs(found[1] - quantized.max()) < abs(found[1] - plain.max())


def test_deployment_keeps_the_ranges_that_were_recorded_whatever_images_it_is_given(images):
    keras.utils.set_random_seed(0)
    inputs = keras.Input((8, 8, 1))
    x = keras.layers.Conv2D(3, 3, activation="relu")(inputs)
    outputs = keras.layers.GlobalAveragePooling2D()(x)
    model = quantizable(keras.Model(inputs, outputs), "int8")
    calibrate(model, images[:32])
    form = deployable(model)
    known = {n: v for n, v in _ends(form).items() if np.all(np.isfinite(v))}
    dark = _ends(calibrated_form(model, images[:32] / 8))
    assert known and {name: dark[name] for name in known} == known


def _ends(model):
    """Returns both ends of every activation range by its layer."""
    return {
        name: (float(layer.minimum), float(layer.maximum))
        for name, layer in activation_layers(model)
    }


def test_files_from_before_hold_ranges_of_float_passes():
    (_, layer), *_ = activation_layers(tiny("uniform"))
    store = {str(place): value for place, value in enumerate([-1.0, 2.0])}
    layer.load_own_variables(store)
    assert (float(layer.minimum), float(layer.maximum)) == (-1, 2)
    assert layer.range_bits.numpy().tolist() == [0, 0] and int(layer.trained_quantized) == 0


def test_calibration_says_nothing_of_the_training(images):
    """How a network was trained and whose ranges it holds are two things."""
    model = tiny("uniform")
    calibrate(model, images[:32], bits="fp")
    assert is_trained_quantized(model) and trained_bits(model) is None
    mark_trained(model, quantized=False)
    calibrate(model, images[:32], bits=FEW)
    assert not is_trained_quantized(model) and trained_bits(model) is None
    calibrate(model, images[:32])


def test_equalized_networks_stay_trained_quantized(images):
    bits = parse_bit_width(FEW)
    keras.utils.set_random_seed(0)
    inputs = keras.Input((8, 8, 1))
    x = keras.layers.Conv2D(3, 3, activation="relu")(inputs)
    x = keras.layers.Conv2D(2, 3)(x)
    model = quantizable(keras.Model(inputs, keras.layers.GlobalAveragePooling2D()(x)), "uniform")
    mark_trained(model, quantized=True)
    found = PostTraining(model, images[:32], Plan(equalize=True)).at(bits)
    assert (found.ranges, found.weight_bits) == ("quantized pass", None)


def test_networks_without_ranges_tell_of_none(images):
    bits = parse_bit_width(FEW)
    policy = Policy("mine", weight_quantizer="dorefa", activation_quantizer="dorefa")
    model = tiny(policy)
    assert PostTraining(model, images[:32], Plan()).at(bits) == Quantized(
        model, steps="minmax ranges"
    )


def test_backbones_of_before_are_marked_by_their_recipe(tmp_path):
    for recipe, quantized in (("cq_a", True), ("ssql", False)):
        folder = RunFolder(tmp_path / recipe)
        folder.begin(Config(method=MethodSettings(recipe=recipe)))
        model = tiny("uniform")
        mark_trained(model, quantized=False)
        model.save(folder.backbone)
        run = folder.load()
        assert is_trained_quantized(trained_backbone(folder, run)) is quantized
        assert is_trained_quantized(trained_backbone(folder, run, "paper")) is quantized


def test_crops_of_another_protocol_leave_the_linear_probe_as_it_is(run, monkeypatch):
    def another(*arguments):
        raise AssertionError("trained otherwise")

    monkeypatch.setattr(linear, "on_cached_features", another)
    evaluate.main(
        command(evaluate, run_dir=run.path, protocol="linear,finetune", crop_area="0.5-1",
                bits="fp", epochs=1, learning_rate_schedule="cosine", train_images=100,
                batch_size=50, test_images=TESTED)
    )  # fmt: skip


def test_rounding_as_trained_leaves_the_quantizers_of_a_run(run):
    subject = open_subject(config_of(run_dir=run.path, rounding="nearest"))
    assert subject.has_own_policy and subject.policy_name == "as trained"


@pytest.mark.parametrize("rounding", ["floor", "stochastic"])
def test_rounding_asked_for_is_that_of_every_quantizer(run, rounding):
    subject = open_subject(config_of(run_dir=run.path, rounding=rounding))
    quantizers = [
        *quantizers_of(subject.model, "weight_quantizer").values(),
        *quantizers_of(subject.model, "quantizer").values(),
    ]
    assert {quantizer.rounding for quantizer in quantizers} == {rounding}
    assert subject.policy_name == f"as trained, rounding {rounding}"


def test_noise_of_an_evaluation_differs_between_batches_and_repeats(images):
    model = tiny(Policy("noisy", rounding="stochastic"))
    calibrate(model, images[:32], bits=FEW)
    features = FeatureExtractor(model, batch_size=1)
    twice = np.stack([images[0], images[0]])
    first, second = features(twice, parse_bit_width(FEW))
    assert np.any(first != second)
    np.testing.assert_array_equal(features(twice, parse_bit_width(FEW)), [first, second])


def test_ranges_that_are_being_recorded_cannot_be_used():
    with pytest.raises(UserError, match="watch=Observe with ranges='recorded'"):
        Precision(4, 4, watch=Observe(lambda layer, x: None))
