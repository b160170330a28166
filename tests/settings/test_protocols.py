"""Published settings of each protocol, as the papers print them."""

import dataclasses

import pytest

from tfcq.settings.protocol_groups import LabelledTraining, ProtocolTrainingSettings
from tfcq.settings.protocols import PROTOCOLS

PRESETS = {name: protocol.presets for name, protocol in PROTOCOLS.items() if protocol.presets}
COSINE, NO_MILESTONES = "cosine", None


@pytest.mark.parametrize(
    ("protocol", "preset", "epochs", "batch_size", "rate", "schedule", "milestones", "decay"),
    [
        # SSQL, Sec. 4.1: lr 30, divided by 10 at 60 and 80 of 100 epochs, no weight decay.
        ("linear", "ssql", 100, 256, 30.0, "step", "60epochs,80epochs", 0.0),
        ("linear", "ssql_transfer", 100, 256, 30.0, "step", "60epochs,80epochs", 0.0),
        # SSQL, Sec. 4.1: lr 0.001, divided by 10 at 30 and 40 of 50 epochs, weight decay 1e-4.
        ("finetune", "ssql", 50, 256, 0.001, "step", "30epochs,40epochs", 1e-4),
        # SSQL, Appendix, LSQ: lr 0.001, divided by 10 at epoch 30 of 50, weight decay 1e-5.
        ("qat", "ssql", 50, 256, 0.001, "step", "30epochs", 1e-5),
        # SimSiam, Appendix A: LARS, batch 4096, lr 0.02 by batch/256, 90 epochs.
        ("linear", "simsiam", 90, 4096, 0.02, COSINE, NO_MILESTONES, 0.0),
        # Contrastive Quant, Appendix A: cosine; CIFAR 50 epochs at 0.1, ImageNet 90 at 0.2.
        ("linear", "contrastive_quant_cifar", 50, 512, 0.1, COSINE, NO_MILESTONES, 0.0),
        ("linear", "contrastive_quant_imagenet", 90, 512, 0.2, COSINE, NO_MILESTONES, 0.0),
        ("semi", "contrastive_quant_cifar", 50, 128, 0.1, COSINE, NO_MILESTONES, 0.0),
        ("semi", "contrastive_quant_imagenet_10", 30, 512, 0.1, COSINE, NO_MILESTONES, 0.0),
        ("semi", "contrastive_quant_imagenet_1", 60, 512, 0.1, COSINE, NO_MILESTONES, 0.0),
    ],
)
def test_preset_is_what_the_paper_prints(
    protocol, preset, epochs, batch_size, rate, schedule, milestones, decay
):
    found = PRESETS[protocol][preset]
    assert (found.epochs, found.batch_size, found.learning_rate) == (epochs, batch_size, rate)
    assert (found.learning_rate_schedule, found.milestones) == (schedule, milestones)
    assert found.weight_decay == decay
    assert found.optimizer == ("lars" if preset == "simsiam" else "sgd")
    assert found.scale_learning_rate == (preset == "simsiam")
    # Contrastive Quant, Appendix A: Nesterov momentum on ImageNet. Momentum is 0.9 in all.
    assert (found.momentum, found.nesterov) == (0.9, "_imagenet" in preset)
    assert found.milestone_factor == 0.1
    assert (found.warmup, found.duration, found.exclude) == ("0epochs", None, None)


def test_presets_are_those_with_a_source_and_the_probe_of_standardized_features():
    assert {protocol: list(presets) for protocol, presets in PRESETS.items()} == {
        "linear": ["standardized", "ssql", "ssql_transfer", "simsiam", "contrastive_quant_cifar",
                   "contrastive_quant_imagenet"],
        "finetune": ["ssql"],
        "semi": ["contrastive_quant_cifar", "contrastive_quant_imagenet_10",
                 "contrastive_quant_imagenet_1"],
        "qat": ["ssql"],
    }  # fmt: skip
    assert PRESETS["linear"]["standardized"] == LabelledTraining(
        epochs=60,
        batch_size=256,
        learning_rate=0.1,
        weight_decay=0.0,
        trainer="probe",
        standardized=True,
    )
    others = [p for presets in PRESETS.values() for n, p in presets.items() if n != "standardized"]
    assert {(preset.trainer, preset.standardized) for preset in others} == {("fit", False)}


def test_what_is_given_replaces_its_part_of_the_preset_and_nothing_else():
    def of(protocol="linear", **given):
        return PROTOCOLS[protocol].training(ProtocolTrainingSettings(**given))

    assert of() == PRESETS["linear"]["standardized"]
    assert of(preset="simsiam") == PRESETS["linear"]["simsiam"]
    # A rate that is given is the rate, and milestones belong to their schedule.
    changed = dataclasses.replace(
        PRESETS["linear"]["simsiam"], learning_rate=3.0, scale_learning_rate=False
    )
    assert of(preset="simsiam", learning_rate=3.0) == changed
    changed = dataclasses.replace(
        PRESETS["qat"]["ssql"], learning_rate_schedule="cosine", milestones=None, epochs=4
    )
    assert of("qat", learning_rate_schedule="cosine", epochs=4) == changed


@pytest.mark.parametrize(
    ("given", "trainer"),
    [({}, "probe"), ({"epochs": 3, "batch_size": 8, "learning_rate": 1.0}, "probe"),
     ({"crop_area": "0.5-1", "weight_decay": 0.0, "optimizer": "sgd"}, "probe"),
     ({"optimizer": "lars"}, "fit"), ({"learning_rate_schedule": "constant"}, "fit"),
     ({"weight_decay": 0.1}, "fit"), ({"classifier_start": "normal"}, "fit"),
     ({"preset": "ssql"}, "fit")],
)  # fmt: skip
def test_probe_trains_what_its_arithmetic_knows_and_fit_the_rest(given, trainer):
    found = PROTOCOLS["linear"].training(ProtocolTrainingSettings(**given))
    assert found.trainer == trainer
    assert found.standardized == ("preset" not in given)
