"""An evaluation is resolved as its settings say: bit-widths, ranges, plan, crops and files."""

import dataclasses
import pathlib

import numpy as np
import pytest

from tests.evaluation.evaluations import (
    asking,
    config_of,
    flags_of,
    subject_of,
    tiny_evaluation,
)
from tfcq.data.augmentation import augmentation_for
from tfcq.evaluation import evaluation as module
from tfcq.evaluation.evaluation import plan_of
from tfcq.evaluation.run_subject import RunSubject
from tfcq.nn.calibration import calibrate
from tfcq.nn.cloning import copy_of
from tfcq.post_training.plan import Calibration
from tfcq.settings.policies import UNIFORM
from tfcq.settings.protocols import PROTOCOLS
from tfcq.settings.training_groups import DataSettings, ViewSettings


@pytest.fixture
def evaluation():
    return tiny_evaluation()


def ranges_of(model):
    return [w.numpy() for w in model.weights if w.path.endswith(("minimum", "maximum"))]


def test_evaluation_is_the_one_asked_for_and_calibrated_on_training_images(evaluation, monkeypatch):
    subject, data = evaluation.subject, evaluation.data
    monkeypatch.setattr(module, "open_subject", lambda config: subject)
    monkeypatch.setattr(module, "labelled_images", lambda *given, fitted: (evaluation.split, data))

    def opened(**flags):
        return module.open_evaluation(config_of(calibration_images=5, **flags))

    found = opened(protocol="finetune", bits="4w8a,fp", seed=5, curve_images=3)
    assert [str(bits) for bits in found.bit_widths] == ["4w8a", "fp"]
    assert (found.seed, found.config.measurement.curve_images, found.image_size) == (5, 3, 2)
    assert found.data is data and found.backbone is subject.model
    expected = copy_of(subject.model)
    calibrate(expected, data.train_images[:5])
    model = copy_of(subject.model)

    def calibrated(evaluation):
        calibration = evaluation.calibration(model)
        calibration.observe()
        calibration.set_ranges(evaluation.bit_widths[0])
        return model

    quantized = found.post_training(copy_of(subject.model)).at(found.bit_widths[0]).model
    for one in (calibrated(found), quantized):
        for ours, theirs in zip(ranges_of(one), ranges_of(expected), strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-5)
    # Another method finds others.
    calibrated(opened(protocol="finetune", bits="4w2a", calibration="mse"))
    pairs = zip(ranges_of(model), ranges_of(expected), strict=True)
    assert not all(np.allclose(ours, theirs) for ours, theirs in pairs)


def test_ranges_are_set_for_every_bit_width_anew(evaluation, monkeypatch):
    asked = []
    monkeypatch.setattr(Calibration, "set_ranges", lambda self, bits: asked.append(bits))
    evaluation = asking(evaluation, bits="fp,8w8a,4w4a")
    quantized = evaluation.post_training(evaluation.backbone)
    models = [quantized.at(bits).model for bits in evaluation.bit_widths]
    assert models == [evaluation.backbone] * len(evaluation.bit_widths)
    assert tuple(asked) == tuple(bits for bits in evaluation.bit_widths if not bits.is_float)


def test_plan_holds_every_step_and_how_rounding_is_learned():
    plan = plan_of(config_of(rounding="block", rounding_iterations=7, seed=3, calibration="mse"))
    assert (plan.rounding, plan.learning.iterations, plan.learning.seed) == ("block", 7, 3)
    assert plan.calibration == "mse"
    steps = ("equalize", "mixed_precision", "reestimate_batch_norm", "correct_biases")
    for name in steps:
        plan = plan_of(config_of(**{name: True}))
        assert [step for step in steps if getattr(plan, step)] == [name]


def test_files_are_named_by_what_was_evaluated(evaluation):
    stems = {
        "linear": flags_of("linear"),
        "linear_from_scratch": flags_of("linear", "from_scratch"),
        "knn": {"protocol": "knn"},
        "classifier": {"protocol": "classifier"},
        "finetune_100": flags_of("finetune", "label_share"),
        "semi_0.5_from_scratch": {"protocol": "semi", "label_share": 0.005, "from_scratch": True},
        "qat_pact": flags_of("qat", "quantizer"),
    }
    for stem, flags in stems.items():
        found = dataclasses.replace(evaluation, config=config_of(**flags))
        (protocol,) = found.config.protocols
        assert found.results_file(protocol) == evaluation.subject.results / f"{stem}.json"


def run_subject(**views):
    return RunSubject(
        None, None, DataSettings(), pathlib.Path("results"), "", "", "", True,
        views=ViewSettings(**views),
    )  # fmt: skip


