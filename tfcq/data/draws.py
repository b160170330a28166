"""Uniform draws of many images at once, each a function of its own seed.

TensorFlow draws for one seed at a time, at 30 to 50 microseconds, which for small images is more
than all else that makes their views; here a batch is drawn in one pass, by the same generator.
"""

import math

import tensorflow as tf

from tfcq.settings.generator import GENERATOR

# Philox-4x32-10 (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3").
_ROUNDS = 10
_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_KEY_STEPS = (0x9E3779B9, 0xBB67AE85)
# With this key TensorFlow turns a seed into the key and the counter of its draws.
_SEED_KEY = (0x3EC8F720, 0x02461E29)


def uniform_draws(seed: tf.Tensor, indices: tf.Tensor, shape: tuple[int, ...]) -> tf.Tensor:
    """Returns the uniform draws of each index.

    Those of one are, to the last bit, `tf.random.stateless_uniform(shape, folded, alg="philox")`
    with `folded = tf.random.experimental.stateless_fold_in(seed, index, alg="philox")`.

    Args:
        seed: int64 [2].
        indices: int64 [B].
        shape: shape of the draws of one index.

    Returns:
        float32 [B, *shape] in [0, 1).
    """
    # What folding an index in makes of a seed: (a draw from it, the index).
    drawn = tf.random.stateless_uniform([], seed, None, None, tf.int64, alg=GENERATOR)
    folded = tf.stack([tf.fill(tf.shape(indices), drawn), indices], axis=1)
    even, odd = tf.unstack(tf.bitcast(folded, tf.uint32), axis=-1)
    even, odd = _philox(tf.constant(_SEED_KEY, tf.uint32), even, odd)
    key = tf.stack([even[:, 0], odd[:, 0]], axis=-1)[:, tf.newaxis]
    count = math.prod(shape)
    block = tf.cast(tf.range(-(-count // 4)), tf.uint32)
    zeros = tf.zeros([tf.shape(indices)[0], block.shape[0]], tf.uint32)
    even = tf.stack([zeros + block, zeros + even[:, 1:]], axis=-1)
    odd = tf.stack([zeros, zeros + odd[:, 1:]], axis=-1)
    bits = tf.stack(_philox(key, even, odd), axis=-1)
    bits = tf.reshape(bits, [tf.shape(indices)[0], -1])[:, :count]
    # The low 23 bits are the mantissa of a number from 1 to 2.
    ones = tf.constant(0x3F800000, tf.uint32)
    numbers = tf.bitwise.bitwise_or(tf.bitwise.bitwise_and(bits, 0x7FFFFF), ones)
    return tf.reshape(tf.bitcast(numbers, tf.float32) - 1.0, [-1, *shape])


def _philox(key: tf.Tensor, even: tf.Tensor, odd: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns four random words for each counter of four words; here the even and the odd ones.

    Args:
        key: uint32 [..., 2].
        even: uint32 [..., 2], words 0 and 2 of the counter.
        odd: uint32 [..., 2], words 1 and 3.
    """
    for number in range(_ROUNDS):
        steps = [number * step % 2**32 for step in _KEY_STEPS]
        products = tf.cast(even[..., ::-1], tf.uint64) * tf.constant(_MULTIPLIERS[::-1], tf.uint64)
        high = tf.cast(tf.bitwise.right_shift(products, 32), tf.uint32)
        keyed = tf.bitwise.bitwise_xor(odd, key + tf.constant(steps, tf.uint32))
        even, odd = tf.bitwise.bitwise_xor(high, keyed), tf.cast(products, tf.uint32)
    return even, odd
