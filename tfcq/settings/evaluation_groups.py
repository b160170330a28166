"""The settings of an evaluation in groups."""

import dataclasses

from tfcq.settings.backbones import INPUT_RANGES, UNIT_RANGE
from tfcq.settings.checkpoints import CHECKPOINTS_HELP
from tfcq.settings.fields import setting
from tfcq.settings.kernels import KERNELS_HELP
from tfcq.settings.policies import INT8, POLICIES
from tfcq.settings.protocol_groups import FEATURES, QAT_QUANTIZERS
from tfcq.settings.protocols import LINEAR, PROTOCOLS, STARTS, used_by
from tfcq.settings.training import CALIBRATION_IMAGES
from tfcq.settings.training_groups import HIGHEST_SEED

ALL_BITS = "fp,8w8a,6w6a,5w5a,4w4a,3w3a,2w8a,2w4a"
# What an integer runtime computes, and the policy that quantizes as it does.
DEPLOYED_BITS = "8w8a"
DEPLOYED_WEIGHTS = range(2, 9)
DEPLOYED_POLICY = INT8.name
CALIBRATIONS = ("minmax", "moving_average", "percentile", "mse", "entropy")
CALIBRATION_PASSES = ("float", "quantized")


@dataclasses.dataclass(frozen=True)
class SubjectSettings:
    """What is evaluated."""

    run_dir: str | None = setting(None, "folder of the run")
    checkpoint: str | None = setting(
        None,
        "of an unfinished run: the checkpoint that is scored, latest or a number of epochs",
    )
    model: str | None = setting(
        None,
        "instead of a run: PATH.keras, applications:NAME of keras.applications, PATH.tflite, which "
        f"is scored as it runs (tfcq.evaluate, tfcq.features), or another library's "
        f"{CHECKPOINTS_HELP}",
    )
    weights: str | None = setting(
        None,
        "of --model=applications:NAME: imagenet, which Keras downloads once, or the file of a "
        "network's .weights.h5; default random",
    )
    input_range: str | None = setting(
        None,
        "of --model=PATH.keras or .tflite: the pixels that it takes; default what its first layers "
        f"or its input's scale tell, else {UNIT_RANGE}",
        tuple(INPUT_RANGES),
    )
    input_mean: str | None = setting(
        None,
        f"of --model={CHECKPOINTS_HELP}: mean of each channel of images in [0, 1]; default what "
        "the file tells, else ImageNet's",
    )
    input_std: str | None = setting(None, "standard deviation of each channel, beside --input_mean")
    output_dir: str | None = setting(None, "where results of --model are written; export: any")
    policy: str | None = setting(
        None, "quantize by this policy instead of the way it was trained", tuple(POLICIES)
    )
    layer_bits: str | None = setting(
        None,
        "beside --policy: bits of single layers by name or pattern, such as "
        "stem:8w8a,stage4_*:4w4a",
    )
    per_tensor: bool = setting(
        False, "beside --policy: one weight scale a layer instead of one a channel"
    )


@dataclasses.dataclass(frozen=True)
class EvaluationDataSettings:
    """The labelled images; default the run's own."""

    dataset: str | None = setting(None, "another data set: digits, folder:PATH, or a TFDS name")
    data_dir: str | None = setting(None, "folder of prepared TFDS data sets")
    download: bool = setting(False, "let TFDS download what is not prepared")
    strict_data: bool = setting(False, "refuse a folder with a broken image instead of skipping")
    channels: str | None = setting(
        None, "turn all images to grey or to colour; default as the run did", ("1", "3")
    )
    background: str | None = setting(
        None,
        "behind transparent pixels: white, black, grey or #RRGGBB; default as the run did",
    )
    image_size: int | None = setting(None, "height and width of the images in pixels", at_least=1)
    train_images: int | None = setting(
        None, "train on the first so many images; default the run's, or all", at_least=1
    )
    holdout: float | None = setting(
        None,
        "where there is no test split, share of each class that becomes one; default the run's",
        above=0,
        below=1,
    )
    holdout_seed: int | None = setting(
        None,
        "which images --holdout takes; default the run's, or 0",
        at_least=0,
        at_most=HIGHEST_SEED,
    )
    test_images: int | None = setting(
        None, "test on the first so many images; default all", at_least=1
    )
    test_crop: float | None = setting(
        None,
        "share of the shorter side that the central crop of plain images keeps, such as 0.875, 224 "
        "of 256 pixels; default that for images larger than the network's, else 1, as "
        "for a model of your own",
        above=0,
        at_most=1,
    )


@dataclasses.dataclass(frozen=True)
class CalibrationSettings:
    """How activation ranges are found."""

    calibration: str | None = setting(
        None,
        "how a range follows from activations; default minmax, and below 8 bits of a classifier of "
        "your own (--model, --protocol=classifier) mse beside --correct_biases",
        CALIBRATIONS,
    )
    calibration_pass: str | None = setting(
        None,
        "record activations in a float pass, or in one quantized as scored; default as the network "
        "was trained",
        CALIBRATION_PASSES,
    )
    calibration_images: int | None = setting(
        None,
        f"training images that set the ranges; default {CALIBRATION_IMAGES:,} or all",
        at_least=1,
    )
    calibration_seed: int | None = setting(
        None,
        "draw them with this seed; default the first of the training images",
        at_least=0,
        at_most=HIGHEST_SEED,
    )


@dataclasses.dataclass(frozen=True)
class ProtocolSettings:
    """How accuracy is measured."""

    protocol: str = setting(
        LINEAR.name, f"one of these or a comma-separated list: {', '.join(PROTOCOLS)}"
    )
    bits: str = setting(ALL_BITS, "bit-widths, such as fp,8w8a,2-4w4a")
    kernels: str | None = setting(None, KERNELS_HELP)
    neighbours: int = setting(20, f"{used_by('neighbours')}: how many neighbours vote", at_least=1)
    temperature: float = setting(
        0.1, f"{used_by('temperature')}: the smaller, the more the nearest decide", above=0
    )
    features: str = setting(
        "cached", f"{used_by('features')}: once, or of augmented images", FEATURES
    )
    label_share: float | None = setting(
        None,
        f"{used_by('label_share')}: share of every class's labels, such as 0.01",
        above=0,
        at_most=1,
    )
    from_scratch: bool = setting(
        False, f"{used_by('from_scratch')}: random weights instead of the backbone's"
    )
    quantizer: str = setting(
        "lsq", f"{used_by('quantizer')}: what is trained", tuple(QAT_QUANTIZERS)
    )
    start: str = setting(
        STARTS[0],
        f"{used_by('start')}: the float classifier to start from: {' or '.join(STARTS)}, trained "
        "first, or a PATH.keras that --keep_classifiers saved",
    )
    curve_images: int | None = setting(
        None,
        f"{used_by('curve_images')}: first test images that score every epoch; default all",
        at_least=1,
    )
    keep_classifiers: bool = setting(
        False, f"{used_by('keep_classifiers')}: save what was trained beside the results"
    )
    seed: int = setting(
        0,
        "seed of subsets, order, augmentation and learned rounding",
        at_least=0,
        at_most=HIGHEST_SEED,
    )
    deterministic: bool = setting(False, "repeat to the last bit, at the cost of speed")
