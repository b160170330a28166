"""The groups of what can be asked of a detection: data, detector, training, measurement."""

import dataclasses
import math

from tfcq.errors import UserError
from tfcq.settings.detection_presets import DETECTION_PRESETS
from tfcq.settings.evaluation_groups import CALIBRATIONS
from tfcq.settings.fields import setting
from tfcq.settings.policies import POLICIES
from tfcq.settings.protocol_groups import QAT_QUANTIZERS
from tfcq.settings.protocols import FINETUNE, QAT
from tfcq.settings.training_groups import HIGHEST_SEED, OptimizationSettings

YOLOV4 = "yolov4"
DETECTORS = ("faster_rcnn", "mask_rcnn", YOLOV4)
# Those that find masks, and need them in their data.
MASK_DETECTORS = ("mask_rcnn",)
WAYS = (FINETUNE.name, QAT.name)
QUANTIZED = ("all", "backbone")
MOSAIC_IMAGES = 4
# A warm-up that nobody asked for, and how long it is where the training is no shorter.
AUTO_WARMUP, USUAL_WARMUP = "auto", "100steps"
# Images with a shorter side below this get a smaller detector.
LARGE_IMAGE = 320
# Smaller ones leave a trunk not a single cell.
SMALLEST_IMAGE = 16
# SSQL, Table 6.
BITS = "fp,8w8a,6w6a,5w5a,4w4a"


def numbers(name: str, text: str, kind: type, example: str, least: int) -> tuple:
    """Reads numbers of pixels such as `480,640,800`.

    Args:
        name: name of the setting.
        text: the numbers.
        kind: `int` or `float`.
        example: of what is allowed.
        least: the smallest that is allowed.

    Raises:
        UserError: on anything else.
    """
    try:
        found = tuple(map(kind, text.split(",")))
    except ValueError:
        found = ()
    if not found or not all(least <= one < math.inf for one in found):
        what = "whole numbers" if kind is int else "numbers"
        raise UserError(
            f"--{name}={text} cannot be used; allowed: {what} of pixels from {least} on, such as "
            f"{example}."
        )
    return found


def several_sizes(dataset: str) -> UserError:
    """Returns the error for images of several sizes without a length to bring them to.

    Args:
        dataset: their name.
    """
    return UserError(
        f"Images of {dataset!r} have several sizes; give --shorter_side, such as "
        "480,512,544,576,608,640,672,704,736,768,800."
    )


@dataclasses.dataclass(frozen=True)
class DetectionData:
    """The images with boxes."""

    dataset: str = setting(
        "scenes",
        "scenes (of digits), scenes:DATASET, boxes:PATH (a folder with a COCO JSON), voc or coco",
    )
    data_dir: str | None = setting(None, "folder of prepared TFDS data sets")
    download: bool = setting(False, "let TFDS download what is not prepared")
    shorter_side: str | None = setting(
        None,
        "lengths of the shorter side in pixels, of which training draws one and scoring takes the "
        "greatest, such as 480,640,800; default the images' own",
    )
    longest_side: int = setting(1333, "greatest length of the longer side in pixels", at_least=16)
    flip: bool = setting(True, "flip one training image in two left to right")
    strict_data: bool = setting(False, "refuse a COCO JSON with a box without area")
    mosaic: bool = setting(False, "turn one training image in two into a mosaic of four")
    test_images: int | None = setting(None, "score the first so many images", at_least=1)
    holdout: float | None = setting(
        None,
        "where there is no test split, share of the training images that becomes one, such as 0.2",
        above=0,
        below=1,
    )
    holdout_seed: int = setting(0, "which images --holdout takes", at_least=0, at_most=HIGHEST_SEED)

    @property
    def shorter_sides(self) -> tuple[int, ...] | None:
        """Lengths of the shorter side; None for the images' own."""
        if self.shorter_side is None:
            return None
        sides = numbers("shorter_side", self.shorter_side, int, "480,640,800", SMALLEST_IMAGE)
        if max(sides) > self.longest_side:
            raise UserError(
                f"--shorter_side={self.shorter_side} is beyond --longest_side="
                f"{self.longest_side}; allowed: {SMALLEST_IMAGE} to {self.longest_side}."
            )
        return sides


@dataclasses.dataclass(frozen=True)
class DetectorSettings:
    """The detector; what is not given is detectron2's, or less of it for small images."""

    detector: str = setting("faster_rcnn", "the detector", DETECTORS)
    anchor_sizes: str | None = setting(
        None, "square roots of the anchors' areas in pixels, such as 32,64,128,256,512"
    )
    proposals: int | None = setting(None, "proposals of an image that are kept", at_least=1)
    sampled_regions: int | None = setting(
        None, "regions of an image that a step learns from", at_least=2
    )
    policy: str = setting("paper", "which layers are quantized", tuple(POLICIES))


@dataclasses.dataclass(frozen=True)
class DetectionTraining(OptimizationSettings):
    """How the detector is trained; what is not given is the preset's."""

    preset: str | None = setting(
        None,
        "published settings of data, detector, training and bit-widths",
        tuple(DETECTION_PRESETS),
    )
    epochs: int = setting(4, "passes over the training images", at_least=1)
    batch_size: int = setting(8, "images per step", at_least=1)
    learning_rate: float = setting(0.05, "highest learning rate", above=0)
    warmup: str = setting(
        AUTO_WARMUP,
        f"linear warm-up, such as 100steps; {AUTO_WARMUP} is {USUAL_WARMUP}, or a tenth of a "
        "training that has fewer",
    )
    deterministic: bool = setting(False, "repeat to the last bit, at the cost of speed")
    save_every: str = setting(
        "1epochs", "when the run is saved, such as 1epochs, 500steps or 10min"
    )
    keep: int = setting(2, "how many of the newest checkpoints are kept", at_least=1)
    clip_gradient: float = setting(
        10.0, "greatest norm of the gradient of a variable; 0 for none", at_least=0
    )


@dataclasses.dataclass(frozen=True)
class DetectionMeasurement:
    """What is measured, and after which steps."""

    protocol: str = setting(
        FINETUNE.name,
        "finetune in float and quantize after training, or train further at each bit-width (qat)",
        WAYS,
    )
    bits: str = setting(BITS, "bit-widths, such as fp,8w8a,2w4a")
    quantize: str = setting("all", "all networks of the detector, or the backbone", QUANTIZED)
    quantizer: str = setting("lsq", "qat: what is trained", tuple(QAT_QUANTIZERS))
    calibration: str = setting("minmax", "how a range follows from activations", CALIBRATIONS)
    calibration_images: int = setting(
        64,
        "training images that set the ranges; of all their regions 512, which heads read",
        at_least=1,
    )
    export_bits: str | None = setting(
        None,
        "also write the networks as int8 files with weights of these bits, such as 8w8a, and check "
        "them tensor by tensor",
    )
    pictures: int = setting(4, "test images that are drawn with what was found", at_least=0)
    save_detections: bool = setting(
        False,
        "also write what is found at each bit-width as COCO's results, 100 boxes an image at most",
    )
    seed: int = setting(
        0, "seed of order, draws and learned rounding", at_least=0, at_most=HIGHEST_SEED
    )
