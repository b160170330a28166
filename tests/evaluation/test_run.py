"""Every flag reaches what it is for and stands in the record; one without effect is refused."""

import dataclasses

import keras
import numpy as np
import pytest
from tfcq.evaluation_flags import config_from_flags

from tests.evaluation.test_protocols import NO_AUGMENTATION, tiny_task
from tfcq import evaluate, evaluation_data, measurement, opened_subject
from tfcq.backbones.resnet import resnet
from tfcq.errors import TrainingStopped, UserError
from tfcq.evaluation import records
from tfcq.evaluation.accuracy import Accuracy
from tfcq.evaluation.classifier import CLASSIFIER, with_classifier
from tfcq.nn.calibration import calibrate
from tfcq.nn.cloning import copy_of
from tfcq.nn.layers import QuantizedConv2D, QuantizedDense
from tfcq.nn.quantizable import quantizable
from tfcq.reporting import plots
from tfcq.settings.evaluation import GROUPS, USED_BY
from tfcq.settings.protocols import PRESETS
from tfcq.settings.run_folder import RunFolder
from tfcq.settings.training import Config, DataSettings, config_from_flat

TRAINED = {"linear", "finetune", "semi", "qat"}
WHOLE = TRAINED - {"linear"}
WITH_NEW = TRAINED - {"qat"}
AFTER = {"linear", "knn", "finetune", "classifier"}
# What each flag is for: another value than the default, and the protocols that use it.
FLAGS = {
    "neighbours": (5, {"knn"}),
    "temperature": (0.2, {"knn"}),
    "features": ("augmented", {"linear"}),
    "label_share": (1, {"finetune", "semi"}),
    "from_scratch": (True, {"linear", "knn", "finetune", "semi"}),
    "quantizer": ("pact", {"qat"}),
    "start": ("finetune", {"qat"}),
    "curve_images": (50, WHOLE),
    "keep_classifiers": (True, WHOLE),
    "seed": (1, TRAINED),
    "preset": ({"linear": "ssql", "semi": "contrastive_quant_imagenet_1"}, TRAINED),
    "epochs": (70, TRAINED),
    "batch_size": (64, TRAINED),
    "optimizer": ("lars", TRAINED),
    "learning_rate": (0.3, TRAINED),
    "learning_rate_schedule": ("constant", TRAINED),
    "milestones": ("7epochs", TRAINED),
    "weight_decay": (0.01, TRAINED),
    "crop_area": ("0.5-0.9", TRAINED),
    "classifier_start": ({"linear": "normal", "finetune": "zeros", "semi": "zeros"}, WITH_NEW),
    "equalize": (True, AFTER),
    "mixed_precision": (True, AFTER),
    "weight_scales": ("mse", AFTER),
    "rounding": ("adaround", AFTER),
    "rounding_iterations": (50, AFTER),
    "reestimate_batch_norm": (True, AFTER),
    "correct_biases": (True, AFTER),
}
USES = [(protocol, name) for name, (_, used) in FLAGS.items() for protocol in sorted(used)]


def command_of(**flags):
    arguments = [f"--{name}={value}" for name, value in flags.items()]
    return evaluate.flag_set().parse(["--verbosity=1", *arguments])


def config_of(**flags):
    flags = {"run_dir": "run", **flags}
    command = command_of(**{name: value for name, value in flags.items() if value is not None})
    return config_from_flags(command.values, command.given)


def flags_of(protocol, name=None):
    """Returns the flags of an evaluation, with one more, and those that it needs."""
    flags = {"protocol": protocol} | ({"label_share": 0.5} if protocol == "semi" else {})
    if name is None:
        return flags
    value = FLAGS[name][0]
    if isinstance(value, dict):
        value = value.get(protocol, next(iter(value.values())))
    return flags | needed_beside(protocol, name) | {name: value}


