"""The settings of a pre-training run in groups."""

import dataclasses
from typing import Any

from tfcq.settings.backbones import (
    BACKBONE_HELP,
    KERNEL_INITIALIZERS,
    LARGE_IMAGE,
    SHORTCUTS,
    STEMS,
)
from tfcq.settings.bitwidths import BIT_SCHEDULES
from tfcq.settings.checkpoints import CHECKPOINTS_HELP
from tfcq.settings.durations import Duration, parse_duration
from tfcq.settings.fields import setting
from tfcq.settings.frameworks import (
    FRAMEWORK_SETTINGS,
    MOMENTUM_SCHEDULES,
    PROJECTION_NORMS,
    REGRESSION_LOSSES,
    TARGET_UPDATES,
)
from tfcq.settings.policies import (
    ACTIVATION_QUANTIZER_NAMES,
    POLICIES,
    ROUNDINGS,
    WEIGHT_QUANTIZER_NAMES,
)

LEARNING_RATE_SCHEDULES = ("cosine", "constant", "step")
OPTIMIZERS = ("sgd", "lars", "adamw")
LOSS_REDUCTIONS = ("mean", "sum")
MULTI_WORKER, TPU = "multi_worker", "tpu"
STRATEGIES = ("single", "mirrored", MULTI_WORKER, TPU)
TRACKERS = ("wandb", "mlflow")
FLOAT32, BFLOAT16, FLOAT16, AUTO = PRODUCT_DTYPES = ("float32", "bfloat16", "float16", "auto")
BATCH_NORMS = ("local", "synchronized", "shuffled")
HIGHEST_SEED = 2**32 - 1
_FRAMEWORK_SETTINGS = tuple(
    dict.fromkeys(name for settings in FRAMEWORK_SETTINGS.values() for name in settings)
)


@dataclasses.dataclass(frozen=True)
class DataSettings:
    """The images."""

    dataset: str = setting("digits", "digits, folder:PATH, or the name of a TFDS data set")
    data_dir: str | None = setting(None, "folder of prepared TFDS data sets")
    download: bool = setting(False, "let TFDS download what is not prepared")
    strict_data: bool = setting(False, "refuse a folder with a broken image instead of skipping")
    channels: str | None = setting(
        None, "turn all images to grey or to colour; default as they are", ("1", "3")
    )
    background: str = setting(
        "white", "behind transparent pixels of a folder's images: white, black, grey or #RRGGBB"
    )
    image_size: int | None = setting(
        None,
        f"height and width of a view in pixels; default native, or {LARGE_IMAGE} for photographs "
        "without an accelerator",
        at_least=4,
        why="or nothing is left to crop",
    )
    train_images: int | None = setting(
        None, "pre-train on the first so many images; default all", at_least=1
    )
    holdout: float | None = setting(
        None,
        "where there is no test split, share of each class that becomes one, such as 0.2",
        above=0,
        below=1,
    )
    holdout_seed: int = setting(0, "which images --holdout takes", at_least=0, at_most=HIGHEST_SEED)


@dataclasses.dataclass(frozen=True)
class ViewSettings:
    """How views are augmented; defaults depend on image size and channels."""

    crop_area: str | None = setting(None, "area of a crop as a share of the image, such as 0.2-1")
    flip: float | None = setting(None, "probability of a left-right flip", at_least=0, at_most=1)
    jitter_probability: float | None = setting(
        None, "probability of any colour jitter", at_least=0, at_most=1
    )
    brightness: float | None = setting(None, "strength of brightness jitter", at_least=0)
    contrast: float | None = setting(None, "strength of contrast jitter", at_least=0)
    saturation: float | None = setting(None, "strength of saturation jitter", at_least=0)
    hue: float | None = setting(
        None, "strength of hue jitter, at most 0.5", at_least=0, at_most=0.5
    )
    grayscale: float | None = setting(None, "probability of losing colour", at_least=0, at_most=1)
    blur: float | None = setting(None, "probability of Gaussian blur", at_least=0, at_most=1)


