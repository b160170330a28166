"""The generator of all random numbers, which config.json records."""

# The same on every device and under XLA, so that a run can be repeated on another one.
GENERATOR = "philox"
