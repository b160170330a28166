"""The initial weights of our networks."""

import keras

# Uniform in +-1/sqrt(inputs). Learning rates of the published recipes were tuned with it: behind a
# batch norm, the size of the initial weights decides how far one step turns them.
UNIFORM_FAN_IN = keras.initializers.VarianceScaling(1 / 3, "fan_in", "uniform")
