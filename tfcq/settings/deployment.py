"""What an export writes, what it is checked on, and what it must keep."""

import dataclasses
import importlib.util

from tfcq.errors import UserError, unknown_choice
from tfcq.settings.bitwidths import BitWidth
from tfcq.settings.fields import setting
from tfcq.settings.protocols import POST_TRAINING

OWN, TFMOT, QUANTIZER = "tfcq", "tfmot", "ai_edge_quantizer"
BACKENDS = (OWN, TFMOT, QUANTIZER)
STORAGES = ("int8", "int4")
# Weights alone, by the names that other libraries have.
PUBLIC_FORMATS = ("torchvision", "timm", "detectron2")
FORMATS = ("c", "json", "keras", "saved_model", "onnx", *PUBLIC_FORMATS)
FINE_TUNING = ("epochs", "learning_rate", "batch_size")
# What other libraries decide for themselves.
_OWN_ALONE = (
    "storage", "batch", "policy", "layer_bits", "per_tensor", "calibration", "calibration_pass",
    *POST_TRAINING,
)  # fmt: skip


def check_storage(storage: str, bits: BitWidth) -> None:
    """Refuses a storage that does not hold the weights.

    Args:
        storage: the type.
        bits: the bit-width.

    Raises:
        UserError: naming what holds them.
    """
    if storage not in STORAGES:
        raise unknown_choice("storage", storage, STORAGES)
    if storage == "int4" and (bits.weights or 0) > 4:
        raise UserError(f"Storage int4 does not hold weights at {bits}; allowed: 2w8a to 4w8a.")


@dataclasses.dataclass(frozen=True)
class GateSettings:
    """The check of a file, tensor by tensor."""

    images: int = setting(
        1000,
        "test images, and training images where those are fewer, of the check tensor by tensor",
        at_least=1,
    )


@dataclasses.dataclass(frozen=True)
class CheckSettings(GateSettings):
    """The comparison of a file with what was evaluated."""

    min_agreement: float = setting(
        0.99, "exit with 1 below this top-1 agreement", at_least=0, at_most=1
    )
    profile: bool = setting(False, "time every operation of the file too")


@dataclasses.dataclass(frozen=True)
class ExportSettings:
    """What is written."""

    backend: str = setting(
        OWN,
        "who makes the file; tfmot fine-tunes a classifier with labels first",
        BACKENDS,
    )
    probe: bool = setting(
        False, "put a linear probe behind the features, so that the file names classes"
    )
    classifier: bool = setting(
        False, "the outputs are logits, compare them as they are; default under a linear probe"
    )
    storage: str = setting(
        "int8", "how weights are stored; int4 halves the file and runs on slower kernels", STORAGES
    )
    batch: int = setting(1, "images that the int8 file takes at once", at_least=1)
    format: str | None = setting(
        None, f"also write, separated by commas: {', '.join(FORMATS)}; float but for c and json"
    )
    epochs: int = setting(3, "passes of fine-tuning by tfmot", at_least=1)
    learning_rate: float = setting(1e-4, "of fine-tuning by tfmot, Adam", above=0)
    batch_size: int = setting(32, "images a step of fine-tuning by tfmot", at_least=1)

    @property
    def formats(self) -> tuple[str, ...]:
        """The formats beside `.tflite`, each once."""
        return tuple(dict.fromkeys(filter(None, (self.format or "").split(","))))

    def check(self, given: set[str], bits: BitWidth) -> None:
        """Refuses what does not go together, or would change nothing.

        Args:
            given: names of the settings that the user set.
            bits: the bit-width.

        Raises:
            UserError: naming what is allowed.
        """
        if self.probe and self.classifier:
            raise UserError("--probe and --classifier were given; allowed: one of them.")
        if self.backend == TFMOT and not (self.probe or self.classifier):
            raise UserError(
                "--backend=tfmot fine-tunes a classifier; allowed: with --probe, or --classifier."
            )
        if self.backend == TFMOT and bits.weights != 8:
            raise UserError(f"--backend=tfmot does not quantize to {bits}; allowed: 8w8a.")
        unused = [] if self.backend == TFMOT else list(FINE_TUNING)
        unused += list(_OWN_ALONE) if self.backend != OWN else []
        for name in unused:
            if name in given:
                raise UserError(
                    f"--{name} has no effect here: --backend={self.backend}; leave it out."
                )
        check_storage(self.storage, bits)
        for name in self.formats:
            if name not in FORMATS:
                raise unknown_choice("format", name, FORMATS)
        for package in ("tf2onnx", "onnx") if "onnx" in self.formats else ():
            if importlib.util.find_spec(package) is None:
                raise UserError(
                    f"--format=onnx needs {package}; install it with `pip install tf2onnx onnx`."
                )
