"""What TensorBoard shows of a network beside the figures of its epochs."""

import math
import pathlib
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfcq.nn.activation_quantizer import ActivationQuantizer
from tfcq.nn.layer_bits import leaves_of
from tfcq.nn.layers import QuantizedKernel

# Values of a kernel in its histogram; of all of a ResNet-50's it took seconds an epoch.
_VALUES = 10_000


class NetworkSummaries(keras.callbacks.Callback):
    """Writes the first views once, and each epoch histograms of kernels and ranges of activations.

    A histogram has about 10,000 values of its kernel, evenly distributed.

    Args:
        folder: where they are written; not that of Keras's callback, as TensorBoard reads one
            writer in a folder.
        backbone: the quantizable network.
        views: makes a picture of views, uint8 [height, width, 3]; None for none.
    """

    def __init__(
        self,
        folder: str | pathlib.Path,
        backbone: keras.Model,
        views: Callable[[], np.ndarray] | None = None,
    ) -> None:
        super().__init__()
        self.folder, self.backbone, self.views = str(folder), backbone, views
        self._writer: Any = None

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Draws the views, before the first of several calls of `fit`.

        Args:
            logs: unused.
        """
        self._writer = self._writer or tf.summary.create_file_writer(self.folder)
        if self.views is not None:
            with self._writer.as_default(step=0):
                tf.summary.image("views", self.views()[np.newaxis])
            self.views = None

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Writes what the network has become.

        Args:
            epoch: index of the epoch.
            logs: unused.
        """
        # Otherwise all workers would have to ask for a range, and the chief alone does.
        local = self.backbone.distribute_strategy.experimental_local_results
        with self._writer.as_default(step=epoch):
            for layer in leaves_of(self.backbone):
                if isinstance(layer, QuantizedKernel):
                    tf.summary.histogram(f"kernels/{layer.path}", _some_of(layer.kernel))
                elif isinstance(layer, ActivationQuantizer):
                    ends = [float(local(end.value)[0]) for end in (layer.minimum, layer.maximum)]
                    # A float recipe records none.
                    if all(map(math.isfinite, ends)):
                        tf.summary.scalar(f"ranges/{layer.path}/minimum", ends[0])
                        tf.summary.scalar(f"ranges/{layer.path}/maximum", ends[1])
        self._writer.flush()


def _some_of(kernel: keras.Variable) -> tf.Tensor:
    """Returns about 10,000 values of a kernel, or all of a smaller one."""
    values = tf.reshape(tf.convert_to_tensor(kernel), [-1])
    # An odd distance, which meets every channel where their number is a power of two.
    return values[:: (values.shape[0] // _VALUES) | 1]
