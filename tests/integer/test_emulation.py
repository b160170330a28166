"""The emulation of `.tflite` files, against LiteRT itself: every tensor, to the last bit."""

import numpy as np
import pytest

from tests.integer.emulation_cases import CASES, GRIDS, STEPS, files, kernel
from tests.integer.lite_files import chain, constant, levels, pictures, real, single
from tfcq.deployment.tflite import int8_tflite
from tfcq.errors import UserError
from tfcq.integer.emulation import KERNELS, emulate
from tfcq.integer.lite_file import LiteFile
from tfcq.integer.runtime import LiteModel, every_tensor

ABSENT = [("ELU", "reference")]


def differences(file, images, kernels):
    """Returns by operation how many values differ, and asserts that there are as many."""
    found, expected = emulate(file, images, kernels), every_tensor(file, images, kernels)
    counts = {}
    for operation in file.operations:
        for index in operation.outputs:
            assert found[index].dtype == expected[index].dtype
            assert found[index].shape == expected[index].shape
            bits = found[index].view(np.uint8) != expected[index].view(np.uint8)
            counts[operation.kind] = counts.get(operation.kind, 0) + int(bits.sum())
    return counts


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("kernels", KERNELS)
@pytest.mark.parametrize("kind", CASES)
def test_every_tensor_is_what_litert_computes(kind, kernels, grid):
    for file in files(kind, grid):
        images = pictures(file.tensors[0])
        if (kind, kernels) in ABSENT:
            with pytest.raises(UserError, match="LiteRT has no reference kernel of ELU"):
                emulate(file, images, kernels)
            with pytest.raises(UserError, match="the file on reference kernels: .*'ELU'"):
                every_tensor(file, images, kernels)
            continue
        assert set(differences(file, images, kernels).values()) == {0}


# Same axes; one spread along rows; values spread over others, each way round; axes in turns.
SPREADS = [
    ((1, 3, 4, 10), (1, 3, 4, 10)),
    ((1, 5, 4, 20), (1, 1, 1, 20)),
    ((1, 5, 4, 20), (1, 5, 4, 1)),
    ((1, 5, 4, 20), (1,)),
    ((1, 1, 1, 20), (1, 5, 4, 20)),
    ((1, 5, 1, 20), (1, 1, 6, 1)),
]


@pytest.mark.parametrize("kernels", KERNELS)
@pytest.mark.parametrize("kind", ["ADD", "SUB"])
@pytest.mark.parametrize("shapes", SPREADS, ids=str)
def test_sums_that_nearly_tie_are_what_litert_computes(shapes, kind, kernels):
    # Three quarters of a step tie at every other level, but for the last bits of multipliers.
    random = np.random.default_rng(0)
    for first, second, out in ((0.07, 0.0525, 0.07), (0.01725, 0.023, 0.023), (0.05, 0.03, 0.04)):
        one = levels(shapes[0], first, 7)
        two = constant(random.integers(-128, 128, shapes[1]).astype(np.int8), second, -3)
        output = levels(np.broadcast_shapes(*shapes), out, 11)
        file = single(kind, [one, two], output, fusedActivationFunction=0)
        assert differences(file, pictures(one, count=100), kernels) == {kind: 0}


@pytest.mark.parametrize("kernels", KERNELS)
def test_a_gate_of_channels_and_a_float_tail_are_what_litert_computes(kernels):
    maps, gate = levels((1, 4, 4, 9), 0.07, 3), levels((1, 1, 1, 9), 0.05, -4)
    share, product = levels((1, 1, 1, 9), 1 / 256, -128), levels((1, 4, 4, 9), 0.04, 5)
    floats = [real((1, 4, 4, 9)) for _ in range(4)]
    factor = constant(np.linspace(-2, 3, 9, dtype=np.float32))
    file = chain(
        maps,
        ("MEAN", [maps, constant(np.int32([1, 2]))], [gate], {"keepDims": True}, 2),
        ("LOGISTIC", [gate], [share], {}, 2),
        ("MUL", [maps, share], [product], {}, 2),
        ("DEQUANTIZE", [product], [floats[0]], {}, 2),
        ("MUL", [floats[0], factor], [floats[1]], {}, 1),
        ("ADD", [floats[1], factor], [floats[2]], {"fusedActivationFunction": 3}, 1),
        ("SUB", [floats[2], floats[0]], [floats[3]], {"fusedActivationFunction": 1}, 1),
    )
    assert set(differences(file, pictures(maps), kernels).values()) == {0}


@pytest.mark.parametrize("kernels", KERNELS)
def test_operands_without_an_axis_of_images_are_what_litert_computes(kernels):
    maps, flat, output = (
        levels((1, 1, 1, 9), 0.07, 3),
        levels((9,), 0.07, 3),
        levels((1, 1, 1, 9), 0.1),
    )
    product = levels((1, 1, 1, 9), 0.2, 5)
    file = chain(
        maps,
        ("RESHAPE", [maps, constant(np.int32([9]))], [flat], {}, 1),
        ("ADD", [maps, flat], [output], {}, 2),
        ("MUL", [flat, output], [product], {}, 2),
    )
    assert set(differences(file, pictures(maps), kernels).values()) == {0}


@pytest.fixture(scope="module")
def network_file(network, images):
    return LiteFile.read(int8_tflite(network, images))


@pytest.fixture(scope="module")
def pixels(images):
    return np.round(images * 255).astype(np.uint8)


