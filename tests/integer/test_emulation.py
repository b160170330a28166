"""The emulation of `.tflite` files, against LiteRT itself: every tensor, to the last bit."""

import numpy as np
import pytest

from tests.integer.lite_files import chain, constant, levels, pictures, real, single
from tfcq.deployment.tflite import int8_tflite
from tfcq.errors import UserError
from tfcq.integer.emulation import KERNELS, emulate
from tfcq.integer.lite_file import LiteFile, Tensor
from tfcq.integer.runtime import LiteModel, every_tensor

# Scales of powers of two tie often; those of the second row never do.
GRIDS = {"ties": (2**-4, 2**-3, 2**-2), "odd": (0.0713, 0.0517, 0.2391)}
SAME, VALID = 0, 1


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


def kernel(rng, *shape):
    return rng.integers(-127, 128, shape).astype(np.int8)


def bias(rng, scales, size):
    """Returns a bias on the grid of the sums, of one scale or one a channel."""
    return constant(rng.integers(-900, 900, size).astype(np.int32), scales)


def convolutions(rng, first, second, third):
    maps = levels((1, 6, 7, 5), first, 3)
    many, one = second / 2 ** rng.integers(3, 7, 9), second / 16
    for padding, stride, dilation, scales, activation, size in [
        (SAME, 1, 1, many, 0, 3), (VALID, 2, 1, one, 1, 3), (SAME, 1, 2, many, 3, 3),
        (SAME, 2, 1, one, 0, 1), (SAME, 2, 1, many, 2, 2),
    ]:  # fmt: skip
        span = dilation * (size - 1) if padding == VALID else 0
        out = [-(-(extent - span) // stride) for extent in (6, 7)]
        options = {
            "padding": padding, "strideH": stride, "strideW": stride,
            "dilationHFactor": dilation, "dilationWFactor": dilation,
            "fusedActivationFunction": activation,
        }  # fmt: skip
        yield single(
            "CONV_2D",
            [maps, constant(kernel(rng, 9, size, size, 5), scales), bias(rng, first * scales, 9)],
            levels((1, *out, 9), third, -7),
            version=3,
            **options,
        )


STEPS = {"padding": SAME, "strideH": 1, "strideW": 1, "dilationHFactor": 1, "dilationWFactor": 1}


def groups(rng, first, second, third):
    maps, weights = levels((1, 4, 4, 6), first, 5), constant(kernel(rng, 4, 3, 3, 3), second / 16)
    output = levels((1, 4, 4, 4), third)
    inputs = [maps, weights, bias(rng, first * second / 16, 4)]
    yield single("CONV_2D", inputs, output, 6, **STEPS)


def depthwise(rng, first, second, third):
    # Vectors of eight channels and what is left of them.
    for depth, repeated, stride, activation in [(11, 1, 1, 0), (8, 1, 2, 3), (5, 2, 1, 1)]:
        width = depth * repeated
        maps, side = levels((1, 6, 6, depth), first, 9), 6 // stride
        scales = second / 2 ** rng.integers(2, 5, width)
        weights = constant(kernel(rng, 1, 3, 3, width), scales, axis=3)
        yield single(
            "DEPTHWISE_CONV_2D",
            [maps, weights, bias(rng, first * scales, width)],
            levels((1, side, side, width), third, 4),
            version=3,
            padding=SAME,
            strideH=stride,
            strideW=stride,
            depthMultiplier=repeated,
            dilationHFactor=1,
            dilationWFactor=1,
            fusedActivationFunction=activation,
        )


def dense(rng, first, second, third):
    for scales, activation, has_bias in [
        (second / 2 ** rng.integers(3, 6, 7), 0, True), (second / 16, 1, True),
        (second / 8, 3, False),
    ]:  # fmt: skip
        weights = constant(kernel(rng, 7, 20), scales)
        inputs = [levels((1, 20), first, -11), weights] + [bias(rng, first * scales, 7)] * has_bias
        output = levels((1, 7), third, 12)
        yield single("FULLY_CONNECTED", inputs, output, 4, fusedActivationFunction=activation)


def four_bits(rng, first, second, third):
    """Yields layers whose weights share bytes; XNNPACK takes dense ones of even rows."""
    for width in (12, 13):
        weights = constant(rng.integers(-8, 8, (7, width)).astype(np.int8), np.full(7, second))
        weights.dtype = "int4"
        inputs = [levels((1, width), first, -11), weights, bias(rng, first * weights.scales, 7)]
        yield single("FULLY_CONNECTED", inputs, levels((1, 7), third, 12), 7)
    weights = constant(rng.integers(-8, 8, (5, 3, 3, 4)).astype(np.int8), np.full(5, second))
    weights.dtype = "int4"
    inputs = [levels((1, 4, 4, 4), first, -11), weights, bias(rng, first * weights.scales, 5)]
    yield single("CONV_2D", inputs, levels((1, 4, 4, 5), 2 * third, 12), 4, **STEPS)


def matrices(rng, first, second, third):
    for zero_point in (0, 5):
        left, output = levels((1, 2, 3, 9), first, 6), levels((1, 2, 3, 4), third * 4, -3)
        right = constant(kernel(rng, 1, 2, 9, 4), second, zero_point)
        yield single("BATCH_MATMUL", [left, right], output, adjX=False, adjY=False)
        # A matrix times itself turned, as attention has it.
        square = levels((1, 2, 4, 6), first, zero_point)
        output = levels((1, 2, 4, 4), third * 4, -3)
        yield single("BATCH_MATMUL", [square, square], output, adjX=False, adjY=True)


def pairs(kind, *options):
    def made(rng, first, second, third):
        for shape, other, activation in [
            ((1, 3, 3, 8), (1, 3, 3, 8), 0), ((1, 3, 3, 5), (1, 1, 1, 5), 1),
            ((1, 1, 1, 5), (1, 3, 3, 5), 3), ((1, 7), (1,), 0),
        ]:  # fmt: skip
            operand = constant(kernel(rng, *other), second, -9)
            found = {"fusedActivationFunction": activation} if options else {}
            output = levels(np.broadcast_shapes(shape, other), third, 8)
            yield single(kind, [levels(shape, first, 5), operand], output, **found)

    return made


def extremes(kind):
    def made(rng, first, second, third):
        operand = constant(kernel(rng, 1, 3, 3, 4), first, 2)
        maps = levels((1, 3, 3, 4), first, 2)
        yield single(kind, [maps, operand], levels((1, 3, 3, 4), first, 2))

    return made


def along_axes(kind):
    def made(rng, first, second, third):
        for depth, axes, keep in [
            (19, [1, 2], True), (3, [1, 2], False), (4, [3], True), (4, [-3], True),
            (4, [2, 1], True),
        ]:  # fmt: skip
            reduced = {axis % 4 for axis in axes}
            shape = (1, 4, 5, depth)
            left = [1 if axis in reduced else size for axis, size in enumerate(shape)]
            if not keep:
                left = [size for axis, size in enumerate(shape) if axis not in reduced]
            # Extremes stay on their grid.
            scale = {"MEAN": first, "SUM": 4 * first}.get(kind, first)
            output = levels(left, scale, -5 if kind in ("MEAN", "SUM") else 7)
            maps = levels(shape, first, 7)
            yield single(kind, [maps, constant(np.int32(axes))], output, keepDims=keep)

    return made


def pools(kind):
    def made(rng, first, second, third):
        for padding, (rows, columns), stride, activation in [
            (SAME, (3, 3), 1, 0), (VALID, (2, 3), 2, 1), (SAME, (2, 2), 2, 3),
        ]:  # fmt: skip
            span = (rows - 1, columns - 1) if padding == VALID else (0, 0)
            out = [-(-(size - lost) // stride) for size, lost in zip((5, 7), span, strict=True)]
            yield single(
                kind,
                [levels((1, 5, 7, 9), first, -20)],
                levels((1, *out, 9), first, -20),
                padding=padding,
                strideH=stride,
                strideW=stride,
                filterHeight=rows,
                filterWidth=columns,
                fusedActivationFunction=activation,
            )

    return made


def unary(kind, version=2, output=None, zero_point=6, steps=(1,), **options):
    def made(rng, first, second, third):
        for factor in steps:
            grid = (third, 10) if output is None else output
            maps = levels((1, 3, 4, 5), first * factor, zero_point)
            yield single(kind, [maps], levels((1, 3, 4, 5), *grid), version, **options)

    return made


def conversions(rng, first, second, third):
    shape = (1, 3, 7)
    yield single("QUANTIZE", [levels(shape, first, 3)], levels(shape, third, -9))
    yield single("QUANTIZE", [levels(shape, 1 / 255, 0, "uint8")], levels(shape, 1 / 255, -128))
    yield single("QUANTIZE", [levels(shape, first, 9, "uint8")], levels(shape, third, -9))
    yield single("QUANTIZE", [levels(shape, first, 9)], levels(shape, third, 90, "uint8"))
    yield single("QUANTIZE", [real(shape)], levels(shape, third, -9))


def dequantizations(rng, first, second, third):
    for dtype in ("int8", "uint8"):
        yield single("DEQUANTIZE", [levels((1, 3, 7), first, 77, dtype)], real((1, 3, 7)))


def slopes(rng, first, second, third):
    operand = constant(kernel(rng, 1, 1, 5), second / 16, 3)
    maps = levels((1, 3, 3, 5), first, 7)
    yield single("PRELU", [maps, operand], levels((1, 3, 3, 5), third, -2), 1)


def sizes(rng, first, second, third):
    """Yields a tail that reckons its shape, as converters write it for an open batch."""
    maps, flat = levels((1, 4, 6, 5), first, -3), levels((1, 120), first, -3)
    shape, rest, count, target = (
        Tensor("sizes", (size,) if size else (), "int32") for size in (4, 3, 0, 2)
    )
    yield chain(
        maps,
        ("SHAPE", [maps], [shape], {"outType": 2}, 1),
        ("GATHER", [shape, constant(np.int32([1, 2, 3]))], [rest], {"axis": 0}, 1),
        ("REDUCE_PROD", [rest, constant(np.int32([0]))], [count], {"keepDims": False}, 1),
        ("PACK", [constant(np.int32(1)), count], [target], {"valuesCount": 2, "axis": 0}, 1),
        ("RESHAPE", [maps, target], [flat], {}, 1),
    )


def negative(rng, first, second, third):
    yield single("NEG", [real((1, 5))], real((1, 5)), 1)


def tiles(rng, first, second, third):
    maps = levels((1, 2, 3, 2), first, -3)
    inputs = [maps, constant(np.int32([1, 2, 1, 3]))]
    yield single("TILE", inputs, levels((1, 4, 3, 6), first, -3), 1)


def moved(kind):
    def made(rng, first, second, third):
        maps = levels((1, 4, 6, 5), first, -3)

        def output(*shape):
            return levels(shape, first, -3)

        whole, around = np.int32, np.int32([[0, 0], [1, 2], [0, 3], [0, 1]])
        if kind == "PAD":
            yield single(kind, [maps, constant(around)], output(1, 7, 9, 6))
        if kind == "PADV2":
            filling = constant(np.int8([-128]), first, -3)
            yield single(kind, [maps, constant(around), filling], output(1, 7, 9, 6))
        if kind == "RESHAPE":
            shape = constant(whole([1, 120]))
            yield single(kind, [maps, shape], output(1, 120), 1, newShape=[1, 120])
        if kind == "SQUEEZE":
            thin = levels((1, 1, 1, 9), first)
            yield single(kind, [thin], levels((1, 9), first), 1, squeezeDims=[1, 2])
        if kind == "EXPAND_DIMS":
            yield single(kind, [maps, constant(whole([1]))], output(1, 1, 4, 6, 5), 1)
        if kind == "CONCATENATION":
            other = constant(kernel(rng, 1, 4, 6, 5), first, -3)
            yield single(kind, [maps, other, maps], output(1, 4, 6, 15), axis=-1)
            yield single(kind, [maps, other], output(1, 8, 6, 5), axis=1)
        if kind == "TRANSPOSE":
            yield single(kind, [maps, constant(whole([0, 3, 1, 2]))], output(1, 5, 4, 6))
        if kind == "SPLIT":
            parts = [output(1, 4, 3, 5), output(1, 4, 3, 5)]
            inputs = [constant(whole(2)), maps]
            yield chain(maps, (kind, inputs, parts, {"numSplits": 2}, 2))
        if kind == "STRIDED_SLICE":
            for begin, end, strides, masks, shape in [
                ([0, 1, 0, 0], [1, 3, 6, 5], [1, 1, 2, 1], (0, 0, 0), (1, 2, 3, 5)),
                ([0, 0, -1, 0], [0, 0, 0, 0], [1, 1, 1, 1], (11, 11, 4), (1, 4, 5)),
            ]:
                inputs = [maps, *(constant(whole(ends)) for ends in (begin, end, strides))]
                options = dict(zip(("beginMask", "endMask", "shrinkAxisMask"), masks, strict=True))
                yield single(kind, inputs, output(*shape), **options)
        if kind == "RESIZE_NEAREST_NEIGHBOR":
            for size, aligned, centred in [((8, 12), 0, 0), ((7, 9), 1, 0), ((7, 4), 0, 1)]:
                options = {"alignCorners": bool(aligned), "halfPixelCenters": bool(centred)}
                inputs = [maps, constant(whole(size))]
                yield single(kind, inputs, output(1, *size, 5), 3, **options)

    return made


MOVED = [
    "PAD", "PADV2", "RESHAPE", "SQUEEZE", "EXPAND_DIMS", "CONCATENATION", "TRANSPOSE", "SPLIT",
    "STRIDED_SLICE", "RESIZE_NEAREST_NEIGHBOR",
]  # fmt: skip
CASES = {
    "CONV_2D": convolutions,
    "CONV_2D in groups": groups,
    "DEPTHWISE_CONV_2D": depthwise,
    "FULLY_CONNECTED": dense,
    "FULLY_CONNECTED and CONV_2D of four bits": four_bits,
    "BATCH_MATMUL": matrices,
    "ADD": pairs("ADD", "fused"),
    "SUB": pairs("SUB", "fused"),
    "MUL": pairs("MUL", "fused"),
    "SQUARED_DIFFERENCE": pairs("SQUARED_DIFFERENCE"),
    "MAXIMUM": extremes("MAXIMUM"),
    "MINIMUM": extremes("MINIMUM"),
    "MEAN": along_axes("MEAN"),
    "SUM": along_axes("SUM"),
    "AVERAGE_POOL_2D": pools("AVERAGE_POOL_2D"),
    "MAX_POOL_2D": pools("MAX_POOL_2D"),
    "QUANTIZE": conversions,
    "DEQUANTIZE": dequantizations,
    "LOGISTIC": unary("LOGISTIC", output=(1 / 256, -128), steps=(1, 0.25)),
    "TANH": unary("TANH", output=(1 / 128, 0), steps=(1, 0.25)),
    "ELU": unary("ELU", version=1),
    "GELU": unary("GELU", approximate=False),
    "GELU approximately": unary("GELU", approximate=True),
    "RELU": unary("RELU"),
    "RELU6": unary("RELU6"),
    "LEAKY_RELU": unary("LEAKY_RELU", alpha=0.25),
    "LEAKY_RELU that XNNPACK refuses": unary("LEAKY_RELU", alpha=0.001),
    "HARD_SWISH": unary("HARD_SWISH", version=1, steps=(1, 8)),
    "RSQRT": unary("RSQRT", output=(0.05, -128), zero_point=-128),
    "SOFTMAX": unary("SOFTMAX", output=(1 / 256, -128), steps=(1, 9), beta=1.0),
    "PRELU": slopes,
    "REDUCE_MAX": along_axes("REDUCE_MAX"),
    "REDUCE_MIN": along_axes("REDUCE_MIN"),
    "SHAPE, GATHER, REDUCE_PROD and PACK": sizes,
    "NEG": negative,
    "TILE": tiles,
    **{kind: moved(kind) for kind in MOVED},
}
ABSENT = [("ELU", "reference")]


def files(kind, grid):
    return list(CASES[kind](np.random.default_rng(1), *map(np.float32, GRIDS[grid])))


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("kernels", KERNELS)
@pytest.mark.parametrize("kind", CASES)
def test_every_tensor_is_what_litert_computes(kind, kernels, grid):
    for file in files(kind, grid):
        images = pictures(file.tensors[0])
        if (kind, kernels) in ABSENT:
            with pytest.raises(UserError, match="LiteRT has no reference kernel of ELU"):
                emulate(file, images, kernels)
            with pytest.raises(UserError, match="LiteRT cannot run the file: .*'ELU'"):
                every_tensor(file, images, kernels)
            continue
        assert set(differences(file, images, kernels).values()) == {0}


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
