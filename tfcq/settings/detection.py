"""All that can be asked of a detection, and what must agree in it."""

import dataclasses
import importlib.util
import json
import pathlib
from typing import Any

from tfcq.errors import UserError
from tfcq.settings.bitwidths import BitWidth, parse_bit_width, parse_bit_widths
from tfcq.settings.datasets import check_boxed_name
from tfcq.settings.detection_groups import (
    AUTO_WARMUP,
    DETECTORS,
    MASK_DETECTORS,
    MOSAIC_IMAGES,
    QUANTIZED,
    USUAL_WARMUP,
    DetectionData,
    DetectionMeasurement,
    DetectionTraining,
    DetectorSettings,
    numbers,
)
from tfcq.settings.detection_presets import with_preset
from tfcq.settings.detection_subject import DetectionSubject
from tfcq.settings.durations import parse_duration
from tfcq.settings.evaluation_groups import DEPLOYED_WEIGHTS
from tfcq.settings.fields import check_fields, grouped
from tfcq.settings.policies import ALL_FLOAT, Policy, policy_named
from tfcq.settings.protocol_groups import LEARNED_ROUNDINGS, PostTrainingSettings
from tfcq.settings.protocols import FINETUNE, QAT
from tfcq.settings.run_folder import RunFolder
from tfcq.settings.saving import OF_A_START, parse_save_every
from tfcq.settings.training import check_milestones