@dataclasses.dataclass(frozen=True)
class NetworkSettings:
    """The backbone and its quantizers."""

    backbone: str = setting("resnet18", BACKBONE_HELP)
    start: str | None = setting(
        None,
        "begin with the weights, and the network, of another run (its folder), of a .keras file, "
        f"or of another library's {CHECKPOINTS_HELP}",
    )
    stem: str | None = setting(
        None,
        f"first layers, for small or large images; default imagenet from {LARGE_IMAGE} pixels up, "
        "else cifar",
        STEMS,
    )
    width: int | None = setting(
        None, "channels of the first stage; default the paper's, or as for --image_size", at_least=1
    )
    shortcut: str | None = setting(
        None, "where a CIFAR ResNet changes size: pad with zeros, or project", SHORTCUTS
    )
    kernel_initializer: str | None = setting(
        None,
        "how convolutions start; default normal_fan_out with --stem=imagenet",
        KERNEL_INITIALIZERS,
    )
    zero_init_residual: bool | None = setting(
        None, "start residual branches at zero; default with --stem=imagenet alone"
    )
    input_mean: str | None = setting(
        None, "mean of each channel of images in [0, 1], such as 0.485,0.456,0.406; default none"
    )
    input_std: str | None = setting(None, "standard deviation of each channel, beside --input_mean")
    patch_size: int | None = setting(
        None, "height and width of a transformer's patch in pixels", at_least=1
    )
    frozen_patch_projection: bool = setting(False, "leave a transformer's patch layer random")
    policy: str | None = setting(
        None, "which layers are quantized; default the recipe's", tuple(POLICIES)
    )
    layer_bits: str | None = setting(
        None, "bits of single layers by name or pattern, such as stem:8w8a,stage4_*:4w4a"
    )
    weight_quantizer: str | None = setting(
        None, "how weights are quantized; default the policy's", WEIGHT_QUANTIZER_NAMES
    )
    activation_quantizer: str | None = setting(
        None, "how activations are quantized; default the policy's", ACTIVATION_QUANTIZER_NAMES
    )
    rounding: str = setting("nearest", "how quantizers round; floor: Eq. 9 as printed", ROUNDINGS)


@dataclasses.dataclass(frozen=True)
class MethodSettings:
    """Framework, recipe and bit-widths."""

    framework: str = setting("simsiam", "how embeddings are compared", tuple(FRAMEWORK_SETTINGS))
    recipe: str = setting("ssql", "a name of --list_recipes, or pairs such as v1@q->v2@fp")
    loss_reduction: str = setting("mean", "mean or sum over the recipe's pairs", LOSS_REDUCTIONS)
    weight_bits: str | None = setting(
        None, "weight bits to draw from, such as 2-8, 4 or 2,4,8; default the recipe's"
    )
    activation_bits: str | None = setting(
        None, "activation bits to draw from, such as 4-8; default the recipe's"
    )
    precision_set: str | None = setting(
        None, "bits drawn for weights and activations alike, such as 6-16; default the recipe's"
    )
    bit_schedule: str = setting(
        "uniform", "draw bits anew each step or epoch, in cycles, in order, or never", BIT_SCHEDULES
    )
    projection_width: int | None = setting(None, "width of the embedding; default the paper's")
    projection_hidden: int | None = setting(None, "width of the projector's hidden layers")
    projection_layers: int | None = setting(
        None, "dense layers of BYOL's and SimCLR's projector; default the papers' 2"
    )
    projection_norm: str | None = setting(
        None, "batch norm at the end of BYOL's and SimCLR's projector", PROJECTION_NORMS
    )
    predictor_width: int | None = setting(None, "width of the predictor's hidden layer")
    temperature: float | None = setting(None, "temperature of a contrastive loss")
    queue_size: int | None = setting(None, "keys in MoCo v2's queue")
    regression_loss: str | None = setting(None, "BYOL's loss", REGRESSION_LOSSES)
    target_momentum: float | None = setting(None, "momentum of the target network")
    target_momentum_schedule: str | None = setting(
        None, "course of the target network's momentum", MOMENTUM_SCHEDULES
    )
    target_update: str | None = setting(
        None, "when the target network follows the trained one", TARGET_UPDATES
    )

    def framework_settings(self) -> dict[str, Any]:
        """Returns the settings of the framework that were given."""
        values = {name: getattr(self, name) for name in _FRAMEWORK_SETTINGS}
        return {name: value for name, value in values.items() if value is not None}


