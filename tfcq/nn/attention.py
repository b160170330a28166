"""What a Vision Transformer has besides dense layers: tokens, and attention in two products.

Attention is cut where a quantizer belongs: before and behind each matrix product, none around the
softmax. Queries, keys, values and the heads' result are outputs of layers, so that
`tfcq.nn.placement` finds them.
"""

from typing import Any

import keras
import numpy as np
from keras import ops

from tfcq.errors import UserError


@keras.saving.register_keras_serializable("tfcq")
class TokenEmbedding(keras.layers.Layer):
    """Patches plus fixed position embeddings, behind a learned class token.

        outputs[0] = class token,    outputs[1 + y * columns + x] = patches[y, x] + position[y, x]

    Positions are those of MoCo v3 (Chen et al., 2021, Sec. 3), `sine_cosine_positions`; the class
    token has none. They are no weights.

    Args:
        **kwargs: as for `keras.layers.Layer`.
    """

    def build(self, input_shape: tuple[int, ...]) -> None:
        """Creates the class token.

        Args:
            input_shape: [batch, rows, columns, width].
        """
        _, rows, columns, width = input_shape
        self.class_token = self.add_weight(
            shape=(width,),
            initializer=keras.initializers.RandomNormal(stddev=1e-6),
            name="class_token",
        )
        self.positions = sine_cosine_positions(rows, columns, width)

    def call(self, patches: Any) -> Any:
        """Returns the tokens, float [batch, 1 + rows * columns, width].

        Args:
            patches: float [batch, rows, columns, width].
        """
        tokens, width = self.positions.shape
        patches = ops.reshape(patches, (-1, tokens, width))
        positions = ops.convert_to_tensor(self.positions, patches.dtype)
        first = ops.reshape(self.class_token, (1, 1, width))
        first = ops.broadcast_to(first, (ops.shape(patches)[0], 1, width))
        return ops.concatenate([first, patches + positions], axis=1)

    def compute_output_shape(self, input_shape: tuple[int, ...]) -> tuple[int, ...]:
        """Returns the shape of the tokens.

        Args:
            input_shape: [batch, rows, columns, width].
        """
        batch, rows, columns, width = input_shape
        return batch, 1 + rows * columns, width


def sine_cosine_positions(rows: int, columns: int, width: int) -> np.ndarray:
    """Returns fixed position embeddings in two dimensions, float64 [rows * columns, width].

    A quarter of the width each, with frequency[i] = 10000^(-4 i / width):

        sin(x frequency), cos(x frequency), sin(y frequency), cos(y frequency)

    Row y * columns + x is the position in column x and row y.

    Args:
        rows: patches from top to bottom.
        columns: patches from left to right.
        width: length of each embedding, a multiple of 4.

    Raises:
        UserError: when the width is not a multiple of 4.
    """
    if width % 4:
        raise UserError(
            f"Positions of width {width} cannot be made; allowed: multiples of 4. The nearest is "
            f"{4 * max(1, round(width / 4))}."
        )
    frequency = 10000.0 ** (-4 * np.arange(width // 4) / width)
    y, x = np.indices((rows, columns)).reshape(2, -1, 1)
    waves = [wave(axis * frequency) for axis in (x, y) for wave in (np.sin, np.cos)]
    return np.concatenate(waves, axis=1)


class _Heads(keras.layers.Layer):
    """What both products share: tokens cut into heads of width / heads consecutive values."""

    def __init__(self, heads: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.heads = heads

    def _split(self, tokens: Any) -> Any:
        """Returns [batch, tokens, width] as [batch, heads, tokens, width / heads]."""
        _, count, width = tokens.shape
        tokens = ops.reshape(tokens, (-1, count, self.heads, width // self.heads))
        return ops.transpose(tokens, (0, 2, 1, 3))

    def get_config(self) -> dict[str, Any]:
        """Returns the layer's configuration and the number of heads."""
        return {**super().get_config(), "heads": self.heads}


@keras.saving.register_keras_serializable("tfcq")
class AttentionProbabilities(_Heads):
    """softmax(Q K^T / sqrt(width / heads)), each head by itself (Vaswani et al., 2017, Eq. 1).

    Args:
        heads: number of heads; divides the width of queries and keys.
        **kwargs: as for `keras.layers.Layer`.
    """

    def call(self, queries: Any, keys: Any) -> Any:
        """Returns how much each token attends to each, float [batch, heads, tokens, tokens].

        Args:
            queries: float [batch, tokens, width].
            keys: float [batch, tokens, width].
        """
        queries, keys = self._split(queries), self._split(keys)
        scores = ops.matmul(queries, ops.transpose(keys, (0, 1, 3, 2)))
        return ops.softmax(scores * queries.shape[-1] ** -0.5)


@keras.saving.register_keras_serializable("tfcq")
class AttendedValues(_Heads):
    """Each head's mean of the values, weighted by its attention, heads side by side.

    Args:
        heads: number of heads; divides the width of the values.
        **kwargs: as for `keras.layers.Layer`.
    """

    def call(self, probabilities: Any, values: Any) -> Any:
        """Returns the weighted means, float [batch, tokens, width].

        Args:
            probabilities: float [batch, heads, tokens, tokens].
            values: float [batch, tokens, width].
        """
        _, count, width = values.shape
        means = ops.matmul(probabilities, self._split(values))
        return ops.reshape(ops.transpose(means, (0, 2, 1, 3)), (-1, count, width))
