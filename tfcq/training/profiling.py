"""Some steps of a run under TensorFlow's profiler."""

import pathlib
from typing import Any

import keras
import tensorflow as tf

from tfcq.errors import UserError
from tfcq.settings.profiling import ProfiledSteps


def check_made(steps: ProfiledSteps | None, done: int, total: int) -> None:
    """Refuses to profile steps that are not made.

    Args:
        steps: which steps of the run; None for none.
        done: steps that are done.
        total: steps of the run.

    Raises:
        UserError: saying which are.
    """
    if steps is not None and (steps.first <= done or steps.last > total):
        left = f"from {done + 1} to {total}" if done < total else "none, leave it out"
        raise UserError(
            f"--profile={steps.first}-{steps.last} of a run of {total} steps, of which {done} are "
            f"done; allowed: {left}."
        )


class Profile(keras.callbacks.Callback):
    """Profiles steps and says how to look at them.

    Where a call of TensorFlow makes several steps, whole calls are profiled.

    `keras.callbacks.TensorBoard(profile_batch=...)` counts the steps of each call of `fit` anew, of
    which a run that goes on within an epoch has several.

    Args:
        folder: where TensorBoard looks.
        steps: which steps of the run.
        done: steps that are done.
        total: steps of the run.

    Raises:
        UserError: on steps that this start of the run does not make.
    """

    def __init__(
        self, folder: str | pathlib.Path, steps: ProfiledSteps, done: int, total: int
    ) -> None:
        super().__init__()
        check_made(steps, done, total)
        self.folder, self.steps, self.done = str(folder), steps, done
        # The first step that is profiled, once one is; calls of several steps may begin before it.
        self._first = 0
        self._marked: Any = None

    def on_train_batch_begin(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Starts the profiler before the first of the steps, and marks each call.

        Args:
            batch: unused.
            logs: unused.
        """
        step, last = self.done + 1, self.done + self.model.steps_per_execution
        if step > self.steps.last or last < self.steps.first:
            return
        if not self._first:
            self._first = step
            tf.profiler.experimental.start(self.folder)
        self._marked = tf.profiler.experimental.Trace("train", step_num=step, _r=1)
        self._marked.__enter__()

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Ends the profiler after the last of the steps.

        Args:
            batch: unused.
            logs: unused.
        """
        self.done += self.model.steps_per_execution
        if self._marked is None:
            return
        self._marked.__exit__(None, None, None)
        self._marked = None
        if self.done >= self.steps.last:
            tf.profiler.experimental.stop()
            print(
                f"Profile of steps {self._first} to {self.done}: tensorboard "
                f"--logdir={self.folder} (with pip install tensorboard xprof), tab Profile",
                flush=True,
            )
