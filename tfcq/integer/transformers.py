"""Layer norms and attention written as layers that integer runtimes have, see `rewrites.py`."""

from collections.abc import Callable
from typing import Any

import numpy as np
from keras import layers

from tfcq.integer.layers import ConstantSum, MatrixProduct, MeanOfChannels, Rsqrt

_FLOAT: dict[str, Any] = {"dtype": "float32"}


def _layer_norm(flat: Any, operation: Any, args: tuple, kwargs: dict) -> Any:
    """Returns the norm of each vector along the last axis.

        c = x - mean(x)    y = c / sqrt(c . c + n epsilon) sqrt(n) gamma + beta

    The product of a vector with itself is summed in 32 bits: no square is ever rounded to 8.
    """
    x, name = args[0], operation.name
    axes = [axis % len(x.shape) for axis in np.ravel(operation.axis)]
    if axes != [len(x.shape) - 1] or getattr(operation, "rms_scaling", False):
        return None
    channels = x.shape[-1]
    mean = flat.add(MeanOfChannels(name=f"{name}_mean", **_FLOAT), x)
    centred = flat.add(layers.Subtract(name=f"{name}_centred", **_FLOAT), [x, mean])
    rows = flat.add(layers.Reshape((-1, 1, channels), name=f"{name}_rows", **_FLOAT), centred)
    energy = flat.add(MatrixProduct(True, name=f"{name}_energy", **_FLOAT), rows, rows)
    energy = flat.add(
        layers.Reshape((*x.shape[1:-1], 1), name=f"{name}_energies", **_FLOAT), energy
    )
    inverse = Rsqrt(operation.epsilon * channels, name=f"{name}_inverse", **_FLOAT)
    inverse = flat.add(inverse, energy)
    y = flat.add(layers.Multiply(name=f"{name}_normalized", **_FLOAT), [centred, inverse])
    gamma = 1.0 if operation.gamma is None else np.asarray(operation.gamma, np.float64)
    beta = 0.0 if operation.beta is None else np.asarray(operation.beta, np.float64)
    return flat.affine(name, y, gamma * np.sqrt(channels), beta)


def _token_embedding(flat: Any, operation: Any, args: tuple, kwargs: dict) -> Any:
    """Returns the tokens: patches behind a zero, plus class token and positions."""
    tokens, width = operation.positions.shape
    name = operation.name
    x = flat.add(layers.Reshape((tokens, width), name=f"{name}_patches", **_FLOAT), args[0])
    x = flat.add(layers.ZeroPadding1D((1, 0), name=f"{name}_padded", **_FLOAT), x)
    constant = np.concatenate([np.asarray(operation.class_token)[None], operation.positions])
    return flat.add(ConstantSum(name=name, **_FLOAT), x, weights=[constant])


def _attention_probabilities(flat: Any, operation: Any, args: tuple, kwargs: dict) -> Any:
    """Returns the softmax of products of queries and keys, the queries scaled before."""
    name, (queries, keys) = operation.name, _called_with(args, kwargs, "queries", "keys")
    factor = (queries.shape[-1] // operation.heads) ** -0.5
    queries = flat.affine(f"{name}_scaled", queries, factor, 0.0)
    queries, keys = (
        _heads(flat, x, operation.heads, f"{name}_{part}")
        for part, x in (("queries", queries), ("keys", keys))
    )
    scores = flat.add(MatrixProduct(True, name=f"{name}_scores", **_FLOAT), queries, keys)
    return flat.activated(scores, "softmax", name)


def _attended_values(flat: Any, operation: Any, args: tuple, kwargs: dict) -> Any:
    """Returns the heads' means of values side by side."""
    name, (shares, values) = operation.name, _called_with(args, kwargs, "probabilities", "values")
    shape = values.shape[1:]
    values = _heads(flat, values, operation.heads, f"{name}_values")
    x = flat.add(MatrixProduct(name=f"{name}_means", **_FLOAT), shares, values)
    x = flat.add(layers.Permute((2, 1, 3), name=f"{name}_tokens", **_FLOAT), x)
    return flat.add(layers.Reshape(shape, name=name, **_FLOAT), x)


def _called_with(args: tuple, kwargs: dict, *names: str) -> list[Any]:
    return [*args, *(kwargs[name] for name in names[len(args) :])]


def _heads(flat: Any, x: Any, heads: int, name: str) -> Any:
    """Returns [batch, tokens, width] as [batch, heads, tokens, width / heads]."""
    _, tokens, width = x.shape
    cut = layers.Reshape((tokens, heads, width // heads), name=f"{name}_cut", **_FLOAT)
    return flat.add(layers.Permute((2, 1, 3), name=f"{name}_heads", **_FLOAT), flat.add(cut, x))


TRANSFORMERS: dict[str, Callable[..., Any]] = {
    "LayerNormalization": _layer_norm,
    "TokenEmbedding": _token_embedding,
    "AttentionProbabilities": _attention_probabilities,
    "AttendedValues": _attended_values,
}
