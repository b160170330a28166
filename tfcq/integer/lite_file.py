"""A `.tflite` file as tensors and operations that can be read, changed and written.

LiteRT's converter decides scales and integers by itself; here they are what they were evaluated as.
"""

import dataclasses
import functools
from typing import Any

import numpy as np

from tfcq.errors import UserError

Array = np.ndarray
_IDENTIFIER = b"TFL3"
# Kernels may read buffers as vectors of that many bytes, on a microcontroller without a copy.
_ALIGNMENT = 16
_TYPES = {"INT8": "int8", "UINT8": "uint8", "INT16": "int16", "INT32": "int32", "INT64": "int64",
          "FLOAT32": "float32", "BOOL": "bool"}  # fmt: skip
# Bits of types that share bytes.
_PACKED = {"int4": 4, "int2": 2}


@dataclasses.dataclass(eq=False)
class Tensor:
    """A tensor of a file.

    Args:
        name: its name.
        shape: its shape, the batch among it.
        dtype: type of its values, `"int4"` for two of them a byte, `"int2"` for four.
        scales: float32, empty where not quantized, one for all or one a channel.
        zero_points: int64, one for each scale.
        axis: the axis of the channels.
        data: its values where the file holds them, else None.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    scales: Array = dataclasses.field(default_factory=lambda: np.zeros(0, np.float32))
    zero_points: Array = dataclasses.field(default_factory=lambda: np.zeros(0, np.int64))
    axis: int = 0
    data: Array | None = None

    @property
    def scale(self) -> np.float32:
        """The scale of all values."""
        return np.float32(self.scales[0])

    @property
    def zero_point(self) -> int:
        """The level that stands for zero."""
        return int(self.zero_points[0])


@dataclasses.dataclass(eq=False)
class Operation:
    """An operation of a file.

    Args:
        kind: its name in the schema, such as `"CONV_2D"`.
        inputs: indices of tensors, -1 where an optional one is absent.
        outputs: indices of tensors.
        options: its options by their names in the schema; those absent keep the schema's default.
        version: of the kernel.
    """

    kind: str
    inputs: list[int]
    outputs: list[int]
    options: dict[str, Any] = dataclasses.field(default_factory=dict)
    version: int = 1


@dataclasses.dataclass(eq=False)
class LiteFile:
    """What a `.tflite` file holds.

    Args:
        tensors: all tensors.
        operations: all operations, in the order in which they are computed.
        inputs: indices of tensors.
        outputs: indices of tensors.
        notes: what stands beside the model, by name; standard tools know some.
    """

    tensors: list[Tensor]
    operations: list[Operation]
    inputs: list[int]
    outputs: list[int]
    notes: dict[str, bytes] = dataclasses.field(default_factory=dict)

    @classmethod
    def read(cls, content: bytes, name: str = "The file") -> "LiteFile":
        """Returns what the bytes of a file hold.

        Args:
            content: the bytes.
            name: what the file is called in errors.

        Raises:
            UserError: on bytes that are no TFLite model, or one of several graphs.
        """
        if content[4:8] != _IDENTIFIER:
            raise UserError(
                f"{name} is no TFLite model ({len(content)} bytes); allowed: a .tflite."
            )
        try:
            model = _schema().ModelT.InitFromPackedBuf(content, 0)
            if len(model.subgraphs) != 1:
                raise UserError(
                    f"{name} holds {len(model.subgraphs)} graphs; allowed: one, without control "
                    "flow."
                )
            return cls(*_contents(model, content))
        except UserError:
            raise
        except Exception:
            # The schema's reader trusts every offset: anything may come of a damaged one.
            raise UserError(
                f"{name} is damaged or cut short ({len(content)} bytes); allowed: a whole .tflite."
            ) from None

    def to_bytes(self) -> bytes:
        """Returns the bytes of the file."""
        import flatbuffers

        schema = _schema()
        model = schema.ModelT()
        model.version, model.description = 3, "tfcq"
        buffers = [_buffer(np.zeros(0, np.uint8))]
        graph = schema.SubGraphT()
        graph.name, graph.tensors = "main", []
        graph.inputs, graph.outputs = self.inputs, self.outputs
        for tensor in self.tensors:
            graph.tensors.append(_packed(tensor, len(buffers)))
            buffers.append(_buffer(_bytes(tensor)))
        codes = list(dict.fromkeys((one.kind, one.version) for one in self.operations))
        model.operatorCodes = [_code(*code) for code in codes]
        graph.operators = [_operator(one, codes) for one in self.operations]
        model.metadata = []
        for name, note_bytes in self.notes.items():
            note = schema.MetadataT()
            note.name, note.buffer = name, len(buffers)
            model.metadata.append(note)
            buffers.append(_buffer(np.frombuffer(note_bytes, np.uint8)))
        model.subgraphs, model.buffers = [graph], buffers
        model.signatureDefs = [_signature(self)]
        builder = flatbuffers.Builder(1024)
        builder.Finish(model.Pack(builder), file_identifier=_IDENTIFIER)
        return bytes(builder.Output())


@functools.cache
def _schema() -> Any:
    try:
        from ai_edge_litert import schema_py_generated
    except ImportError as error:
        raise UserError(
            "Reading a TFLite model needs LiteRT; install it with `pip install ai-edge-litert`."
        ) from error
    return schema_py_generated


def _names(enumeration: str) -> dict[int, str]:
    """Returns the names of an enumeration of the schema by number."""
    found = vars(getattr(_schema(), enumeration))
    return {value: name for name, value in found.items() if isinstance(value, int)}


def _numbers(enumeration: str) -> dict[str, int]:
    return {name: value for value, name in _names(enumeration).items()}


def _contents(model: Any, content: bytes) -> tuple[Any, ...]:
    graph, buffers = model.subgraphs[0], model.buffers
    types, kinds = _names("TensorType"), _names("BuiltinOperator")
    tensors = []
    for one in graph.tensors:
        kind = types[one.type]
        shape = tuple(int(size) for size in one.shape) if one.shape is not None else ()
        raw = _raw(buffers[one.buffer], content)
        tensor = Tensor(
            (one.name or b"").decode(errors="replace"), shape, _TYPES.get(kind, kind.lower())
        )
        quantization = one.quantization
        if quantization is not None and quantization.scale is not None:
            tensor.scales = np.asarray(quantization.scale, np.float32)
            points = quantization.zeroPoint
            # A file may leave out zeros.
            points = points if points is not None and len(points) else [0] * len(tensor.scales)
            tensor.zero_points = np.asarray(points, np.int64)
            tensor.axis = quantization.quantizedDimension
        if raw is not None and len(raw):
            tensor.data = _values(np.asarray(raw, np.uint8), tensor)
        tensors.append(tensor)
    operations = []
    for operator in graph.operators or []:
        code = model.operatorCodes[operator.opcodeIndex]
        kind = kinds[max(code.builtinCode, code.deprecatedBuiltinCode)]
        if kind == "CUSTOM":
            kind = (code.customCode or b"CUSTOM").decode()
        options = operator.builtinOptions or operator.builtinOptions2
        operations.append(
            Operation(
                kind,
                [int(index) for index in operator.inputs],
                [int(index) for index in operator.outputs],
                _present(options),
                code.version,
            )
        )
    notes = {
        note.name.decode(): bytes(buffers[note.buffer].data)
        for note in model.metadata or []
        if buffers[note.buffer].data is not None
    }
    return tensors, operations, list(map(int, graph.inputs)), list(map(int, graph.outputs)), notes


def _raw(buffer: Any, content: bytes) -> Array | None:
    """Returns the bytes of a buffer, which may stand behind the rest of the file."""
    if buffer.offset > 1:
        return np.frombuffer(content, np.uint8, buffer.size, buffer.offset)
    return buffer.data


def _present(options: Any) -> dict[str, Any]:
    """Returns the options that a file holds."""
    found = {} if options is None else vars(options)
    return {
        name: value.tolist() if isinstance(value, np.ndarray) else value
        for name, value in found.items()
        if value is not None
    }


def _values(raw: Array, tensor: Tensor) -> Array:
    bits = _PACKED.get(tensor.dtype)
    if bits is not None:
        # The low part of a byte comes first.
        parts = [(raw >> shift) & (2**bits - 1) for shift in range(0, 8, bits)]
        levels = np.stack(parts, axis=1).ravel()[: int(np.prod(tensor.shape))].astype(np.int8)
        sign = 2 ** (bits - 1)
        return ((levels ^ sign) - sign).reshape(tensor.shape)
    return raw.view(tensor.dtype).reshape(tensor.shape)


def _bytes(tensor: Tensor) -> Array:
    if tensor.data is None:
        return np.zeros(0, np.uint8)
    bits = _PACKED.get(tensor.dtype)
    if bits is not None:
        levels = tensor.data.astype(np.uint8).ravel() & (2**bits - 1)
        parts = np.pad(levels, (0, -len(levels) % (8 // bits))).reshape(-1, 8 // bits)
        shifts = np.arange(0, 8, bits, dtype=np.uint8)
        return np.bitwise_or.reduce(parts << shifts, axis=1)
    return np.frombuffer(np.ascontiguousarray(tensor.data, tensor.dtype).tobytes(), np.uint8)


def _buffer(data: Array) -> Any:
    schema: Any = _schema()
    base: Any = schema.BufferT

    class Buffer(base):
        """A buffer at an address that kernels may read from; the schema's own packs bytes."""

        def Pack(self, builder: Any) -> Any:
            vector = None
            if len(self.data):
                builder.StartVector(1, len(self.data), _ALIGNMENT)
                builder.head = builder.Head() - len(self.data)
                start = builder.Head()
                builder.Bytes[start : start + len(self.data)] = self.data.tobytes()
                vector = builder.EndVector()
            schema.BufferStart(builder)
            if vector is not None:
                schema.BufferAddData(builder, vector)
            return schema.BufferEnd(builder)

    made = Buffer()
    made.data = data
    return made


