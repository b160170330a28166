"""Training and evaluation that repeat to the last bit."""

import tensorflow as tf


def make_deterministic() -> None:
    """Makes every later step of this process repeat to the last bit, at the cost of speed.

    Seeds are set apart from it. oneDNN must be off too, which TensorFlow reads when it starts: set
    `TF_ENABLE_ONEDNN_OPTS=0` before (gradients of a strided 1x1 convolution were seen to differ
    from run to run).
    """
    tf.config.experimental.enable_op_determinism()
    # Grappler's arithmetic optimization sums the same terms in another order from one tracing to
    # the next.
    tf.config.optimizer.set_experimental_options({"arithmetic_optimization": False})