@dataclasses.dataclass(frozen=True)
class OptimizationSettings:
    """Optimizer, learning rate and length."""

    epochs: int = setting(
        100, "passes over the training images; fewer by default as for --image_size", at_least=1
    )
    duration: str | None = setting(
        None, "length in steps or images instead of --epochs, such as 5000steps or 1e6examples"
    )
    batch_size: int = setting(
        256,
        "images per step, over all replicas; smaller by default where fewer fit, or as for "
        "--image_size",
        at_least=2,
        why="since batch norm and collapse are judged over a batch",
    )
    optimizer: str = setting("sgd", "the optimizer", OPTIMIZERS)
    learning_rate: float = setting(0.05, "highest learning rate", above=0)
    scale_learning_rate: bool = setting(False, "multiply the learning rate by batch size / 256")
    learning_rate_schedule: str = setting(
        "cosine", "course of the learning rate", LEARNING_RATE_SCHEDULES
    )
    milestones: str | None = setting(None, "when 'step' lowers the rate, such as 60epochs,80epochs")
    milestone_factor: float = setting(
        0.1, "what a milestone multiplies the learning rate by", above=0, below=1
    )
    warmup: str = setting("0epochs", "linear warm-up, such as 10epochs or 500steps")
    momentum: float = setting(0.9, "momentum of SGD and LARS, beta 1 of AdamW", at_least=0, below=1)
    nesterov: bool = setting(False, "Nesterov momentum")
    weight_decay: float = setting(
        1e-4, "l2 penalty in the gradient (SGD, LARS) or decoupled decay (AdamW)", at_least=0
    )
    exclude: str | None = setting(
        None, "patterns of variables without weight decay, such as bias,gamma,beta, or none"
    )

    def length(self) -> Duration:
        """Returns how long the run is."""
        return Duration(self.epochs) if self.duration is None else parse_duration(self.duration)

    def milestone_durations(self) -> tuple[Duration, ...]:
        """Returns when the learning rate falls."""
        if self.milestones is None:
            return ()
        return tuple(parse_duration(text) for text in self.milestones.split(","))

    def excluded(self) -> tuple[str, ...] | None:
        """Returns the patterns of variables that are not decayed; None for the optimizer's own."""
        if self.exclude == "none":
            return ()
        return None if self.exclude is None else tuple(self.exclude.split(","))


@dataclasses.dataclass(frozen=True)
class ExecutionSettings:
    """How the run is carried out."""

    seed: int = setting(
        0, "seed of initialization, order, views and drawn bits", at_least=0, at_most=HIGHEST_SEED
    )
    deterministic: bool = setting(False, "repeat to the last bit, at the cost of speed")
    error_correlation: bool = setting(
        False, "measure how quantization and contrastive errors correlate"
    )
    product_dtype: str = setting(
        FLOAT32,
        "in which convolutions and dense layers multiply, and nothing else: auto takes bfloat16 "
        "where the processor has it, float16 comes with loss scaling",
        PRODUCT_DTYPES,
    )
    accumulate: int = setting(
        1, "parts in which a batch is made, one after another, for one update", at_least=1
    )
    steps_per_execution: int = setting(
        1, "steps in one call of TensorFlow, between which nothing is read or saved", at_least=1
    )
    xla: bool = setting(False, "compile the step with XLA (slower on CPUs)")
    strategy: str = setting(
        "single",
        "devices: one, all of this machine, those of all processes of TF_CONFIG, or a TPU",
        STRATEGIES,
    )
    tpu: str | None = setting(
        None, "name or address of the TPU of --strategy=tpu; default the environment's"
    )
    batch_norm: str = setting(
        "local",
        "statistics and ranges of each replica or all; or keys shuffled over them",
        BATCH_NORMS,
    )
    save_every: str = setting(
        "1epochs", "when the run is saved, such as 1epochs, 500steps or 10min"
    )
    keep: int = setting(2, "how many of the newest checkpoints are kept", at_least=1)
    tracker: str | None = setting(
        None, "send the figures of every epoch to an experiment tracker too", TRACKERS
    )