def needed_beside(protocol, name):
    """Returns the flags without which one has no effect."""
    if name == "crop_area":
        return {"features": "augmented"} if protocol == "linear" else {}
    needed = {
        "milestones": {"learning_rate_schedule": "step"},
        "rounding_iterations": {"rounding": "block"},
    }
    return needed.get(name, {})


def test_flag_is_used_by_its_protocols_and_refused_by_others():
    assert set(FLAGS) == {name for names in USED_BY.values() for name in names}
    for name, (_, used) in FLAGS.items():
        for protocol in USED_BY:
            flags = flags_of(protocol, name)
            if protocol in used:
                config_of(**flags)
                continue
            with pytest.raises(UserError, match="--(\\w+) has no effect here"):
                config_of(**flags)


def test_defaults_are_the_documented_ones():
    values = {f.name: getattr(group, f.name) for _, group in GROUPS.values()
              for f in dataclasses.fields(group)}  # fmt: skip
    expected = {
        "protocol": "linear", "bits": "fp,8w8a,6w6a,5w5a,4w4a,3w3a,2w8a,2w4a", "neighbours": 20,
        "temperature": 0.1, "features": "cached", "quantizer": "lsq", "start": "linear", "seed": 0,
        "calibration": "minmax", "weight_scales": "max", "rounding_iterations": 10_000,
    }  # fmt: skip
    assert {name: values[name] for name in expected} == expected
    # Whatever else there is changes nothing unless it is asked for.
    assert {value for name, value in values.items() if name not in expected} <= {None, False}


@pytest.fixture(scope="module")
def opened(tmp_path_factory):
    """A run on digits with a small network; subject, split and data, opened once."""
    keras.utils.set_random_seed(0)
    folder = RunFolder(tmp_path_factory.mktemp("run") / "digits")
    folder.begin(Config(data=DataSettings(train_images=400)))
    model = resnet(18, "cifar", 4, (8, 8, 1), blocks=(1,))
    quantizable(model, "paper").save(folder.backbone)
    subject = opened_subject.open_subject(config_of(run_dir=folder.path, policy="paper"))
    return subject, *evaluation_data.labelled_images(subject.data, subject.model)


@pytest.fixture
def evaluated(opened, monkeypatch):
    """Returns a function from flags to the task and records of an evaluation that measures nothing.

    The subject is that of `opened`, so that flags of subject and data have no effect.
    """
    tasks, added = [], []
    monkeypatch.setattr(opened_subject, "open_subject", lambda config: opened[0])
    monkeypatch.setattr(evaluation_data, "labelled_images", lambda *arguments: opened[1:])
    monkeypatch.setattr(records, "add_record", lambda file, record: added.append((file, record)))
    monkeypatch.setattr(evaluate, "_show", lambda *arguments: None)

    def measure(config, subject, task):
        tasks.append(task)
        for protocol in config.protocols():
            yield protocol, Accuracy("fp", 0.5, 0.7, 0.4)

    monkeypatch.setattr(measurement, "measure", measure)

    def run(**flags):
        tasks.clear()
        added.clear()
        evaluate.evaluate(config_of(**flags))
        (task,) = tasks
        return task, [(file.name, record) for file, record in added]

    return run


def test_every_flag_that_decides_figures_makes_another_record(evaluated):
    usual = {protocol: evaluated(**flags_of(protocol))[1] for protocol in USED_BY if protocol !=
             "classifier"}  # fmt: skip
    for protocol, name in USES:
        if protocol == "classifier":
            continue
        before, needed = usual[protocol], needed_beside(protocol, name)
        if needed:
            needed = needed | ({"milestones": "3epochs"} if name == "milestones" else {})
            before = evaluated(**flags_of(protocol), **needed)[1]
        _, after = evaluated(**flags_of(protocol, name))
        alone = name == "preset" and len(PRESETS[protocol]) == 1
        assert (after == before) == (alone or name == "keep_classifiers"), (protocol, name)
    for flags in (
        {"calibration": "mse"}, {"calibration_images": 50}, {"calibration_seed": 0},
        {"calibration_pass": "quantized"},
    ):  # fmt: skip
        assert evaluated(**flags_of("linear"), **flags)[1] != usual["linear"], flags