def _packed(tensor: Tensor, buffer: int) -> Any:
    schema = _schema()
    made = schema.TensorT()
    made.name, made.shape, made.buffer, made.hasRank = tensor.name, list(tensor.shape), buffer, True
    made.type = _numbers("TensorType")[tensor.dtype.upper()]
    if len(tensor.scales):
        made.quantization = schema.QuantizationParametersT()
        made.quantization.scale = tensor.scales.astype(np.float32)
        made.quantization.zeroPoint = tensor.zero_points.astype(np.int64)
        made.quantization.quantizedDimension = tensor.axis
    return made


def _code(kind: str, version: int) -> Any:
    made = _schema().OperatorCodeT()
    kinds = _numbers("BuiltinOperator")
    if kind not in kinds:
        raise UserError(f"Operation {kind} is none of TFLite's own; a file cannot be made of it.")
    made.builtinCode = kinds[kind]
    # What readers of before the list outgrew a byte look at.
    made.deprecatedBuiltinCode = min(made.builtinCode, 127)
    made.version = version
    return made


# Operations whose options are called otherwise than they are.
_OPTIONS = {
    "AVERAGE_POOL_2D": "Pool2DOptions", "MAX_POOL_2D": "Pool2DOptions", "MEAN": "ReducerOptions",
    "SUM": "ReducerOptions", "CONV_2D": "Conv2DOptions", "BATCH_MATMUL": "BatchMatMulOptions",
    "DEPTHWISE_CONV_2D": "DepthwiseConv2DOptions", "LOGISTIC": None, "TANH": None, "RELU": None,
    "RELU6": None, "ELU": None, "PRELU": None, "PADV2": "PadV2Options", "RSQRT": None,
    "MAXIMUM": "MaximumMinimumOptions", "MINIMUM": "MaximumMinimumOptions",
    "REDUCE_MAX": "ReducerOptions", "REDUCE_MIN": "ReducerOptions",
    "REDUCE_PROD": "ReducerOptions",
    "L2_NORMALIZATION": "L2NormOptions", "SPACE_TO_BATCH_ND": "SpaceToBatchNDOptions",
    "BATCH_TO_SPACE_ND": "BatchToSpaceNDOptions",
}  # fmt: skip


