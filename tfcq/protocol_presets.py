"""Published training settings of each protocol. Needs no TensorFlow."""

import dataclasses

from tfcq.settings import OptimizationSettings, setting

CLASSIFIER_STARTS = ("zeros", "uniform", "normal")


@dataclasses.dataclass(frozen=True)
class LabelledTraining(OptimizationSettings):
    """How a protocol trains with labels."""

    crop_area: str | None = setting(None, "area of a crop as a share; default that of the views")
    classifier_start: str = setting("zeros", "what the classifier starts at", CLASSIFIER_STARTS)


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
_SIMCLR = {"crop_area": _WIDE, "classifier_start": "normal"}
# The first of a protocol is its default.
PRESETS: dict[str, dict[str, LabelledTraining]] = {
    "linear": {
        "standardized": LabelledTraining(
            epochs=60, batch_size=256, learning_rate=0.1, weight_decay=0.0
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
    },
    "finetune": {
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
    },
    "semi": {
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
    },
    "qat": {
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
    },
}