def test_record_stands_in_the_file_of_its_protocol_beside_data_and_augmentation(evaluated):
    files = {
        "linear": flags_of("linear"),
        "linear_from_scratch": flags_of("linear", "from_scratch"),
        "finetune_from_scratch": flags_of("finetune", "from_scratch"),
        "finetune_10": {"protocol": "finetune", "label_share": 0.1},
        "semi_0.5_from_scratch": {
            "protocol": "semi", "label_share": 0.005, "from_scratch": True},
        "qat_pact": flags_of("qat", "quantizer"),
    }  # fmt: skip
    for stem, flags in files.items():
        ((name, record),) = evaluated(**flags)[1]
        assert name == f"{stem}.json"
        assert record["results"] == [
            {"bits": "fp", "top1": 0.5, "top5": 0.7, "mean_per_class": 0.4}
        ]
        assert ("augmentation" in record["settings"]) == (not stem.startswith("linear"))
        assert {"data_fingerprint", "weights", "versions", "seed"} <= set(record)
        assert (record["train_images"], record["test_images"]) == (400, 360)
    ((_, record),) = evaluated(**flags_of("linear", "features"))[1]
    assert "augmentation" in record["settings"]


def ranges_of(model):
    return [w.numpy() for w in model.weights if w.path.endswith(("minimum", "maximum"))]


def test_task_is_the_one_asked_for_and_calibrated_on_training_images(evaluated, opened):
    subject, _, data = opened
    task, _ = evaluated(
        protocol="finetune", bits="4w8a,fp", seed=5, curve_images=30, calibration_images=20
    )
    assert [str(bits) for bits in task.bit_widths] == ["4w8a", "fp"]
    assert (task.seed, task.curve_images, task.image_size) == (5, 30, 8)
    assert task.data is data and task.backbone is subject.model
    expected = copy_of(subject.model)
    calibrate(expected, data.train_images[:20])
    model = copy_of(subject.model)
    task.calibrator(model)()(task.bit_widths[0])
    quantized = task.quantized(copy_of(subject.model))(task.bit_widths[0])
    for found in (model, quantized):
        for ours, theirs in zip(ranges_of(found), ranges_of(expected), strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-5)
    # Another method finds others.
    task, _ = evaluated(protocol="finetune", bits="4w2a", calibration="mse", calibration_images=20)
    task.calibrator(model)()(task.bit_widths[0])
    pairs = zip(ranges_of(model), ranges_of(expected), strict=True)
    assert not all(np.allclose(ours, theirs) for ours, theirs in pairs)


def test_plan_holds_every_step_and_how_rounding_is_learned():
    plan = measurement.post_training_plan(
        config_of(rounding="block", rounding_iterations=7, seed=3, calibration="mse")
    )
    assert (plan.rounding, plan.learning.iterations, plan.learning.seed) == ("block", 7, 3)
    assert plan.calibration == "mse"
    steps = ("equalize", "mixed_precision", "reestimate_batch_norm", "correct_biases")
    for name in steps:
        plan = measurement.post_training_plan(config_of(**{name: True}))
        assert [step for step in steps if getattr(plan, step)] == [name]


@pytest.fixture
def task():
    return tiny_task()


@pytest.fixture
def called(task, monkeypatch):
    """Returns a function from what is replaced and flags to the arguments that it was called with.

    A module and the name of a function in it; the task is a tiny one.
    """

    def run(module, function, returned=(), **flags):
        calls = []

        def record(*arguments, **named):
            calls.append((*arguments, *named.values()))
            return returned

        with monkeypatch.context() as patched:
            patched.setattr(module, function, record)
            chosen = dataclasses.replace(task, bit_widths=task.bit_widths[:1])
            list(measurement.measure(config_of(**flags), StubSubject(), chosen))
        return calls[0]

    return run


