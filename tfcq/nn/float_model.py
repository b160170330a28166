"""From a quantizable model back to the float one, to quantize it in another way."""

from typing import Any

import keras

from tfcq.errors import UserError
from tfcq.nn.activation_quantizer import ActivationQuantizer
from tfcq.nn.activation_ranges import keep_ranges
from tfcq.nn.batch_norm import UNFUSED
from tfcq.nn.cloning import cloned, same_layer, without
from tfcq.nn.copied_weights import copy_weights
from tfcq.nn.layers import FLOAT_COUNTERPARTS
from tfcq.nn.quantizable import QuantizableModel, quantizable
from tfcq.settings.policies import Policy


def float_model(model: QuantizableModel) -> keras.Model:
    """Returns the float model that `tfcq.quantizable` was given, with this one's weights.

    Ranges and learned scales are left behind.

    Args:
        model: a quantizable model; nested ones are converted too.

    Raises:
        UserError: when the model is not quantizable.

    Example:

        >>> plain = tfcq.cifar_resnet(8, width=2, input_shape=(8, 8, 1))
        >>> again = tfcq.float_model(tfcq.quantizable(plain))
        >>> [layer.name for layer in again.layers] == [layer.name for layer in plain.layers]
        True
    """
    if not isinstance(model, QuantizableModel):
        raise UserError(f"Model {model.name!r} is a float model already.")
    plain = _convert(model)
    copy_weights(model, plain)
    return plain


def requantizable(
    model: QuantizableModel, policy: str | Policy, reads_images: bool = True
) -> QuantizableModel:
    """Returns a copy of a quantizable model that is quantized by another policy.

    Quantizers that both have keep their ranges.

    Args:
        model: a quantizable model.
        policy: as for `tfcq.quantizable`.
        reads_images: as for `tfcq.quantizable`.

    Raises:
        UserError: as `tfcq.quantizable` does, and when the model is not quantizable.

    Example:

        >>> encoder = tfcq.quantizable(tfcq.cifar_resnet(8, width=2, input_shape=(8, 8, 1)))
        >>> tfcq.requantizable(encoder, "uniform").get_layer("stem").weight_quantizer.bits is None
        True
    """
    converted = quantizable(float_model(model), policy, reads_images=reads_images)
    keep_ranges(model, converted)
    return converted


def float_layer(layer: Any, **changes: Any) -> Any:
    """Returns a new layer of Keras's own class in place of one of this library.

    Args:
        layer: any layer; one without a quantized kernel is copied.
        **changes: settings that differ.
    """
    if not isinstance(layer, keras.layers.Layer):
        return same_layer(layer)
    config = {**layer.get_config(), **changes}
    for name in ("weight_quantizer", "integer_bias"):
        config.pop(name, None)
    kind = FLOAT_COUNTERPARTS.get(type(layer)) or UNFUSED.get(type(layer))
    return same_layer(layer, config, kind)


def _convert(model: keras.Model) -> keras.Model:
    def clone_layer(layer: Any) -> Any:
        return _convert(layer) if isinstance(layer, keras.Model) else float_layer(layer)

    quantizers = {layer.name for layer in model.layers if isinstance(layer, ActivationQuantizer)}
    return cloned(model, clone_layer, without(quantizers))
