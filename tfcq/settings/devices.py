"""Accelerators by name and as text: `8xA100`, `8xV100,32GB`, `8x312TFLOPS,40GB,300GB/s,20%`."""

import dataclasses
import re
from collections.abc import Mapping

from tfcq.errors import UserError, unknown_choice
from tfcq.settings.training_groups import BFLOAT16, FLOAT16, FLOAT32, STRATEGIES, TPU

# Of the peak, where nobody measured: the least that was, below.
_SHARE = 0.14
_MOST = 1_000_000
# The name of a kind that has figures of its own.
CUSTOM = "custom"
_FIGURE = re.compile(r"(\d+(?:\.\d+)?)\s*(TFLOPS|GB/s|GB|%)", re.IGNORECASE)
_FIGURES = "TFLOPS, GB (memory), GB/s (of the links, one way) or % (of the peak)"


@dataclasses.dataclass(frozen=True)
class Device:
    """What is published of an accelerator.

    Args:
        peak: most floating-point operations a second by the dtype of products, in TFLOP/s.
        memory: in GB.
        links: what one sends to others of its kind, in GB/s, one way.
        shares: share of the peak that trainings were measured to reach, by dtype.
    """

    peak: Mapping[str, float]
    memory: float
    links: float
    shares: Mapping[str, float] = dataclasses.field(default_factory=dict)