class StubSubject:
    """As much of a subject as is asked for beside its task."""

    augmentation = staticmethod(lambda config, images, protocol: NO_AUGMENTATION)


def test_neighbours_vote_as_asked_for(called):
    scores = np.eye(2)[[0, 0, 0, 1]]
    arguments = called(measurement, "knn_scores", scores, protocol="knn", neighbours=3,
                       temperature=0.5)  # fmt: skip
    assert arguments[3:] == (2, 3, 0.5)


def test_probe_is_trained_as_asked_for_and_as_its_preset_says(called):
    class Probe:
        logits = staticmethod(lambda test: np.zeros((len(test), 2)))

    flags = {"epochs": 7, "batch_size": 4, "learning_rate": 0.3, "seed": 5}
    arguments = called(measurement, "fit_linear_probe", Probe, **flags)
    assert arguments[2:] == (2, 7, 0.3, 0.9, 4, 5)

    def scorer(*arguments):
        return Accuracy("fp", 0.5, 0.5, 0.5)

    for flags, expected, standardized in (
        ({"preset": "ssql"}, (100, 256), False),
        ({"optimizer": "lars"}, (60, 256), True),
        ({"weight_decay": 0.1, "epochs": 3}, (3, 256), True),
    ):
        _, training, scaled = called(measurement.protocols, "linear_cached", scorer, **flags)
        assert (training.epochs, training.batch_size) == expected
        assert scaled == standardized


def test_protocols_that_train_networks_get_what_was_asked_for(called, task):
    scratch = {"from_scratch": True}
    given, training, standardized = called(
        measurement.protocols, "linear_augmented", **flags_of("linear", "features"), **scratch
    )
    assert standardized and training.epochs == 60
    kernels = [model.get_layer("conv").kernel.numpy() for model in (given.backbone, task.backbone)]
    assert np.abs(kernels[0] - kernels[1]).max() > 0.01
    for protocol, epochs in (("finetune", 50), ("semi", 50)):
        for label_share, from_scratch in ((0.25, True), (0.5, False)):
            given, training, *asked, _ = called(
                measurement.protocols, protocol, protocol=protocol, label_share=label_share,
                from_scratch=from_scratch,
            )  # fmt: skip
            assert given.backbone is task.backbone and training.epochs == epochs
            assert asked == [label_share, from_scratch]


def test_settings_of_run_and_flags_decide_the_data(tmp_path):
    folder = RunFolder(tmp_path)
    own = {"dataset": "cifar10", "data_dir": "/own", "image_size": 16, "train_images": 100}
    folder.begin(config_from_flat(own))
    inputs = keras.Input((8, 8, 1))
    outputs = keras.layers.Dense(2)(keras.layers.Flatten()(inputs))
    quantizable(keras.Model(inputs, outputs), "paper").save(folder.backbone)

    def data_of(**flags):
        return opened_subject.open_subject(config_of(run_dir=tmp_path, **flags)).data

    assert data_of() == DataSettings(**own)
    flags = {"data_dir": "/other", "image_size": 8, "train_images": 7, "download": True}
    assert data_of(**flags) == DataSettings("cifar10", **flags)
    # Of another data set nothing but the folder of prepared ones is the same.
    assert data_of(dataset="cifar100") == DataSettings("cifar100", "/own")
    assert data_of(dataset="digits") == DataSettings("digits")


@pytest.mark.parametrize(
    ("policy", "kind"),
    [("paper", keras.layers.Dense), ("uniform", keras.layers.Dense), ("int8", QuantizedDense)],
)
def test_kept_classifier_stays_float_but_where_integer_runtimes_quantize_it(
    task, tmp_path, policy, kind
):
    with_classifier(task.backbone, 2).save(tmp_path / "kept.keras")
    place = {"model": tmp_path / "kept.keras", "output_dir": tmp_path, "dataset": "digits"}
    subject = opened_subject.open_subject(
        config_of(run_dir=None, protocol="classifier", policy=policy, **place)
    )
    assert type(subject.model.get_layer(CLASSIFIER)) is kind
    assert isinstance(subject.model.get_layer("conv"), QuantizedConv2D)


