"""The gate: whether a file computes what its rules say, and how far its kernels lie apart.

An emulation that equals the runtime on every tensor knows what a device will compute. Then kernels
that round otherwise, and a simulation in float32, are properties of the network, not errors.
"""

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np

from tfcq.data.image_stream import Images
from tfcq.errors import UserError
from tfcq.integer.emulation import emulate, kernels_of, rule_fault
from tfcq.integer.lite_file import LiteFile, Tensor
from tfcq.integer.runtime import as_levels, every_tensor
from tfcq.integer.writing import Written
from tfcq.nn.quantizable import QuantizableModel
from tfcq.quantization.precision import Precision
from tfcq.settings.bitwidths import BitWidth
from tfcq.settings.kernels import XNNPACK

# Images at once: what every tensor of a network takes must be held six times.
_SLICE = 50
# Values on integer grids and, on the same grids, of a simulation.
Steps = dict[int, np.ndarray]
Simulate = Callable[[np.ndarray], Steps]


@dataclasses.dataclass(eq=False)
class Compared:
    """What was counted of one operation's outputs.

    Args:
        name: the tensor's name, which is the layer's.
        kind: the operation.
        ruled: whether it is emulated; else its values are LiteRT's own, such as floats.
        elements: how many values all images have.
        differing: by kernels, values in which emulation and runtime differ.
        apart: by other kernels, integer values that differ from XNNPACK's; empty for floats.
        simulated: integer values in which the simulation differs from XNNPACK; None without one.
        largest: the largest difference of the simulation, in steps.
    """

    name: str
    kind: str
    ruled: bool = True
    elements: int = 0
    differing: dict[str, int] = dataclasses.field(default_factory=dict)
    apart: dict[str, int] = dataclasses.field(default_factory=dict)
    simulated: int | None = None
    largest: int = 0


def gate(
    file: LiteFile, images: Images, simulate: Simulate | None = None
) -> tuple[list[Compared], dict[str, np.ndarray]]:
    """Compares emulation and runtime on every tensor, kernels with each other, and a simulation.

    Args:
        file: the file.
        images: float [count, height, width, channels] in [0, 1].
        simulate: gives the levels of the simulation by tensor, see `simulated_levels`.

    Returns:
        What was counted, operation by operation, and the outputs by kernels, float
        [count, width] of the first output.

    Raises:
        UserError: when the runtime refuses the file, or none of its operations has a rule.
    """
    sets = kernels_of(file)
    counts = [
        Compared(
            file.tensors[one.outputs[0]].name,
            one.kind,
            not any(rule_fault(file, one, name) for name in sets),
        )
        for one in file.operations
    ]
    if not any(one.ruled for one in counts):
        raise UserError(rule_fault(file, file.operations[0], XNNPACK))
    outputs: dict[str, list[np.ndarray]] = {kernels: [] for kernels in sets}
    taken = file.tensors[file.inputs[0]]
    for batch in _slices(images, taken.shape[0]):
        levels = as_levels(batch, *input_form(taken))
        computed = {kernels: every_tensor(file, levels, kernels) for kernels in sets}
        for kernels, values in computed.items():
            expected = emulate(file, levels, kernels, values)
            for count, operation in zip(counts, file.operations, strict=True):
                wrong = sum(_differing(values[i], expected[i]) for i in operation.outputs)
                count.differing[kernels] = count.differing.get(kernels, 0) + wrong
            outputs[kernels].append(np.asarray(values[file.outputs[0]]))
        simulated = {} if simulate is None else simulate(batch)
        for count, operation in zip(counts, file.operations, strict=True):
            _count(count, file, operation.outputs[0], computed, simulated)
    return counts, {kernels: np.concatenate(found) for kernels, found in outputs.items()}


