"""From the integer form of a network to a TFLite file with just its integers."""

import dataclasses

import keras

from tfcq.errors import UserError
from tfcq.integer.float_layers import write_float
from tfcq.integer.lite_file import LiteFile
from tfcq.integer.operations import fuses_relu, is_float
from tfcq.integer.replay import output_names
from tfcq.integer.writer import Writer
from tfcq.integer.writers import WRITERS
from tfcq.nn.activation_quantizer import ActivationQuantizer
from tfcq.nn.layers import FLOAT_COUNTERPARTS
from tfcq.nn.quantizable import QuantizableModel
from tfcq.quantization.precision import Precision
from tfcq.settings.bitwidths import BitWidth
from tfcq.settings.deployment import check_storage


@dataclasses.dataclass(frozen=True, eq=False)
class Written:
    """A file, and where in it the values of the form are.

    Args:
        file: the file.
        places: index of the tensor on each quantizer's grid, by the name of the quantizer's layer.
    """

    file: LiteFile
    places: dict[str, int]


def written(
    model: QuantizableModel, bits: BitWidth, batch: int = 1, storage: str = "int8"
) -> Written:
    """Returns the file of a calibrated integer form at a bit-width of its weights.

    Args:
        model: what `tfcq.deployable` returned, calibrated.
        bits: bit-width of the weights, and 8 of the activations.
        batch: images that the file takes at once.
        storage: type that kernels are stored in: `"int8"`, which every fast kernel takes, or
            `"int4"`, half the bytes, for weights of up to 4 bits.

    Raises:
        UserError: without a fixed image size, on other activations than of 8 bits, or on weights
            that the storage does not hold.
    """
    check_deployed(model)
    if bits.weights is None or not 2 <= bits.weights <= 8:
        raise UserError(f"Weights at {bits} cannot be deployed as integers; allowed: 2w8a to 8w8a.")
    if bits.activations != 8:
        raise UserError(
            f"Activations of {bits.activations} bits cannot be deployed; LiteRT has 8, such as "
            f"{bits.weights}w8a."
        )
    check_storage(storage, bits)
    writer = Writer(model, Precision(bits.weights, bits.activations), batch, storage)
    for name in writer.nodes:
        _write(writer, name)
    for number, name in enumerate(output_names(model)):
        _write_output(writer, name, number)
    places = {
        name: place
        for name, place in writer.place.items()
        if isinstance(writer.layers[name], ActivationQuantizer)
    }
    return Written(writer.file, places)


def check_deployed(model: keras.Model) -> None:
    """Refuses a model whose images have no fixed size.

    Args:
        model: the model.

    Raises:
        UserError: naming the shape.
    """
    taken = model.input_shape[1:]
    if None in taken:
        fixed = tuple(size or 32 for size in taken)
        raise UserError(
            f"Model {model.name!r} takes images of shape {taken}; allowed for deployment: a fixed "
            f"shape, as of keras.Model(inputs, model(inputs)) with inputs = keras.Input({fixed})."
        )


def _write(writer: Writer, name: str) -> None:
    layer, node = writer.layers[name], writer.nodes[name]
    inputs = [writer.place[producer] for producer in node.producers]
    if isinstance(layer, ActivationQuantizer):
        # Behind a float layer alone they are not on its grid yet.
        grid = writer.grid_of_quantizer(layer)
        writer.place[name] = writer.onto(inputs[0], grid, name)
        return
    if is_float(layer):
        writer.place[name] = write_float(writer, layer, inputs)
        return
    if node.kind == "ReLU" and fuses_relu(writer.nodes[node.producers[0]].kind):
        writer.place[name] = inputs[0]
        (computed,) = [one for one in writer.file.operations if one.outputs == inputs]
        computed.options["fusedActivationFunction"] = writer.clipping(layer, inputs[0])
        return
    kind = "Kernel" if type(layer) in FLOAT_COUNTERPARTS else node.kind
    writer.place[name] = WRITERS[kind](writer, layer, inputs)


def _write_output(writer: Writer, name: str, number: int) -> None:
    # Named as the converter does, by whose numbers readers order outputs.
    made = writer.in_float(writer.place[name])
    writer.file.tensors[made].name = f"output:{number}"
    writer.file.outputs.append(made)
