"""Files of every kind of operation that the emulation has a rule for, to be followed by hand."""

import numpy as np

from tests.integer.lite_files import chain, constant, levels, real, single
from tfcq.integer.lite_file import Tensor

# Scales of powers of two tie often; those of the second row never do.
GRIDS = {"ties": (2**-4, 2**-3, 2**-2), "odd": (0.0713, 0.0517, 0.2391)}
SAME, VALID = 0, 1


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


def files(kind, grid):
    return list(CASES[kind](np.random.default_rng(1), *map(np.float32, GRIDS[grid])))
