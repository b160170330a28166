"""What watches a pre-training run: collapse, NaN and throughput."""

import math
import time
import warnings
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

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Looks at the loss.

        Args:
            batch: index of the step in the epoch.
            logs: the step's figures.
        """
        loss = float((logs or {}).get("loss", 0.0))
        # Kept with the model, so that a training that goes on is judged by its own start.
        if self.model.first_feature_ratio.numpy() == 0:
            self.model.first_feature_ratio.assign((logs or {}).get("feature_std_ratio", 1.0))
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
        fallen = ratio <= self.model.first_feature_ratio.numpy()
        if ratio < EMPTY_BELOW or (ratio < COLLAPSED_BELOW and fallen):
            raise TrainingStopped(
                f"Features collapsed in epoch {epoch + 1}: their standard deviation is "
                f"{ratio:.3f} of that of features spread over the sphere (at least "
                f"{COLLAPSED_BELOW} is needed); try a lower learning rate or stronger augmentation."
            )


class RunLength(keras.callbacks.Callback):
    """Tells the model how long an epoch and the training are, which schedules depend on.

    Args:
        made: index of the epoch whose views are made first; None where views are received.

    Raises:
        UserError: before the first step, when a schedule needs a number of steps that is unknown,
            or a callback, such as `BackupAndRestore`, has `fit` begin at an epoch of other views.
    """

    def __init__(self, made: int | None = None) -> None:
        super().__init__()
        self.made, self.is_told = made, False

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Sets the lengths, once callbacks have restored what the model had.

        Args:
            epoch: index of the epoch.
            logs: unused.
        """
        if self.is_told:
            return
        self.is_told = True
        if self.made not in (None, epoch):
            raise UserError(
                f"A callback has fit() go on at epoch {epoch}, counted from 0, whose views would "
                f"be those of epoch {self.made}; pass initial_epoch={epoch} beside it."
            )
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
        done, before = (
            int(keras.ops.convert_to_numpy(one))
            for one in (self.model.step, self.model.total_steps)
        )
        total = done + steps * (epochs - epoch)
        if self.model.needs_run_length and before not in (0, total):
            warnings.warn(
                f"fit() goes on from step {done} to {total}, where a call before ended its "
                f"schedules at step {before}; for one course over all calls call "
                "set_run_length(steps_per_epoch, total_steps) before the first.",
                stacklevel=2,
            )
        self.model.steps_per_epoch.assign(steps)
        self.model.total_steps.assign(total)


class Throughput(keras.callbacks.Callback):
    """Adds `images_per_second` to each epoch's figures."""

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Forgets the epoch before.

        Args:
            epoch: index of the epoch.
            logs: unused.
        """
        self._images = None

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Starts the clock after the first steps, which build the graph.

        Args:
            batch: index of the step in the epoch.
            logs: unused.
        """
        if self._images is None:
            self._started, self._images = time.perf_counter(), self.model.images_seen

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Reports the rate of the epoch.

        Args:
            epoch: index of the epoch.
            logs: the epoch's figures; one is added.
        """
        images = 0 if self._images is None else self.model.images_seen - self._images
        if logs is not None and images:
            logs["images_per_second"] = images / (time.perf_counter() - self._started)