def _operator(one: Operation, codes: list[tuple[str, int]]) -> Any:
    schema = _schema()
    made = schema.OperatorT()
    made.opcodeIndex = codes.index((one.kind, one.version))
    made.inputs, made.outputs = one.inputs, one.outputs
    usual = "".join(part.capitalize() for part in one.kind.split("_")) + "Options"
    name, numbers = _OPTIONS.get(one.kind, usual), _numbers("BuiltinOptions")
    if name not in numbers and one.options:
        raise UserError(f"The options of {one.kind} ({', '.join(one.options)}) cannot be written.")
    if name in numbers:
        made.builtinOptionsType = numbers[name]
        made.builtinOptions = getattr(schema, f"{name}T")()
        for option, value in one.options.items():
            setattr(made.builtinOptions, option, value)
    return made


def _signature(file: LiteFile) -> Any:
    schema = _schema()
    made = schema.SignatureDefT()
    made.signatureKey, made.subgraphIndex = "serving_default", 0

    def maps(indices: list[int]) -> list[Any]:
        found = []
        for index in indices:
            one = schema.TensorMapT()
            one.name, one.tensorIndex = file.tensors[index].name, index
            found.append(one)
        return found

    made.inputs, made.outputs = maps(file.inputs), maps(file.outputs)
    return made
