"""The range of every activation that an integer model stores."""

import functools
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfcq.deployment.fold import folded_norms
from tfcq.errors import UserError
from tfcq.nn.activation_quantizer import ActivationQuantizer
from tfcq.nn.activation_ranges import is_trained_quantized
from tfcq.nn.placement import Node, read_graph
from tfcq.nn.quantizable import QuantizableModel
from tfcq.quantization.precision import Precision

Range = tuple[float, float]
# Their result is a subset of the input's values and zero: runtimes keep the input's scale.
_KEEPS_SCALE = {
    "Dropout", "SpatialDropout2D", "Flatten", "Reshape", "Permute", "MaxPooling2D",
    "GlobalMaxPooling2D", "ZeroPadding2D", "Cropping2D", "Identity",
}  # fmt: skip


def activation_ranges(
    model: keras.Model,
    plain: keras.Model,
    images: np.ndarray,
    image_range: Range = (0.0, 1.0),
    batch_size: int = 256,
) -> dict[str, Range]:
    """Returns the range of each stored activation of a folded model, by layer name.

    A tensor behind which the quantizable model has an activation quantizer gets the range that
    was recorded there, that is, the one which was evaluated. The others (sums' operands, pooled
    features) get the minimum and maximum over the images, in the 8w8a pass where the model was
    trained in quantized passes and else in the float one, and the images a fixed range. What a
    runtime computes inside another operation (the input of a ReLU) has none.

    Args:
        model: the calibrated quantizable model.
        plain: what `fold` made of it.
        images: float [count, height, width, channels], images to record the other ranges on.
        image_range: lowest and highest value of an image.
        batch_size: images per pass.

    Raises:
        UserError: when a quantizer has no recorded range, there is no image, or a layer is called
            more than once.
    """
    if len(images) == 0:
        raise UserError("Ranges were asked for over 0 images; allowed: 1 and above, such as 1000.")
    config = plain.get_config()
    for layer in config["layers"]:
        if len(layer["inbound_nodes"]) > 1:
            raise UserError(
                f"Layer {layer['name']!r} is called {len(layer['inbound_nodes'])} times; allowed "
                "for deployment: once."
            )
    nodes = read_graph(config)
    ranges = _recorded(model, nodes)
    ranges[plain.layers[0].name] = image_range
    others = [name for name in nodes if name not in ranges and _stored(nodes, nodes[name])]
    if is_trained_quantized(model):
        norms = folded_norms(model)
        outputs = [_output(model, norms.get(name, name)) for name in others]
        quantized: Any = QuantizableModel(model.inputs[0], outputs)
        probe = functools.partial(quantized, precision=Precision(8, 8))
    else:
        probe = keras.Model(plain.input, [_output(plain, name) for name in others])
    observed = _observed(probe, images, batch_size) if others else []
    return {**ranges, **dict(zip(others, observed, strict=True))}


def _recorded(model: keras.Model, nodes: dict[str, Node]) -> dict[str, Range]:
    """Returns the quantizers' ranges by the name of the folded layer whose output they take."""
    original = read_graph(model.get_config())
    ranges = {}
    for layer in model.layers:
        if isinstance(layer, ActivationQuantizer):
            name = original[layer.name].producers[0]
            while name not in nodes:
                name = original[name].producers[0]
            ranges[name] = (float(layer.minimum.numpy()), float(layer.maximum.numpy()))
            if not np.all(np.isfinite(ranges[name])):
                raise UserError(
                    f"Activation quantizer {layer.name!r} has no recorded range; call "
                    "tfcq.calibrate(model, images) before deployment."
                )
    return ranges


def _output(model: keras.Model, name: str) -> keras.KerasTensor:
    return next(operation.output for operation in model.operations if operation.name == name)


def _stored(nodes: dict[str, Node], node: Node) -> bool:
    if node.kind in _KEEPS_SCALE:
        return False
    readers = [nodes[name] for name in node.consumers]
    return not (len(readers) == 1 and _is_fused(readers[0]))


def _is_fused(node: Node) -> bool:
    """Whether runtimes compute the node inside the operation before it."""
    if node.kind == "Activation":
        return node.config["activation"] in ("relu", "relu6", "linear")
    if node.kind == "ReLU":
        slope, threshold = node.config["negative_slope"], node.config["threshold"]
        return node.config["max_value"] in (None, 6) and not slope and not threshold
    return node.kind in {"Relu", "Relu6"}


def _observed(
    probe: Callable[..., list[tf.Tensor]], images: np.ndarray, batch_size: int
) -> list[Range]:
    seen = []
    for start in range(0, len(images), batch_size):
        tensors = keras.tree.flatten(probe(images[start : start + batch_size], training=False))
        seen.append([(float(keras.ops.min(t)), float(keras.ops.max(t))) for t in tensors])
    lowest, highest = np.moveaxis(np.array(seen).reshape(len(seen), -1, 2), 2, 0)
    return list(zip(lowest.min(axis=0).tolist(), highest.max(axis=0).tolist(), strict=True))
