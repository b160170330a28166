"""Uniform numbers that are the same in a graph and under XLA."""

import tensorflow as tf

from tfcq.settings.generator import GENERATOR


def uniform(shape: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """Returns numbers drawn evenly from [0, 1), float32 of a shape.

    In a graph they are those of `tf.random.stateless_uniform`, to the last bit. XLA makes its
    floats of other bits of the same words, so that here words are drawn.

    Args:
        shape: the shape.
        seed: int tensor of shape (2,).
    """
    words = tf.random.stateless_uniform(shape, seed, None, None, tf.int32, alg=GENERATOR)
    # The low 23 bits are the mantissa of a number from 1 to 2.
    numbers = tf.bitwise.bitwise_or(tf.bitwise.bitwise_and(words, 0x7FFFFF), 0x3F800000)
    return tf.bitcast(numbers, tf.float32) - 1.0
