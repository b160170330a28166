"""The sets of kernels that a `.tflite` file runs on, by name."""

from tfcq.errors import UserError, unknown_choice

FILE_ENDING = ".tflite"
XNNPACK, OPTIMIZED, REFERENCE = "xnnpack", "optimized", "reference"
# Those of LiteRT.
KERNELS = (XNNPACK, OPTIMIZED, REFERENCE)
# Those of microcontrollers, in a runtime of their own.
MICRO = "micro"
ALL_KERNELS = (*KERNELS, MICRO)
# The packages that have them.
RUNTIMES = {**dict.fromkeys(KERNELS, "ai-edge-litert"), MICRO: "tflite-micro"}
KERNELS_HELP = (
    f"of --model=PATH.tflite, in place of bit-widths: {', '.join(ALL_KERNELS)}, or several of "
    f"them; default {XNNPACK}, as LiteRT does; {MICRO} are those of microcontrollers"
)


def is_file(model: str | None) -> bool:
    """Whether a model is a TFLite file by its name.

    Args:
        model: the model as `--model` names it, or None.
    """
    return (model or "").lower().endswith(FILE_ENDING)


def parse_kernels(text: str) -> tuple[str, ...]:
    """Reads names such as `xnnpack,reference`, in the order given.

    Args:
        text: the names.

    Raises:
        UserError: on unknown kernels, or such as stand twice.
    """
    names = tuple(name.strip() for name in text.split(","))
    for name in names:
        if name not in ALL_KERNELS:
            raise unknown_choice("kernels", name, ALL_KERNELS)
        if names.count(name) > 1:
            raise UserError(f"Kernels {name!r} stand twice in {text!r}; name them once.")
    return names
