"""Names of the bit-width schedules. Needs no TensorFlow."""

# Those with a period keep to it or repeat with it.
PERIODIC = ("epoch", "cyclic")
BIT_SCHEDULES = ("uniform", *PERIODIC, "list", "fixed")
