"""Vision Transformers (Dosovitskiy et al., 2021) as MoCo v3 trains them (Chen et al., 2021)."""

import math

import keras
from keras import layers

from tfcq.errors import UserError, unknown_choice
from tfcq.nn.attention import AttendedValues, AttentionProbabilities, TokenEmbedding

# Width and heads. The small one has MoCo v3's 12 heads; DeiT's has 6.
_SIZES = {"tiny": (192, 3), "small": (384, 12)}
_MLP_RATIO = 4
_EPSILON = 1e-6
_PATCH_SIZES = (16, 8, 4, 2, 1)
# As many as a ResNet's last map has at 224 pixels.
_FEWEST_PATCHES = 7


def vision_transformer(
    size: str = "small",
    patch_size: int | None = None,
    input_shape: tuple[int, int, int] = (224, 224, 3),
    heads: int | None = None,
    width: int | None = None,
    depth: int = 12,
    frozen_patch_projection: bool = False,
    name: str | None = None,
) -> keras.Model:
    """Returns a Vision Transformer without classifier: images to the normalized class token.

    Blocks are pre-norm, with x + attention(norm(x)) and x + mlp(norm(x)); the perceptron has one
    hidden layer of 4 times the width with exact GELU. Position embeddings are fixed sines and
    cosines. Initial weights are MoCo v3's: dense kernels uniform in +-sqrt(6 / (inputs + outputs)),
    queries, keys and values each by itself; the patch projection the same with channels *
    patch_size^2 inputs; the class token normal with standard deviation 1e-6; biases 0.

    Args:
        size: `"tiny"` (192 wide, 3 heads) or `"small"` (384 wide, 12 heads), the width and heads
            where none are given.
        patch_size: height and width of a patch in pixels; by default the largest of 16, 8, 4, 2
            and 1 with 7 patches or more along the shorter side, so 16 for 224 pixels and 4 for 32.
        input_shape: height, width and channels of the images; multiples of the patch size.
        heads: heads of each attention; divides the width.
        width: width of a token; a multiple of 4, for the position embeddings.
        depth: number of blocks; 12 in the paper.
        frozen_patch_projection: whether the patch projection stays as it was initialized, which
            makes MoCo v3's training stable (Sec. 4).
        name: name of the model; `vision_transformer_<size>` by default.

    Returns:
        A functional model from float images [batch, height, width, channels] to float features
        [batch, width of a token].

    Raises:
        UserError: on an unknown size, an image size that is no multiple of the patch size, a width
            that heads or position embeddings do not divide, or a depth that is not positive.

    Example:

        >>> model = tfcq.vision_transformer("tiny", patch_size=4, input_shape=(8, 8, 1), depth=1)
        >>> model.output_shape
        (None, 192)
    """
    if size not in _SIZES:
        raise unknown_choice("size of a Vision Transformer", size, _SIZES)
    width = _SIZES[size][0] if width is None else width
    heads = _SIZES[size][1] if heads is None else heads
    if depth < 1:
        raise UserError(f"Depth {depth} cannot be used; allowed: 1 and above. The nearest is 1.")
    _check_width(width, heads)
    patch_size = _checked_patch_size(patch_size, input_shape)
    inputs = keras.Input(input_shape, name="images")
    x = _patch_projection(width, patch_size, input_shape[2], not frozen_patch_projection)(inputs)
    x = TokenEmbedding(name="tokens")(x)
    for block in range(1, depth + 1):
        x = _attention(x, width, heads, f"block{block}_attention")
        x = _perceptron(x, width, f"block{block}_mlp")
    # The last norm is of each token by itself: the others need none.
    x = layers.Cropping1D((0, x.shape[1] - 1), name="class_token")(x)
    x = layers.Flatten(name="class_token_flat")(x)
    features = layers.LayerNormalization(epsilon=_EPSILON, name="features")(x)
    return keras.Model(inputs, features, name=name or f"vision_transformer_{size}")


def _check_width(width: int, heads: int) -> None:
    if heads < 1:
        raise UserError(f"{heads} heads cannot be used; allowed: 1 and above. The nearest is 1.")
    divisor = math.lcm(4, heads)
    if width < 1 or width % divisor:
        raise UserError(
            f"Width {width} of a Vision Transformer with {heads} heads cannot be used; allowed: "
            f"multiples of {divisor}. The nearest is {divisor * max(1, round(width / divisor))}."
        )


def _checked_patch_size(patch_size: int | None, input_shape: tuple[int, int, int]) -> int:
    height, width = input_shape[:2]
    if height is None or width is None:
        raise UserError(
            f"Images of shape {input_shape} cannot be cut into patches; allowed: a fixed height "
            "and width, such as (224, 224, 3)."
        )
    if patch_size is None:
        fitting = (p for p in _PATCH_SIZES if min(height, width) // p >= _FEWEST_PATCHES)
        patch_size = next(fitting, _PATCH_SIZES[-1])
    if patch_size < 1:
        raise UserError(
            f"Patch size {patch_size} cannot be used; allowed: 1 and above. The nearest is 1."
        )
    if height % patch_size or width % patch_size:
        nearest = [patch_size * max(1, round(side / patch_size)) for side in (height, width)]
        raise UserError(
            f"Images of {height} x {width} pixels cannot be cut into patches of {patch_size}; "
            f"allowed: multiples of {patch_size}. The nearest size is {nearest[0]} x {nearest[1]}."
        )
    return patch_size


def _patch_projection(width: int, patch_size: int, channels: int, trainable: bool) -> layers.Layer:
    bound = math.sqrt(6 / (channels * patch_size**2 + width))
    return layers.Conv2D(
        width,
        patch_size,
        patch_size,
        kernel_initializer=keras.initializers.RandomUniform(-bound, bound),
        trainable=trainable,
        name="patch_projection",
    )


def _attention(x: keras.KerasTensor, width: int, heads: int, name: str) -> keras.KerasTensor:
    shortcut = x
    x = layers.LayerNormalization(epsilon=_EPSILON, name=f"{name}_norm")(x)
    queries, keys, values = (
        layers.Dense(width, name=f"{name}_{part}")(x) for part in ("queries", "keys", "values")
    )
    x = AttentionProbabilities(heads, name=f"{name}_probabilities")(queries, keys)
    x = AttendedValues(heads, name=f"{name}_heads")(x, values)
    x = layers.Dense(width, name=f"{name}_projection")(x)
    return layers.Add(name=f"{name}_add")([shortcut, x])


def _perceptron(x: keras.KerasTensor, width: int, name: str) -> keras.KerasTensor:
    shortcut = x
    x = layers.LayerNormalization(epsilon=_EPSILON, name=f"{name}_norm")(x)
    x = layers.Dense(_MLP_RATIO * width, activation="gelu", name=f"{name}_dense1")(x)
    x = layers.Dense(width, name=f"{name}_dense2")(x)
    return layers.Add(name=f"{name}_add")([shortcut, x])
