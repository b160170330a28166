"""Small networks with everything that post-training quantization has to see."""

import keras
import numpy as np
from keras import layers

from tfcq.nn.quantizable import QuantizableModel, quantizable


def randomize_norms(model: keras.Model, seed: int = 0) -> None:
    """Gives every batch norm statistics of its own, with negative factors among them."""
    rng = np.random.default_rng(seed)
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            randomize_norms(layer, seed)
        elif isinstance(layer, layers.BatchNormalization):
            (count,) = layer.moving_mean.shape
            layer.moving_mean.assign(rng.normal(0, 0.3, count))
            layer.moving_variance.assign(rng.uniform(0.5, 2, count))
            if layer.scale:
                layer.gamma.assign(rng.choice([-1.0, 1.0], count) * rng.uniform(0.5, 1.5, count))
            if layer.center:
                layer.beta.assign(rng.normal(0, 0.3, count))


def residual_network() -> keras.Model:
    """Returns a float network with a residual block inside a nested model, and a classifier."""
    keras.utils.set_random_seed(0)
    source = keras.Input((8, 8, 4))
    x = layers.Conv2D(4, 3, padding="same", use_bias=False, name="first")(source)
    x = layers.ReLU(name="first_relu")(layers.BatchNormalization(name="first_norm")(x))
    x = layers.Conv2D(4, 3, padding="same", use_bias=False, name="second")(x)
    x = layers.BatchNormalization(name="second_norm")(x)
    x = layers.ReLU(name="sum_relu")(layers.Add(name="sum")([x, source]))
    block = keras.Model(source, x, name="block")
    inputs = keras.Input((8, 8, 1))
    x = layers.Conv2D(4, 3, padding="same", activation="relu", name="stem")(inputs)
    x = layers.GlobalAveragePooling2D(name="features")(block(x))
    model = keras.Model(inputs, layers.Dense(3, name="classifier")(x), name="network")
    randomize_norms(model)
    return model


def small_images(count: int = 40, seed: int = 0) -> np.ndarray:
    """Returns images with some structure, float32 [count, 8, 8, 1]."""
    rng = np.random.default_rng(seed)
    waves = np.sin(np.arange(8) * rng.uniform(0.2, 2, (count, 1)) + rng.uniform(0, 6, (count, 1)))
    images = waves[:, :, None] * waves[:, None, ::-1] + rng.normal(0, 0.2, (count, 8, 8))
    return images[..., None].astype(np.float32)


def quantizable_network(policy: str = "uniform") -> QuantizableModel:
    """Returns the quantizable form of `residual_network`."""
    return quantizable(residual_network(), policy)


def layer_named(model: keras.Model, name: str) -> keras.layers.Layer:
    """Returns a layer of a model or of a model inside it."""
    for layer in model.layers:
        if layer.name == name:
            return layer
        if isinstance(layer, keras.Model):
            found = layer_named(layer, name)
            if found is not None:
                return found
    return None
