"""What watches a pre-training run: collapse, NaN and throughput."""

import math
import time
from typing import Any

import keras

from tfcq.errors import TrainingStopped, UserError

# Features that fill the sphere have a ratio near 1; collapsed ones near 0. A projector without
# batch norm (MoCo v2) starts with a low ratio, too, which then rises.
COLLAPSED_BELOW = 0.05
EMPTY_BELOW = 0.005


class StopOnFailure(keras.callbacks.Callback):
    """Stops training with a plain explanation when the loss is NaN or features have collapsed.

    Raises:
        TrainingStopped: after the step, or the epoch, that showed it.
    """

    def __init__(self) -> None:
        super().__init__()
        self._first_ratio: float | None = None

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Forgets an earlier training.

        Args:
            logs: unused.
        """
        self._first_ratio = None

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Looks at the loss.

        Args:
            batch: index of the step in the epoch.
            logs: the step's figures.
        """
        loss = float((logs or {}).get("loss", 0.0))
        if self._first_ratio is None:
            self._first_ratio = float((logs or {}).get("feature_std_ratio", 1.0))
        if not math.isfinite(loss):
            raise TrainingStopped(
                f"The loss became {loss} at step {batch + 1} of this epoch; try a lower learning "
                "rate, and look for NaN in the images."
            )

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Looks at the spread of the features.

        Args:
            epoch: index of the epoch.
            logs: the epoch's figures.
        """
        ratio = float((logs or {}).get("feature_std_ratio", 1.0))
        fallen = self._first_ratio is None or ratio <= self._first_ratio
        if ratio < EMPTY_BELOW or (ratio < COLLAPSED_BELOW and fallen):
            raise TrainingStopped(
                f"Features collapsed in epoch {epoch + 1}: their standard deviation is "
                f"{ratio:.3f} of that of features spread over the sphere (at least "
                f"{COLLAPSED_BELOW} is needed); try a lower learning rate or stronger augmentation."
            )


class RunLength(keras.callbacks.Callback):
    """Tells the model how long an epoch and the training are, which schedules depend on.

    Raises:
        UserError: before the first step, when a schedule needs a number of steps that is unknown.
    """

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Sets the lengths.

        Args:
            logs: unused.
        """
        if self.model.knows_run_length:
            return
        epochs, steps = self.params.get("epochs"), self.params.get("steps")
        if steps is None:
            if self.model.needs_run_length:
                raise UserError(
                    "fit() received data of unknown length, and a schedule of this model depends "
                    "on it; pass steps_per_epoch."
                )
            return
        self.model.steps_per_epoch.assign(steps)
        ahead = steps * (epochs - self.model.first_epoch)
        self.model.total_steps.assign(self.model.step.value + ahead)


class Throughput(keras.callbacks.Callback):
    """Adds `images_per_second` to each epoch's figures."""

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Starts the clock.

        Args:
            epoch: index of the epoch.
            logs: unused.
        """
        self._steps = 0
        self._started = None

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Counts a step; the first of a run is left out, since it builds the graph.

        Args:
            batch: index of the step in the epoch.
            logs: unused.
        """
        if self._started is None:
            self._started = time.perf_counter()
        else:
            self._steps += 1

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Reports the rate of the epoch.

        Args:
            epoch: index of the epoch.
            logs: the epoch's figures; one is added.
        """
        if logs is not None and self._steps:
            seconds = time.perf_counter() - self._started
            logs["images_per_second"] = self._steps * self.model.images_per_step / seconds
