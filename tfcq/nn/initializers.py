"""The initial weights of our networks."""

import keras


def uniform_fan_in() -> keras.initializers.Initializer:
    """Returns a new initializer, uniform in +-1/sqrt(inputs).

    Learning rates of the published recipes were tuned with it: behind a batch norm, the size of the
    initial weights decides how far one step turns them. Each layer needs one of its own, since an
    initializer gives equal weights to equal shapes.
    """
    return keras.initializers.VarianceScaling(1 / 3, "fan_in", "uniform")
