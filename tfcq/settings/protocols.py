"""The protocols: what each uses, needs and writes, and its published training settings."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from tfcq.errors import UserError, unknown_choice
from tfcq.settings.protocol_groups import (
    LabelledTraining,
    PostTrainingSettings,
    ProtocolTrainingSettings,
)

STARTS = ("linear", "finetune")
_TRAINING = tuple(field.name for field in dataclasses.fields(ProtocolTrainingSettings))
# Of a classifier that was trained before.
_FURTHER_TRAINING = tuple(name for name in _TRAINING if name != "classifier_start")
POST_TRAINING = tuple(field.name for field in dataclasses.fields(PostTrainingSettings))
# The probe knows them in one form alone.
_FIT_ALONE = ("optimizer", "learning_rate_schedule", "weight_decay", "classifier_start")


@dataclasses.dataclass(frozen=True)
class Protocol:
    """How what was pre-trained is scored, as data; `runner` says how it is done.

    Args:
        name: its name, which is also its flag's value.
        runner: `module:attribute` of its `tfcq.evaluation.protocols.Runner`, imported when it runs.
        uses: settings that some protocols use and others do not; the rest is used by all.
        presets: published training settings by name, the first its default; none where it trains
            nothing.
        trains_network: whether the whole network is trained, on augmented images; such a network
            can be kept.
        keeps_float: whether the network it keeps is the float one alone, whatever the bit-widths.
        scores_logits: whether the model's own logits are scored and no classifier is added.
        needs: settings without which it cannot run, each with an example.
        stem: settings that stand in the name of its files, in this order.
    """

    name: str
    runner: str
    uses: tuple[str, ...] = ()
    presets: Mapping[str, LabelledTraining] = dataclasses.field(default_factory=dict)
    trains_network: bool = False
    keeps_float: bool = False
    scores_logits: bool = False
    needs: Mapping[str, str] = dataclasses.field(default_factory=dict)
    stem: tuple[str, ...] = ()

    def preset(self, name: str | None) -> str:
        """Returns the name of a preset, the default for None.

        Args:
            name: the name asked for.

        Raises:
            UserError: on an unknown preset.
        """
        if name is not None and name not in self.presets:
            raise unknown_choice(f"preset of {self.name}", name, self.presets)
        return name or next(iter(self.presets))

    def training(self, asked: ProtocolTrainingSettings) -> LabelledTraining:
        """Returns how the protocol trains: what was asked for, then its preset's.

        Args:
            asked: settings of a training; None stands for the preset's.

        Raises:
            UserError: on an unknown preset.
        """
        preset = self.presets[self.preset(asked.preset)]
        given = {k: v for k, v in dataclasses.asdict(asked).items() if v is not None}
        given.pop("preset", None)
        if given.get("learning_rate_schedule", "step") != "step":
            given.setdefault("milestones", None)
        if "learning_rate" in given:
            # The rate that was asked for, not a multiple of it.
            given["scale_learning_rate"] = False
        if any(
            given.get(name, getattr(preset, name)) != getattr(preset, name) for name in _FIT_ALONE
        ):
            given["trainer"] = "fit"
        return dataclasses.replace(preset, **given)


# torchvision's RandomResizedCrop and SimCLR's.
_WIDE = "0.08-1"
_SSQL_LINEAR = LabelledTraining(
    epochs=100,
    batch_size=256,
    learning_rate=30.0,
    learning_rate_schedule="step",
    milestones="60epochs,80epochs",
    weight_decay=0.0,
    crop_area="0.8-1",
    classifier_start="uniform",
)
# Contrastive Quant, Appendix A, follows SimCLR, whose code has these crops and this start.
_SIMCLR: dict[str, Any] = {"crop_area": _WIDE, "classifier_start": "normal"}
_LINEAR = {
    "standardized": LabelledTraining(
        epochs=60,
        batch_size=256,
        learning_rate=0.1,
        weight_decay=0.0,
        trainer="probe",
        standardized=True,
    ),
    # SSQL, Sec. 4.1; crops and start of the classifier as in the authors' code: on CIFAR, and
    # on the data sets that ImageNet networks are transferred to.
    "ssql": _SSQL_LINEAR,
    "ssql_transfer": dataclasses.replace(_SSQL_LINEAR, crop_area=_WIDE),
    # SimSiam (Chen and He, 2021), Appendix A; crops and start of its code.
    "simsiam": LabelledTraining(
        epochs=90,
        batch_size=4096,
        optimizer="lars",
        learning_rate=0.02,
        scale_learning_rate=True,
        weight_decay=0.0,
        crop_area=_WIDE,
        classifier_start="normal",
    ),
    # Contrastive Quant, Appendix A.
    "contrastive_quant_cifar": LabelledTraining(
        epochs=50, batch_size=512, learning_rate=0.1, weight_decay=0.0, **_SIMCLR
    ),
    "contrastive_quant_imagenet": LabelledTraining(
        epochs=90,
        batch_size=512,
        learning_rate=0.2,
        nesterov=True,
        weight_decay=0.0,
        **_SIMCLR,
    ),
}
_FINETUNE = {
    # SSQL, Sec. 4.1; crops and start of the authors' code.
    "ssql": LabelledTraining(
        epochs=50,
        batch_size=256,
        learning_rate=0.001,
        learning_rate_schedule="step",
        milestones="30epochs,40epochs",
        weight_decay=1e-4,
        crop_area=_WIDE,
        classifier_start="uniform",
    ),
}
_SEMI = {
    # Contrastive Quant, Appendix A, which names no batch size for CIFAR.
    "contrastive_quant_cifar": LabelledTraining(
        epochs=50, batch_size=128, learning_rate=0.1, weight_decay=0.0, **_SIMCLR
    ),
    "contrastive_quant_imagenet_10": LabelledTraining(
        epochs=30,
        batch_size=512,
        learning_rate=0.1,
        nesterov=True,
        weight_decay=0.0,
        **_SIMCLR,
    ),
    "contrastive_quant_imagenet_1": LabelledTraining(
        epochs=60,
        batch_size=512,
        learning_rate=0.1,
        nesterov=True,
        weight_decay=0.0,
        **_SIMCLR,
    ),
}
_QAT = {
    # SSQL, Appendix ("Training details for LSQ"); crops of the authors' code on ImageNet.
    "ssql": LabelledTraining(
        epochs=50,
        batch_size=256,
        learning_rate=0.001,
        learning_rate_schedule="step",
        milestones="30epochs",
        weight_decay=1e-5,
        crop_area=_WIDE,
    ),
}
_RUNNERS = "tfcq.evaluation.protocols"
_NETWORK = ("from_scratch", "curve_images", "keep_classifiers", "seed")

PROTOCOLS: dict[str, Protocol] = {
    protocol.name: protocol
    for protocol in (
        Protocol(
            "linear",
            f"{_RUNNERS}.linear:linear",
            uses=("features", "from_scratch", "seed", *_TRAINING, *POST_TRAINING),
            presets=_LINEAR,
            stem=("from_scratch",),
        ),
        Protocol(
            "knn",
            f"{_RUNNERS}.knn:knn",
            uses=("neighbours", "temperature", "from_scratch", *POST_TRAINING),
            stem=("from_scratch",),
        ),
        Protocol(
            "finetune",
            f"{_RUNNERS}.network:finetune",
            uses=("label_share", *_NETWORK, *_TRAINING, *POST_TRAINING),
            presets=_FINETUNE,
            trains_network=True,
            keeps_float=True,
            stem=("label_share", "from_scratch"),
        ),
        Protocol(
            "semi",
            f"{_RUNNERS}.network:semi",
            uses=("label_share", *_NETWORK, *_TRAINING),
            presets=_SEMI,
            trains_network=True,
            needs={"label_share": "0.1"},
            stem=("label_share", "from_scratch"),
        ),
        Protocol(
            "qat",
            f"{_RUNNERS}.qat:qat",
            uses=(
                "quantizer",
                "start",
                "curve_images",
                "keep_classifiers",
                "seed",
                *_FURTHER_TRAINING,
            ),
            presets=_QAT,
            trains_network=True,
            stem=("quantizer",),
        ),
        Protocol(
            "classifier",
            f"{_RUNNERS}.classifier:classifier",
            uses=POST_TRAINING,
            scores_logits=True,
        ),
    )
}

LINEAR, CLASSIFIER = PROTOCOLS["linear"], PROTOCOLS["classifier"]
FINETUNE, QAT = PROTOCOLS["finetune"], PROTOCOLS["qat"]


def used_by(name: str) -> str:
    """Returns the names of the protocols that use a setting, as its help has them.

    Args:
        name: the setting.
    """
    return ", ".join(p.name for p in PROTOCOLS.values() if name in p.uses)


def protocols_named(text: str) -> tuple[Protocol, ...]:
    """Reads names such as `linear,knn`.

    Args:
        text: the names, in the order asked for.

    Raises:
        UserError: on an unknown protocol, or one that stands twice.
    """
    names = tuple(name.strip() for name in text.split(","))
    for name in names:
        if name not in PROTOCOLS:
            raise unknown_choice("protocol", name, PROTOCOLS)
        if names.count(name) > 1:
            raise UserError(f"Protocol {name!r} stands twice; name it once.")
    return tuple(PROTOCOLS[name] for name in names)
