"""The other forms in which a network leaves: C, JSON, Keras, SavedModel, ONNX, weights by name."""

import dataclasses
import json
import pathlib
from collections.abc import Callable, Mapping, Sequence

import keras

from tfcq import native_messages
from tfcq.deployment.public_formats import PublicWeights, write_public
from tfcq.errors import UserError
from tfcq.integer.c_source import c_array
from tfcq.integer.description import described
from tfcq.integer.folded import folded
from tfcq.integer.lite_file import LiteFile

Paths = list[pathlib.Path]


@dataclasses.dataclass(frozen=True, eq=False)
class Export:
    """A network on its way out, and where it goes.

    Args:
        place: path of the int8 file, without suffix.
        plain: path of the float file, without suffix.
        file: the int8 file.
        model: the network, quantizable or not.
        labels: names of its classes; none where it makes features.
        public: its weights by the name of a library that has names for them.
    """

    place: pathlib.Path
    plain: pathlib.Path
    file: LiteFile
    model: keras.Model
    labels: Sequence[str] = ()
    public: Mapping[str, PublicWeights] = dataclasses.field(default_factory=dict)


def _c(export: Export) -> Paths:
    source, header = c_array(export.file.to_bytes(), export.place.name, export.labels)
    paths = [export.place.with_suffix(".c"), export.place.with_suffix(".h")]
    for path, text in zip(paths, (source, header), strict=True):
        path.write_text(text)
    return paths


def _json(export: Export) -> Paths:
    found = {**described(export.file), "labels": list(export.labels)}
    path = export.place.with_name(f"{export.place.name}_integers.json")
    path.write_text(json.dumps(found) + "\n")
    return [path]


def _keras(export: Export) -> Paths:
    path = export.plain.with_suffix(".keras")
    float_network = folded(export.model).model
    own = [one for one in float_network.layers if type(one).__module__.startswith("tfcq.")]
    if own:
        raise UserError(
            f"Layer {own[0].name!r} is a {type(own[0]).__name__} here, which Keras alone does not "
            "load; allowed: --format=saved_model."
        )
    float_network.save(path)
    return [path]


def _saved_model(export: Export) -> Paths:
    path = export.plain.with_name(f"{export.plain.name}_saved_model")
    with native_messages.hidden():
        folded(export.model).model.export(path, format="tf_saved_model", verbose=False)
    return [path]


def _onnx(export: Export) -> Paths:
    path = export.plain.with_suffix(".onnx")
    float_network = folded(export.model).model
    # Keras exports what was called alone.
    float_network(keras.Input(export.model.input_shape[1:]))
    try:
        with native_messages.hidden():
            float_network.export(path, format="onnx", verbose=False)
    except ImportError as error:
        raise UserError(f"--format=onnx needs a package that cannot be had: {error}.") from None
    return [path]


_WRITERS: dict[str, Callable[[Export], Paths]] = {
    "c": _c,
    "json": _json,
    "keras": _keras,
    "saved_model": _saved_model,
    "onnx": _onnx,
}


def write_format(name: str, export: Export) -> Paths:
    """Writes a network in another form beside its int8 file.

    `c` is the int8 file as an array with its header; `json` its scales, zero points and integers;
    `keras`, `saved_model` and `onnx` the float network, batch norms folded, of images in [0, 1];
    the others its weights as it was trained, by the names of a library.

    Args:
        name: one of `FORMATS` in `tfcq.settings.deployment`.
        export: the network.

    Returns:
        What was written.

    Raises:
        UserError: when the form does not hold the network.
    """
    if name in export.public:
        return write_public(export.public[name], export.plain)
    return _WRITERS[name](export)
