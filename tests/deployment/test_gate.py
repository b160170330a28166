"""The gate: what differs is counted, and the first operation that does is named."""

import numpy as np
import pytest

from tfcq.deployment import gate as module
from tfcq.deployment.gate import gate, gate_figures, simulated_levels
from tfcq.deployment.verify import checked
from tfcq.errors import UserError
from tfcq.integer.emulation import emulate
from tfcq.integer.form import deployable
from tfcq.integer.runtime import LiteModel, as_levels, every_tensor
from tfcq.integer.writing import written
from tfcq.nn.calibration import calibrate
from tfcq.settings.bitwidths import BitWidth

BITS = BitWidth(8, 8)


@pytest.fixture(scope="module")
def made(network, images):
    form = deployable(network)
    calibrate(form, images)
    return form, written(form, BITS)


def test_every_tensor_is_equal_and_the_simulation_nearly(made, images):
    form, file = made
    counts, outputs = gate(file.file, images, simulated_levels(form, file, BITS))
    figures = gate_figures(counts, len(images))
    assert figures["passed"]
    assert figures["elements"] == sum(
        len(images) * np.prod(file.file.tensors[one.outputs[0]].shape)
        for one in file.file.operations
    )
    assert figures["simulation_equal_steps"] > 0.98
    assert figures["kernels"]["xnnpack"]["equal_steps"] == 1
    assert figures["kernels"]["reference"]["equal_steps"] < 1
    assert outputs["xnnpack"].shape == (len(images), form.output_shape[1])


def test_one_value_that_differs_fails_it_and_names_the_operation(made, images, monkeypatch):
    form, file = made
    place = next(o for o in file.file.operations if o.kind == "ADD").outputs[0]

    def wrong(file, levels, kernels, known):
        values = emulate(file, levels, kernels, known)
        if kernels == "optimized":
            values[place] = values[place].copy()
            values[place].flat[0] ^= 1
        return values

    monkeypatch.setattr(module, "emulate", wrong)
    figures = gate_figures(gate(file.file, images[:2])[0], 2)
    assert not figures["passed"]
    found = figures["kernels"]["optimized"]
    assert (found["differing"], found["first"]) == (1, "stage1_block1_add (ADD)")
    assert figures["kernels"]["xnnpack"]["differing"] == 0


def test_batches_of_a_file_are_whole_and_its_outputs_those_of_single_images(made, images):
    form, one = made
    six = written(form, BITS, 6)
    lite, single = LiteModel(six.file.to_bytes()), LiteModel(one.file.to_bytes())
    # The last batch is not whole.
    np.testing.assert_array_equal(lite(images[:10]), single(images[:10]))
    figures = checked(six.file, images, simulated_levels(form, six, BITS))
    assert figures["passed"] and figures["images"] == len(images) // 6 * 6
    np.testing.assert_array_equal(figures["outputs"]["xnnpack"][:10], single(images[:10]))
    with pytest.raises(UserError, match="5 images cannot be compared; allowed: 6 and above"):
        checked(six.file, images[:5])


def test_values_of_a_simulation_that_differ_are_counted_with_their_steps(made, images):
    file = made[1].file
    place = next(one for one in file.operations if one.kind == "ADD").outputs[0]
    tensor = file.tensors[file.inputs[0]]

    def simulate(batch):
        levels = as_levels(batch, tensor.dtype, float(tensor.scale), tensor.zero_point)
        found = np.array(every_tensor(file, levels, "xnnpack")[place], np.int64)
        found.flat[:3] += 1
        found.flat[3] -= 2
        return {place: found}

    counts, _ = gate(file, images[:2], simulate)
    figures = gate_figures(counts, 2)
    compared = {one.name: (one.simulated, one.largest) for one in counts}
    assert compared.pop("stage1_block1_add") == (4, 2)
    assert set(compared.values()) == {(None, 0)}
    elements = next(one.elements for one in counts if one.simulated)
    assert figures["simulation_equal_steps"] == 1 - 4 / elements
    assert figures["simulation_largest_steps"] == 2
