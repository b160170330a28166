"""XLA compiles quantizers of constant bits to the same values, those on a rounding tie too."""

import numpy as np
import pytest
import tensorflow as tf

from tfcq.quantization.minmax import (
    AsymmetricWeightQuantizer,
    MinMaxActivationQuantizer,
    MinMaxWeightQuantizer,
)

QUANTIZERS = {
    "full range": (MinMaxWeightQuantizer(bits=8), [0]),
    "narrow range": (MinMaxWeightQuantizer(bits=3, narrow_range=True), [0]),
    "asymmetric": (AsymmetricWeightQuantizer(bits=4), [0]),
    "activations": (MinMaxActivationQuantizer(bits=4), None),
}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", QUANTIZERS)
def test_values_are_those_of_the_graph(name, dtype):
    quantizer, axes = QUANTIZERS[name]
    drawn = tf.random.stateless_uniform((16, 512), (1, 0), -1, 1, alg="philox")
    x = tf.cast(drawn, dtype)
    plain, compiled = (
        tf.function(lambda x: quantizer(x, 8, axes), jit_compile=jit, autograph=False)(x)
        for jit in (False, True)
    )
    np.testing.assert_array_equal(plain, compiled)