def test_supervised_training_leaves_colours_as_they_are(opened):
    views = config_from_flat(
        {"dataset": "cifar10", "crop_area": "0.4-1", "flip": 0.25, "jitter_probability": 0.8,
         "grayscale": 0.2, "blur": 0.5}
    )  # fmt: skip
    subject = dataclasses.replace(opened[0], views=views)
    images = np.empty((1, 32, 32, 3), np.float32)
    found = subject.augmentation(config_of(protocol="finetune"), images, "finetune")
    assert (found.jitter_probability, found.grayscale, found.blur) == (0, 0, 0)
    assert found.flip == 0.25


def test_figures_are_printed_and_drawn_in_the_order_measured(opened, monkeypatch, capsys, tmp_path):
    subject = dataclasses.replace(opened[0], results=tmp_path, title="mine")
    figures = [Accuracy("fp", 0.8149, 0.955, 0.801), Accuracy("4w8a", 0.75, 0.9, 0.5)]
    drawn = []
    monkeypatch.setattr(opened_subject, "open_subject", lambda config: subject)
    monkeypatch.setattr(evaluation_data, "labelled_images", lambda *arguments: opened[1:])
    monkeypatch.setattr(measurement, "measure", lambda *a: (("knn", one) for one in figures))
    monkeypatch.setattr(plots, "plot_accuracy", lambda *a, **named: drawn.append((*a, named)))
    evaluate.evaluate(config_of(protocol="knn", bits="fp,4w8a"))
    assert capsys.readouterr().out == (
        "\ndigits, knn, 360 test images\n"
        "| bits             |   fp | 4w8a |\n"
        "|------------------|-----:|-----:|\n"
        "| top-1 %          | 81.5 | 75.0 |\n"
        "| top-5 %          | 95.5 | 90.0 |\n"
        "| mean per class % | 80.1 | 50.0 |\n"
        f"Results: {tmp_path / 'knn.json'}\nPicture: {tmp_path / 'knn.png'}\n"
    )
    assert drawn == [
        (tmp_path / "knn.png", ["fp", "4w8a"], {"knn": [0.8149, 0.75]},
         {"title": "mine, digits, knn"})
    ]  # fmt: skip


def test_what_was_measured_stays_when_a_later_bit_width_fails(opened, monkeypatch, tmp_path):
    subject = dataclasses.replace(opened[0], results=tmp_path)

    def measure(*arguments):
        yield "knn", Accuracy("fp", 0.9, 1.0, 0.9)
        yield "knn", Accuracy("8w8a", 0.8, 1.0, 0.8)
        raise TrainingStopped("Training diverged.")

    monkeypatch.setattr(opened_subject, "open_subject", lambda config: subject)
    monkeypatch.setattr(evaluation_data, "labelled_images", lambda *arguments: opened[1:])
    monkeypatch.setattr(measurement, "measure", measure)
    with pytest.raises(TrainingStopped):
        evaluate.evaluate(config_of(protocol="knn"))
    (found,) = records.read_records(tmp_path / "knn.json")
    assert [(entry["bits"], entry["top1"]) for entry in found["results"]] == [
        ("fp", 0.9), ("8w8a", 0.8),
    ]  # fmt: skip


def test_first_test_images_are_taken_with_their_labels(opened):
    subject, _, data = opened
    _, few = evaluation_data.labelled_images(subject.data, subject.model, 7)
    np.testing.assert_array_equal(few.test_images, data.test_images[:7])
    np.testing.assert_array_equal(few.test_labels, data.test_labels[:7])
    np.testing.assert_array_equal(few.train_images, data.train_images)