def whole_batches(file: LiteFile, images: Images) -> Images:
    """Returns as many of the images as make up whole batches of a file.

    Args:
        file: the file.
        images: the images.

    Raises:
        UserError: when there are less than one.
    """
    batch = file.tensors[file.inputs[0]].shape[0]
    if len(images) < batch:
        raise UserError(
            f"{len(images)} images cannot be compared; allowed: {batch} and above, which the file "
            "takes at once."
        )
    whole = len(images) // batch * batch
    if whole < len(images):
        print(f"Of {len(images)} images {whole} are checked, {batch} at once.", flush=True)
    return images[:whole]


def _slices(images: Images, batch: int) -> Iterator[np.ndarray]:
    size = -(-_SLICE // batch) * batch
    for start in range(0, len(images), size):
        yield np.asarray(images[start : start + size])


def input_form(tensor: Tensor) -> tuple[Any, float, int]:
    """Returns type, scale and zero point of the images that a file takes, see `as_levels`.

    Args:
        tensor: the file's input.
    """
    if not len(tensor.scales):
        return tensor.dtype, 1.0, 0
    return tensor.dtype, float(tensor.scale), tensor.zero_point


def _differing(values: Any, expected: Any) -> int:
    # A float that is no number equals itself here.
    return int(np.sum(~((values == expected) | ((values != values) & (expected != expected)))))


def _count(
    count: Compared,
    file: LiteFile,
    index: int,
    computed: dict[str, list[Any]],
    simulated: Steps,
) -> None:
    own = computed[XNNPACK][index]
    count.elements += own.size
    if "int" not in file.tensors[index].dtype:
        return
    for kernels, values in computed.items():
        if kernels != XNNPACK:
            apart = int(np.sum(values[index] != own))
            count.apart[kernels] = count.apart.get(kernels, 0) + apart
    if index in simulated:
        steps = np.abs(simulated[index].reshape(own.shape) - own.astype(np.int64))
        count.simulated = (count.simulated or 0) + int(np.sum(steps > 0))
        count.largest = max(count.largest, int(np.max(steps)))


def simulated_levels(form: QuantizableModel, made: Written, bits: BitWidth) -> Simulate:
    """Returns what gives the levels of a simulation by tensor of the file that was written of it.

    Args:
        form: the calibrated integer form.
        made: its file.
        bits: the bit-width.
    """
    names = list(made.places)
    probe = QuantizableModel(form.inputs[0], [form.get_layer(name).output for name in names])
    precision = Precision(bits.weights, bits.activations)

    def simulate(images: np.ndarray) -> Steps:
        found: Steps = {}
        outputs = keras.tree.flatten(probe(images, precision=precision))
        for name, values in zip(names, outputs, strict=True):
            tensor = made.file.tensors[made.places[name]]
            levels = np.round(np.asarray(values, np.float64) / float(tensor.scale))
            found[made.places[name]] = levels.astype(np.int64) + tensor.zero_point
        return found

    return simulate


def gate_figures(counts: list[Compared], images: int) -> dict[str, Any]:
    """Returns what the gate found, as data.

    Args:
        counts: what `gate` returned.
        images: how many images were compared.
    """
    last = next((one for one in reversed(counts) if one.apart), None)
    kernels = {}
    for name in counts[0].differing:
        wrong = [one for one in counts if one.differing[name]]
        first = f"{wrong[0].name} ({wrong[0].kind})" if wrong else None
        kernels[name] = {
            "differing": sum(one.differing[name] for one in wrong),
            "first": first,
            "equal_steps": None if last is None else _equal(last, last.apart.get(name, 0)),
        }
    last_simulated = next((one for one in reversed(counts) if one.simulated is not None), None)
    return {
        "images": images,
        "elements": sum(one.elements for one in counts if one.ruled),
        "passed": all(not found["differing"] for found in kernels.values()),
        "kernels": kernels,
        "simulation_equal_steps": last_simulated
        and _equal(last_simulated, last_simulated.simulated or 0),
        "simulation_largest_steps": last_simulated and last_simulated.largest,
        "operations": [dataclasses.asdict(one) for one in counts],
    }


def _equal(count: Compared, differing: int) -> float:
    return 1 - differing / count.elements
