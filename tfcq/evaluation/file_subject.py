"""A TFLite file as what is evaluated: it is run, and neither quantized nor trained."""

import dataclasses
import hashlib
import pathlib
from collections.abc import Mapping

import numpy as np

from tfcq.data.image_stream import Images, image_batches
from tfcq.errors import UserError
from tfcq.evaluation.subject import chosen_data
from tfcq.integer.lite_file import LiteFile, Tensor
from tfcq.integer.micro import MicroModel
from tfcq.integer.runtime import LiteModel
from tfcq.integer.trial import check_runs
from tfcq.settings.backbones import INPUT_RANGES, UNIT_RANGE
from tfcq.settings.evaluation import EvaluationConfig
from tfcq.settings.kernels import MICRO
from tfcq.settings.training_groups import DataSettings

_INTEGERS = ("int8", "uint8", "int16")
_TOGETHER = 256
# How far the ends of an input's grid may lie from a range, as a share of it: calibration finds no
# image that is all of black and white.
_NEAR = 0.25


@dataclasses.dataclass(frozen=True)
class FileSubject:
    """A file, on the kernels that were asked for.

    Args:
        models: by the kernels, what runs the file.
        output: the tensor that it returns.
        input_shape: batch, height, width and channels that it takes.
        data: the data set.
        results: folder of the results.
        title: what it is called in pictures and results.
        weights: fingerprint of its bytes.
        input_range: the pixels that it takes, a name in `INPUT_RANGES`.
        assumed_range: whether nothing told so.
    """

    models: Mapping[str, LiteModel | MicroModel]
    output: Tensor
    input_shape: tuple[int, ...]
    data: DataSettings
    results: pathlib.Path
    title: str
    weights: str
    input_range: str
    assumed_range: bool

    @property
    def output_shape(self) -> tuple[int, ...]:
        """Batch, and number of features or logits."""
        return self.output.shape

    def features(self, images: Images, kernels: str) -> np.ndarray:
        """Returns what the file makes of images, float32 [count, width].

        Args:
            images: float array [count, height, width, channels] in [0, 1], or a stream.
            kernels: one of those asked for.

        Raises:
            UserError: when features come out as NaN or infinity.
        """
        low, high = INPUT_RANGES[self.input_range]
        model = self.models[kernels]
        batches = [
            model(batch * np.float32(high - low) + np.float32(low))
            for batch in image_batches(images, _TOGETHER)
        ]
        found = np.concatenate(batches)
        if self.output.dtype in _INTEGERS:
            found = (found.astype(np.float32) - self.output.zero_point) * self.output.scale
        if not np.all(np.isfinite(found)):
            raise UserError(f"Features of {self.title} on {kernels} kernels hold NaN or infinity.")
        return found


def open_file(config: EvaluationConfig) -> FileSubject:
    """Returns a file of the user's, ready to run on the kernels asked for.

    Args:
        config: the settings.

    Raises:
        UserError: when it cannot be read or run, or does not turn one image into one vector.
    """
    title = str(config.subject.model)
    content = pathlib.Path(title).read_bytes()
    file = LiteFile.read(content, title)
    source, output = _ends(file, title)
    taken, assumed = taken_range(source, title, config.subject.input_range)
    check_runs(content, title, [kernels for kernels in config.kernels if kernels != MICRO])
    return FileSubject(
        models={
            kernels: MicroModel(content) if kernels == MICRO else LiteModel(content, 1, kernels)
            for kernels in config.kernels
        },
        output=output,
        input_shape=source.shape,
        data=chosen_data(config.data, DataSettings(dataset=str(config.data.dataset))),
        results=pathlib.Path(str(config.subject.output_dir)),
        title=title,
        weights=hashlib.sha256(content).hexdigest()[:16],
        input_range=taken,
        assumed_range=assumed,
    )


def _ends(file: LiteFile, title: str) -> tuple[Tensor, Tensor]:
    """Returns input and output of a file that turns one image into one vector.

    Raises:
        UserError: on another file.
    """
    counts = [len(file.inputs), len(file.outputs)]
    if counts != [1, 1]:
        raise UserError(
            f"{title} has {counts[0]} inputs and {counts[1]} outputs; allowed: one of each."
        )
    source, output = file.tensors[file.inputs[0]], file.tensors[file.outputs[0]]
    if len(source.shape) != 4 or len(output.shape) != 2:
        raise UserError(
            f"{title} turns shape {list(source.shape)} into {list(output.shape)}; allowed: "
            "[images, height, width, channels] into [images, width]."
        )
    if source.dtype not in ("float32", *_INTEGERS):
        raise UserError(
            f"{title} takes {source.dtype}; allowed: images as float32, {', '.join(_INTEGERS)}."
        )
    if output.dtype != "float32" and not (output.dtype in _INTEGERS and len(output.scales)):
        raise UserError(
            f"{title} returns {output.dtype}{'' if len(output.scales) else ' without a scale'}; "
            f"allowed: float32, or {', '.join(_INTEGERS)} with a scale, such as features or logits."
        )
    return source, output


def taken_range(source: Tensor, title: str, asked: str | None) -> tuple[str, bool]:
    """Tells and returns the pixels that a file takes, and whether 0 to 1 was assumed.

    Args:
        source: the file's input.
        title: what the file is called.
        asked: a name in `INPUT_RANGES`; None where nobody told.

    Raises:
        UserError: when the input tells of others than were told, or of no pixels and nobody told.
    """
    chosen = _chosen_range(source, title, asked)
    how = "" if chosen else ", assumed since its input does not tell; see --input_range"
    scale = f" of scale {source.scale:.4g}" if len(source.scales) else ""
    stored = "" if source.dtype == "float32" else f", as {source.dtype}{scale}"
    print(f"{title} takes pixels in {chosen or UNIT_RANGE}{stored}{how}.", flush=True)
    return chosen or UNIT_RANGE, chosen is None


def _chosen_range(source: Tensor, title: str, asked: str | None) -> str | None:
    """Returns the pixels as told, or as the input tells; None where neither is."""
    if "int" not in source.dtype or not len(source.scales):
        return asked or ("0-255" if source.dtype == "uint8" else None)
    limits = np.iinfo(source.dtype)
    ends = [float(source.scale) * (end - source.zero_point) for end in (limits.min, limits.max)]
    found = [
        name
        for name, (low, high) in INPUT_RANGES.items()
        if np.allclose(ends, (low, high), rtol=0, atol=_NEAR * (high - low))
    ]
    if found and asked not in (None, *found):
        raise UserError(
            f"{title} takes pixels in {found[0]} by the scale of its input, not {asked}; leave out "
            "--input_range."
        )
    if not found and asked is None:
        raise UserError(
            f"{title} takes numbers from {ends[0]:.3g} to {ends[1]:.3g} by the scale of its input, "
            f"which are no pixels of {', '.join(INPUT_RANGES)}; convert it with its preprocessing "
            "in front, or pass the nearest as --input_range."
        )
    return asked or found[0]