# Without sparsity; links are half of what makers add up over both ways. float32 is TF32 from A100
# on, as TensorFlow multiplies it there, and bfloat16 on TPUs.
#   NVIDIA data sheets: V100 SXM2, A100 SXM 40 GB, H100 and H200 SXM, T4 (PCIe 3.0 x16), A10, L4 and
#   L40S (PCIe 4.0 x16).
#   Cloud TPU documentation, a chip each: v4 (two cores; six links of 50 GB/s: Jouppi et al.,
#   "TPU v4", 2023), v5e, v5p and v6e (links of 1,600, 4,800 and 3,200 Gbit/s).
# Shares: images a second of ResNet-50 at 224 pixels, 24.5 GFLOP each forward and backward, on one
# GPU in NVIDIA DeepLearningExamples, TensorFlow/Classification/ConvNets/resnet50v1.5, with XLA:
#   V100 412 (float32) and 1,270 (mixed precision), A100 909 (TF32) and 2,375.
DEVICES = {
    "V100": Device({FLOAT32: 15.7, FLOAT16: 125}, 16, 150, {FLOAT32: 0.64, FLOAT16: 0.25}),
    "A100": Device(
        {FLOAT32: 156, FLOAT16: 312, BFLOAT16: 312}, 40, 300,
        {FLOAT32: 0.14, FLOAT16: 0.19, BFLOAT16: 0.19},
    ),
    "H100": Device({FLOAT32: 494, FLOAT16: 989, BFLOAT16: 989}, 80, 450),
    "H200": Device({FLOAT32: 494, FLOAT16: 989, BFLOAT16: 989}, 141, 450),
    "T4": Device({FLOAT32: 8.1, FLOAT16: 65}, 16, 16),
    "A10": Device({FLOAT32: 62.5, FLOAT16: 125, BFLOAT16: 125}, 24, 32),
    "L4": Device({FLOAT32: 60, FLOAT16: 121, BFLOAT16: 121}, 24, 32),
    "L40S": Device({FLOAT32: 183, FLOAT16: 362, BFLOAT16: 362}, 48, 32),
    "TPUv4": Device({FLOAT32: 275, BFLOAT16: 275}, 34, 300),
    "TPUv5e": Device({FLOAT32: 197, BFLOAT16: 197}, 16, 200),
    "TPUv5p": Device({FLOAT32: 459, BFLOAT16: 459}, 95, 600),
    "TPUv6e": Device({FLOAT32: 918, BFLOAT16: 918}, 32, 400),
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Devices:
    """Several accelerators of one kind, each a replica.

    Args:
        count: how many.
        name: of the kind, or `"custom"`.
        device: the kind.
        share: share of the peak that steps reach; None for what was measured.
    """

    count: int
    name: str
    device: Device
    share: float | None = None

    def dtype(self, asked: str) -> str:
        """Returns in which dtype products are made: what is asked for, or for `auto` the fastest.

        Args:
            asked: a dtype of products.

        Raises:
            UserError: when the device has no such products.
        """
        peak = self.device.peak
        if asked == "auto":
            return BFLOAT16 if BFLOAT16 in peak else FLOAT32
        if asked not in peak:
            raise UserError(
                f"--product_dtype={asked} with --devices={self.count}x{self.name}, which does not "
                f"multiply it; allowed: {', '.join(peak)}."
            )
        return asked

    @property
    def strategies(self) -> list[str]:
        """Names of the strategies that train on all of them."""
        if self.name.startswith("TPU"):
            return [TPU]
        left_out = {"single"} if self.count > 1 else set()
        left_out |= {TPU} if self.name != CUSTOM else set()
        return [name for name in STRATEGIES if name not in left_out]

    def share_of_peak(self, dtype: str) -> float:
        """Returns the share of the peak that steps are taken to reach.

        Args:
            dtype: of products.
        """
        return self.share or self.device.shares.get(dtype, _SHARE)

    def in_words(self, dtype: str) -> str:
        """Returns what is taken for granted, in a line.

        Args:
            dtype: of products.
        """
        device = self.device
        return (
            f"{self.count} x {self.name}: {self.share_of_peak(dtype):.0%} of "
            f"{device.peak[dtype]:g} TFLOP/s in {dtype}, {device.memory:g} GB, links of "
            f"{device.links:g} GB/s"
        )


def parse_devices(text: str) -> Devices:
    """Reads `8xA100`, perhaps with figures that replace published ones, or figures alone.

    Args:
        text: a number, `x`, then a name in `DEVICES` or `NTFLOPS,NGB,NGB/s`, further figures and
            a share of the peak such as `20%` behind commas.

    Raises:
        UserError: on any other form, saying what is allowed.
    """
    found = re.fullmatch(r"\s*([1-9]\d*)\s*x\s*(\S.*)", text, re.ASCII)
    if found is None or int(found[1]) > _MOST:
        raise UserError(
            f"--devices={text} cannot be used; allowed: a number and a kind, such as 8xA100 or "
            "8x312TFLOPS,40GB,300GB/s."
        )
    name, *rest = (part.strip() for part in found[2].split(","))
    if _FIGURE.fullmatch(name):
        name, rest = CUSTOM, [name, *rest]
    known = {one.lower(): one for one in DEVICES}
    if name != CUSTOM:
        if name.lower() not in known:
            raise unknown_choice("device", name, tuple(DEVICES))
        name = known[name.lower()]
    figures = _figures(text, rest)
    if name == CUSTOM and (missing := {"TFLOPS", "GB", "GB/S"} - figures.keys()):
        lacking = ", ".join(sorted(missing)).replace("/S", "/s")
        raise UserError(f"--devices={text} lacks {lacking}; allowed: 8x312TFLOPS,40GB,300GB/s.")
    own = DEVICES.get(name, Device({FLOAT32: 0, FLOAT16: 0, BFLOAT16: 0}, 0, 0))
    peak, shares = own.peak, own.shares
    if "TFLOPS" in figures:
        # Shares are those of the published peak.
        peak, shares = dict.fromkeys(peak, figures["TFLOPS"]), {}
    device = Device(peak, figures.get("GB", own.memory), figures.get("GB/S", own.links), shares)
    share = figures["%"] / 100 if "%" in figures else None
    return Devices(int(found[1]), name, device, share)


def _figures(text: str, parts: list[str]) -> dict[str, float]:
    """Returns figures by their unit in capitals."""
    figures: dict[str, float] = {}
    for part in parts:
        figure = _FIGURE.fullmatch(part)
        unit = figure[2].upper() if figure else ""
        if figure is None or unit in figures or float(figure[1]) == 0:
            raise UserError(f"--devices={text}: {part!r} cannot be used; allowed: {_FIGURES}.")
        figures[unit] = float(figure[1])
    if figures.get("%", 0) > 100:
        raise UserError(f"--devices={text}: {figures['%']:g}% of the peak; allowed: up to 100%.")
    return figures
