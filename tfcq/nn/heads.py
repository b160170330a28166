"""Projector and predictor: the small perceptrons behind a backbone."""

import keras
from keras import layers

from tfcq.errors import UserError
from tfcq.nn.initializers import uniform_fan_in


def multi_layer_perceptron(
    inputs: int,
    widths: tuple[int, ...],
    last_norm: bool,
    name: str,
    hidden_norm: bool = True,
    last_affine: bool = False,
) -> keras.Model:
    """Returns dense layers, each but the last followed by batch norm and ReLU.

    Args:
        inputs: width of the input.
        widths: width of each dense layer.
        last_norm: whether the last layer too has a batch norm, and no bias; without one it has a
            bias.
        name: name of the model.
        hidden_norm: whether the other layers have a batch norm; without one they have a bias.
        last_affine: whether the last batch norm has scale and offset; SimSiam's has not (Sec. 3).

    Returns:
        A functional model from float [batch, inputs] to float [batch, widths[-1]].

    Raises:
        UserError: when `widths` is empty or a width is not positive.
    """
    if not widths or min(widths) < 1:
        raise UserError(f"Widths {widths} of {name} cannot be used; allowed: positive numbers.")
    x = tensor = keras.Input((inputs,), name=f"{name}_inputs")
    for index, width in enumerate(widths, start=1):
        last = index == len(widths)
        norm = last_norm if last else hidden_norm
        x = layers.Dense(
            width,
            use_bias=not norm,
            kernel_initializer=uniform_fan_in(),
            name=f"{name}_dense{index}",
        )(x)
        if norm:
            x = layers.BatchNormalization(
                momentum=0.9,
                epsilon=1e-5,
                center=not last or last_affine,
                scale=not last or last_affine,
                name=f"{name}_norm{index}",
            )(x)
        if not last:
            x = layers.ReLU(name=f"{name}_relu{index}")(x)
    return keras.Model(tensor, x, name=name)