@pytest.mark.parametrize("kernels", KERNELS)
def test_a_network_is_what_litert_computes(network_file, images, pixels, kernels):
    assert set(differences(network_file, pixels, kernels).values()) == {0}
    # The untouched file, in which a delegate may join operations.
    (output,) = network_file.outputs
    found = emulate(network_file, pixels, kernels)[output]
    np.testing.assert_array_equal(
        found, LiteModel(network_file.to_bytes(), kernels=kernels)(images)
    )


def test_another_set_of_kernels_is_noticed(network_file, pixels):
    for rules in KERNELS:
        for runs in set(KERNELS) - {rules}:
            found = emulate(network_file, pixels, rules)
            expected = every_tensor(network_file, pixels, runs)
            assert any(np.any(a != b) for a, b in zip(found, expected, strict=True)), (rules, runs)


@pytest.mark.parametrize("kind", ["CONV_2D", "DEPTHWISE_CONV_2D", "ADD", "MEAN", "MUL", "QUANTIZE"])
def test_a_tie_tells_rules_apart(kind):
    # Values of which two sets of kernels make the same are no test of either.
    for file in files(kind, "ties")[:1]:
        images = pictures(file.tensors[0])
        xnnpack, reference = (emulate(file, images, one)[-1] for one in ("xnnpack", "reference"))
        assert 0 < np.mean(xnnpack != reference) < 0.5


@pytest.mark.parametrize("kind", ["CONV_2D", "QUANTIZE"])
def test_values_at_both_ends_of_the_grid_occur(kind):
    found = set()
    for file in files(kind, "odd"):
        values = emulate(file, pictures(file.tensors[0]), "xnnpack")[-1]
        found |= {int(values.min()), int(values.max())}
    assert {-128, 127} <= found


def test_images_are_computed_as_one_by_one(network_file, pixels):
    whole = emulate(network_file, pixels[:6], "xnnpack")
    parts = [emulate(network_file, pixels[start : start + 2], "xnnpack") for start in (0, 2, 4)]
    for index, value in enumerate(whole):
        if network_file.tensors[index].data is None:
            found = np.concatenate([part[index] for part in parts])
            np.testing.assert_array_equal(value, found)


def test_a_batch_of_the_file_is_kept():
    maps, output = levels((2, 3), 0.1), levels((2, 3), 0.2)
    file = single("QUANTIZE", [maps], output)
    assert differences(file, pictures(maps, 6), "xnnpack") == {"QUANTIZE": 0}
    with pytest.raises(UserError, match=r"The file takes int8 \[2, 3\]; got int8 \[5, 3\]"):
        emulate(file, pictures(maps, 5), "xnnpack")
    with pytest.raises(UserError, match="There are no images; the file takes at least one"):
        emulate(file, pictures(maps, 0), "xnnpack")


def test_what_has_no_rule_is_named():
    maps = levels((1, 4, 4, 3), 0.1)
    images = pictures(maps, 2)
    file = single("ABS", [maps], levels((1, 4, 4, 3), 0.1, name="sizes"))
    with pytest.raises(UserError, match=r"no rule for ABS \(it makes 'sizes'\); allowed: ADD, "):
        emulate(file, images, "xnnpack")
    file = single("RELU", [maps], levels((1, 4, 4, 3), 0.1))
    with pytest.raises(UserError, match="Unknown kernels 'neon'; allowed: xnnpack, optimized, ref"):
        emulate(file, images, "neon")
    with pytest.raises(UserError, match=r"takes int8 \[1, 4, 4, 3\]; got uint8 \[2, 4, 4, 3\]"):
        emulate(file, images.astype(np.uint8), "xnnpack")
    weights, output = (
        constant(kernel(np.random.default_rng(0), 1, 3, 3, 3), 0.1),
        levels(maps.shape, 1),
    )
    file = single("DEPTHWISE_CONV_2D", [maps, weights], output, 3, depthMultiplier=1, **STEPS)
    with pytest.raises(UserError, match="computes no DEPTHWISE_CONV_2D without a bias"):
        emulate(file, images, "optimized")
    source = real((1, 4))
    file = single("TANH", [source], real((1, 4), "t"))
    with pytest.raises(UserError, match=r"no rule for TANH of float32 .*allowed: int8\."):
        emulate(file, pictures(source), "xnnpack")


def test_dense_layers_of_microcontrollers_are_rounded_as_convolutions_of_a_pixel():
    random = np.random.default_rng(0)
    weights = random.integers(-127, 128, (9, 16)).astype(np.int8)
    scales, bias = random.uniform(0.001, 0.01, 9), random.integers(-999, 999, 9).astype(np.int32)
    kernels = [constant(one, scales) for one in (weights, weights.reshape(9, 1, 1, 16))]
    added = constant(bias, 0.05 * scales)
    flat = single(
        "FULLY_CONNECTED",
        [levels((1, 16), 0.05, 3), kernels[0], added], levels((1, 9), 0.07, -5), 5,
        fusedActivationFunction=0,
    )  # fmt: skip
    maps = single(
        "CONV_2D",
        [levels((1, 1, 1, 16), 0.05, 3), kernels[1], added], levels((1, 1, 1, 9), 0.07, -5), 3,
        **STEPS, fusedActivationFunction=0,
    )  # fmt: skip
    images = pictures(flat.tensors[0], count=2000)
    pixels = images.reshape(-1, 1, 1, 16)
    found = emulate(flat, images, "micro")[flat.outputs[0]]
    expected = emulate(maps, pixels, "reference")[maps.outputs[0]].reshape(-1, 9)
    np.testing.assert_array_equal(found, expected)
    assert np.any(found != emulate(flat, images, "reference")[flat.outputs[0]])
