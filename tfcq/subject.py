"""What an evaluation is about: the backbone of a run, or a model of the user's."""

import dataclasses
import pathlib
from typing import TYPE_CHECKING, Any

from tfcq.config import Config, crop_area
from tfcq.errors import UserError
from tfcq.evaluation_settings import EvaluationConfig
from tfcq.nn.policies import Policy
from tfcq.protocol_presets import PRESETS
from tfcq.settings import DataSettings

if TYPE_CHECKING:
    from tfcq.data.augmentation import Augmentation
    from tfcq.data.image_stream import Images
    from tfcq.nn.quantizable import QuantizableModel

# Up to so many pixels a side a preset's crop is not taken: no source has such images, and 0.08 of
# an 8x8 one is a patch of two pixels a side.
_SMALL_IMAGE = 16


@dataclasses.dataclass(frozen=True)
class Subject:
    """What is evaluated, on which data, and where results go.

    Args:
        model: quantizable model from images to features, or to logits.
        policy: how it is quantized.
        data: the data set.
        results: folder of the results.
        title: what it is called in pictures.
        name: what it is called in results.
        policy_name: what the policy is called in results.
        has_own_policy: whether the model is quantized the way it was trained or saved.
        saved_quantizers: whether its quantizers come from a file, so that no policy tells of them.
        views: how a run augments its views; None where the model was no run of ours.
    """

    model: "QuantizableModel"
    policy: Policy
    data: DataSettings
    results: pathlib.Path
    title: str
    name: str
    policy_name: str
    has_own_policy: bool
    saved_quantizers: bool = False
    views: Config | None = None

    def quantization(self) -> dict[str, Any]:
        """Returns what decides how the model is quantized, whatever the policy is called.

        Of a model that was saved quantizable, the quantizer of every layer.
        """
        if not self.saved_quantizers:
            policy = dataclasses.asdict(self.policy)
            policy.pop("name")
            return policy
        from tfcq.nn.quantizable import quantizers_of

        return {
            name: quantizer.get_config() | {"kind": type(quantizer).__name__}
            for attribute in ("weight_quantizer", "quantizer")
            for name, quantizer in quantizers_of(self.model, attribute).items()
        }

    def record(self, config: EvaluationConfig, calibration_images: int) -> dict[str, Any]:
        """Returns what every record of its figures opens with.

        Args:
            config: the settings.
            calibration_images: how many images set activation ranges.
        """
        from tfcq.evaluation.records import weights_fingerprint

        return {
            "dataset": self.data.dataset,
            "subject": self.name,
            "weights": weights_fingerprint(self.model),
            "policy": self.policy_name,
            "calibration": {
                "method": config.calibration.calibration,
                "pass": config.calibration.calibration_pass or "as trained",
                "images": calibration_images,
                "seed": config.calibration.calibration_seed,
            },
            "seed": config.measurement.seed,
        }

    def check_logits(self) -> None:
        """Refuses a model that ends in a softmax, which integer runtimes compute on other grids.

        Raises:
            UserError: naming the layer.
        """
        last = self.model.layers[-1]
        while getattr(last, "layers", None):
            last = last.layers[-1]
        if type(last).__name__ == "Softmax" or last.get_config().get("activation") == "softmax":
            raise UserError(
                f"Layer {last.name!r} of {self.title} ends in softmax; allowed for export: logits. "
                "Save the model with activation=None there; the classes stay the same."
            )

    def check_learned_scales(self) -> None:
        """Refuses float fine-tuning where quantizers learn scales: it would leave them behind.

        Raises:
            UserError: naming a layer.
        """
        from tfcq.nn.quantizable import quantizers_of

        for attribute in ("weight_quantizer", "quantizer"):
            for name, quantizer in quantizers_of(self.model, attribute).items():
                if quantizer.learns_scale:
                    raise UserError(
                        f"Layer {name!r} of {self.title} has a learned scale, which fine-tuning in "
                        "float does not train; allowed: --policy=paper, or --protocol=qat."
                    )

    def check_policy_for(self, protocol: str) -> None:
        """Refuses a protocol that places quantizers anew, on a model that has its own.

        Args:
            protocol: the protocol.

        Raises:
            UserError: when no policy says where they go.
        """
        if self.saved_quantizers:
            raise UserError(
                f"{protocol} places quantizers of its own, and {self.title} is quantizable "
                "already; say where they go with --policy, such as --policy=paper."
            )

    def augmentation(
        self, config: EvaluationConfig, images: "Images", protocol: str | None = None
    ) -> "Augmentation":
        """Returns how supervised training augments: crops and flips, colours as they are.

        Crops are those given, or the preset's on images above 16 pixels; flips, and crops where
        there is no such, are those of the run, or else the standard of the image size.

        Args:
            config: the settings.
            images: float [count, height, width, channels], or a stream.
            protocol: the protocol; None for one that has no preset.
        """
        from tfcq import build
        from tfcq.data.augmentation import augmentation_for

        size, channels = images.shape[1], images.shape[3]
        chosen = augmentation_for(size, channels)
        if self.views is not None:
            chosen = build.augmentation(self.views, (size, size, channels))
        asked = config.training.crop_area
        if protocol in PRESETS and size > _SMALL_IMAGE:
            asked = config.optimization(protocol).crop_area
        area = crop_area(asked) or chosen.crop_area
        return dataclasses.replace(
            chosen, crop_area=area, jitter_probability=0.0, grayscale=0.0, blur=0.0
        )

    def check_classifier(self, classes: int) -> None:
        """Refuses a model that does not give a logit for every class.

        Args:
            classes: number of classes.

        Raises:
            UserError: when it does not.
        """
        shape = self.model.output_shape
        if len(shape) != 2 or shape[-1] != classes:
            raise UserError(
                f"Model {self.title!r} returns shape {shape} and the data have {classes} classes; "
                "allowed for the protocol 'classifier': a logit for each class."
            )