def augmentation(protocol, size, channels=3, subject=None, **values):
    images = np.empty((1, size, size, channels), np.float32)
    tiny = tiny_evaluation()
    found = dataclasses.replace(
        tiny,
        config=config_of(protocol=protocol, **values),
        subject=subject or run_subject(),
        data=dataclasses.replace(tiny.data, train_images=images),
    )
    return found.augmentation(PROTOCOLS[protocol])


AUGMENTED = {"features": "augmented"}
SHARE = {"label_share": 0.1}


@pytest.mark.parametrize(
    ("protocol", "values", "area"),
    [
        ("linear", {"preset": "ssql", **AUGMENTED}, (0.8, 1)),
        ("linear", {"preset": "ssql_transfer", **AUGMENTED}, (0.08, 1)),
        ("linear", {"preset": "simsiam", **AUGMENTED}, (0.08, 1)),
        ("linear", {"preset": "contrastive_quant_cifar", **AUGMENTED}, (0.08, 1)),
        ("linear", {"preset": "contrastive_quant_imagenet", **AUGMENTED}, (0.08, 1)),
        ("linear", {"preset": "simsiam", "crop_area": "0.5-0.7", **AUGMENTED}, (0.5, 0.7)),
        # Ours, which has no crop of its own: that of the views.
        ("linear", AUGMENTED, (0.2, 1)),
        ("finetune", {}, (0.08, 1)),
        ("semi", SHARE, (0.08, 1)),
        ("semi", {"preset": "contrastive_quant_imagenet_1", **SHARE}, (0.08, 1)),
        ("semi", {"preset": "contrastive_quant_imagenet_10", **SHARE}, (0.08, 1)),
        ("semi", {"crop_area": "0.3-1", **SHARE}, (0.3, 1)),
        ("qat", {}, (0.08, 1)),
        ("knn", {}, (0.2, 1)),
    ],
)
def test_crops_are_those_given_or_of_the_preset(protocol, values, area):
    found = augmentation(protocol, 32, **values)
    assert found.crop_area == area
    assert (found.flip, found.jitter_probability, found.grayscale, found.blur) == (0.5, 0, 0, 0)


def test_crops_of_small_images_and_flips_are_those_of_the_views():
    views = run_subject(crop_area="0.6-1", flip=0.0)
    for size, area in ((16, (0.6, 1)), (17, (0.08, 1))):
        found = augmentation("finetune", size, 1, subject=views)
        assert (found.crop_area, found.flip) == (area, 0)
    # A model that was no run of ours has no views: the standard of the image size.
    other = subject_of(None, UNIFORM, augmentation_for(8, 1))
    for subject in (run_subject(), other):
        found = augmentation("semi", 8, 1, subject=subject, **SHARE)
        assert found.crop_area == augmentation_for(8, 1).crop_area
    assert augmentation("semi", 8, 1, crop_area="0.1-1", **SHARE).crop_area == (0.1, 1)


def test_supervised_training_leaves_colours_as_they_are():
    views = run_subject(
        crop_area="0.4-1", flip=0.25, jitter_probability=0.8, grayscale=0.2, blur=0.5
    )
    found = augmentation("finetune", 32, subject=views)
    assert (found.jitter_probability, found.grayscale, found.blur) == (0, 0, 0)
    assert found.flip == 0.25


def test_classifier_that_was_kept_is_told_of_before_data_are_read(
    evaluation, monkeypatch, tmp_path
):
    subject = dataclasses.replace(evaluation.subject, results=tmp_path)
    monkeypatch.setattr(module, "open_subject", lambda config: subject)
    monkeypatch.setattr(module, "labelled_images", None)
    kept = {
        "finetune_fp": {"protocol": "knn,finetune", "bits": "4w4a"},
        "semi_50_4w4a": {**flags_of("semi"), "bits": "fp,4w4a"},
        "qat_pact_fp": {**flags_of("qat", "quantizer"), "bits": "4w4a,fp"},
    }
    for name, flags in kept.items():
        file = tmp_path / f"{name}.keras"
        file.touch()
        with pytest.raises(module.UserError, match=f"{name}.keras exists; move it away"):
            module.open_evaluation(config_of(keep_classifiers=True, **flags))
        file.unlink()


def test_networks_are_kept_where_that_was_asked_for_alone(evaluation, tmp_path):
    subject = dataclasses.replace(evaluation.subject, results=tmp_path)
    evaluation = dataclasses.replace(evaluation, subject=subject)
    (bits, _) = evaluation.bit_widths
    for asked in (False, True):
        one = asking(evaluation, keep_classifiers=asked)
        one.keep(PROTOCOLS["finetune"], bits, evaluation.backbone)
        kept = [file.name for file in tmp_path.iterdir()]
        assert kept == (["finetune_fp.keras"] if asked else [])