@dataclasses.dataclass(frozen=True)
class DetectionConfig:
    """All settings of a detection.

    Raises:
        UserError: on settings that do not go together.
    """

    subject: DetectionSubject = DetectionSubject()
    data: DetectionData = DetectionData()
    detector: DetectorSettings = DetectorSettings()
    training: DetectionTraining = DetectionTraining()
    measurement: DetectionMeasurement = DetectionMeasurement()
    post_training: PostTrainingSettings = PostTrainingSettings()

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            check_fields(getattr(self, field.name))
        self.subject.check()
        if importlib.util.find_spec("pycocotools") is None:
            raise UserError(
                "Average precision needs pycocotools; install it with `pip install pycocotools`."
            )
        check_boxed_name(self.data.dataset)
        _ = self.data.shorter_sides, self.anchor_sizes, self.bit_widths
        self.training.length()
        if self.training.warmup != AUTO_WARMUP:
            parse_duration(self.training.warmup)
        check_milestones(self.training)
        parse_save_every(self.training.save_every)
        self._check_exported()
        self._check_mosaic()

    def _check_exported(self) -> None:
        text, further = self.measurement.export_bits, self.measurement.protocol == QAT.name
        if text is None:
            return
        if further:
            raise UserError(
                "--export_bits has no effect here: --protocol=qat; allowed with finetune, whose "
                "float networks are written."
            )
        bits = parse_bit_width(text)
        if bits.is_float or bits.activations != 8 or bits.weights not in DEPLOYED_WEIGHTS:
            raise UserError(
                f"--export_bits={text} cannot be exported; allowed: one of 2w8a to 8w8a, as "
                "activations of other than 8 bits do not exist in LiteRT."
            )
        steps = {"quantize": self.measurement.quantize, "calibration": self.measurement.calibration}
        usual = {"quantize": QUANTIZED[0], "calibration": DetectionMeasurement().calibration}
        steps |= vars(self.post_training)
        usual |= vars(PostTrainingSettings())
        for name in (name for name, value in steps.items() if value != usual[name]):
            raise UserError(
                f"--export_bits={text} with --{name}={steps[name]}, which no int8 file has: there "
                "all networks are quantized, within the least and the greatest that they read, and "
                "nothing follows; give them one after the other, which trains nothing anew."
            )

    def _check_mosaic(self) -> None:
        if self.data.mosaic and self.masks:
            raise UserError(
                f"--mosaic cuts boxes and not the masks of --detector={self.detector.detector}; "
                f"allowed: {' or '.join(one for one in DETECTORS if one not in MASK_DETECTORS)}."
            )
        if self.data.mosaic and self.training.batch_size < MOSAIC_IMAGES:
            raise UserError(
                f"--mosaic with --batch_size={self.training.batch_size}; allowed: "
                f"{MOSAIC_IMAGES} and more, since a mosaic is made of so many images of a batch."
            )

    @property
    def bit_widths(self) -> tuple[BitWidth, ...]:
        """The bit-widths in the order asked for."""
        return parse_bit_widths(self.measurement.bits)

    @property
    def anchor_sizes(self) -> tuple[float, ...] | None:
        """Sizes of anchors in pixels; None for those that suit the images."""
        text = self.detector.anchor_sizes
        return None if text is None else numbers("anchor_sizes", text, float, "32,64,128", 1)

    @property
    def folder(self) -> pathlib.Path:
        """Where all is written."""
        if self.subject.output_dir is not None:
            return pathlib.Path(self.subject.output_dir)
        return RunFolder(str(self.subject.run_dir)).detection / self.detector.detector

    @property
    def record(self) -> str:
        """Name of the record: the protocol and, of what is done after training, what was asked."""
        names = ("calibration", "calibration_images")
        steps: dict[str, Any] = {name: getattr(self.measurement, name) for name in names}
        usual: dict[str, Any] = {name: getattr(DetectionMeasurement(), name) for name in names}
        if self.measurement.protocol == FINETUNE.name:
            steps |= {"quantize": self.measurement.quantize, **vars(self.post_training)}
            usual |= {"quantize": QUANTIZED[0], **vars(PostTrainingSettings())}
        asked = [f"{name}={value}" for name, value in steps.items() if value != usual[name]]
        return "_".join([self.measurement.protocol, *asked])

    @property
    def trained_in(self) -> pathlib.Path:
        """Where what is trained is written."""
        if self.measurement.protocol == FINETUNE.name:
            return self.folder
        alone = "_backbone" if self.measurement.quantize == "backbone" else ""
        return self.folder / f"qat_{self.measurement.quantizer}{alone}"

    @property
    def backbone_file(self) -> pathlib.Path:
        """The file of the backbone."""
        return self.subject.file

    @property
    def masks(self) -> bool:
        """Whether the detector finds masks."""
        return self.detector.detector in MASK_DETECTORS

    @property
    def policy(self) -> Policy:
        """How the backbone is quantized."""
        chosen, rounding = policy_named(self.detector.policy), self.post_training.rounding
        if rounding is None or rounding in LEARNED_ROUNDINGS:
            return chosen
        return dataclasses.replace(chosen, rounding=rounding)

    @property
    def head_policy(self) -> Policy | None:
        """How what is not the backbone is quantized; None for like the backbone."""
        return ALL_FLOAT if self.measurement.quantize == "backbone" else None

    def check_files(self) -> None:
        """Refuses a backbone that is not there.

        Raises:
            UserError: saying what is missing.
        """
        self.subject.check_files()

    def trained_with(self) -> dict[str, Any]:
        """Returns what decides how the detector is trained, by setting, but for the backbone."""
        measurement = self.measurement
        qat = {name: getattr(measurement, name) for name in ("quantizer", "quantize")}
        found = {
            **dataclasses.asdict(self.data), **dataclasses.asdict(self.detector),
            **dataclasses.asdict(self.training),
            **self.subject.normalization,
            "from_scratch": self.subject.from_scratch, "seed": self.measurement.seed,
        }  # fmt: skip
        # Where data lie, how many are scored and what the settings are called decides nothing.
        of_a_start = [name for name in OF_A_START if name in found]
        for name in ("data_dir", "download", "test_images", "preset", *of_a_start):
            del found[name]
        found |= qat if measurement.protocol == QAT.name else {}
        found["warmup"] = _usual(found["warmup"])
        return json.loads(json.dumps(found))

    def made_with(self) -> dict[str, Any]:
        """Returns what decides which networks the detector has, by setting."""
        names = {"dataset", "shorter_side", *vars(self.detector), *self.subject.normalization}
        return {name: value for name, value in self.trained_with().items() if name in names}


def default_training() -> dict[str, Any]:
    """Returns the defaults of what `DetectionConfig.trained_with` tells, by setting."""
    groups = DetectionData(), DetectorSettings(), DetectionTraining()
    found = {name: value for group in groups for name, value in vars(group).items()}
    return found | {"warmup": _usual(found["warmup"])}


def _usual(warmup: str) -> str:
    """Returns a warm-up as earlier versions, which never left it open, recorded it."""
    return USUAL_WARMUP if warmup == AUTO_WARMUP else warmup


GROUPS: dict[str, Any] = {
    "Subject": DetectionSubject(),
    "Data": DetectionData(),
    "Detector": DetectorSettings(),
    "Training": DetectionTraining(),
    "Measurement": DetectionMeasurement(),
    "Post-training": PostTrainingSettings(),
}


def detection_from_flat(values: dict[str, Any]) -> DetectionConfig:
    """Returns the settings of a detection from values by setting name.

    Args:
        values: value of each setting; those absent are the preset's, or keep their default.

    Raises:
        UserError: on an unknown setting or a value that cannot be used.
    """
    return DetectionConfig(**grouped(DetectionConfig, with_preset(values)))
