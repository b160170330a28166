"""Checkpoints of a whole run: weights, optimizer, ranges, bits, steps, epoch and its figures."""

import contextlib
import os
import pathlib
import tempfile
import time
from collections.abc import Iterator, Sequence

import keras
import numpy as np
import tensorflow as tf

from tfcq.command_line import interruption
from tfcq.data.reading_errors import disk_fault
from tfcq.errors import UserError
from tfcq.files import remove_unfinished
from tfcq.settings.run_position import RunPosition, files_of, kept_positions
from tfcq.settings.saving import SaveEvery
from tfcq.training.workers import (
    are_several,
    check_alike,
    from_chief,
    is_chief,
    is_loss,
    of_every_worker,
    written_by_chief,
)

# What checkpoints of before, which followed whole epochs, do not hold.
_ADDED = "epoch_steps/.ATTRIBUTES/VARIABLE_VALUE"
_EACH_EPOCH = SaveEvery()


class RunCheckpoints(keras.callbacks.Callback):
    """Saves everything that affects the next step, also within an epoch; restores the newest.

    A new run is saved before its first step, so that one without a checkpoint has lost it. Several
    workers save, restore and end at the same steps; the chief writes, the others read its folder.

    Args:
        folder: where checkpoints are kept.
        pretrainer: a compiled model.
        steps: steps of an epoch.
        total: steps of the run, of which the last epoch may have fewer; None for no end.
        save_every: when it is saved, beside the end.
        keep: how many checkpoints are kept.
    """

    def __init__(
        self,
        folder: str | pathlib.Path,
        pretrainer: keras.Model,
        steps: int,
        total: int | None = None,
        save_every: SaveEvery = _EACH_EPOCH,
        keep: int = 2,
    ) -> None:
        super().__init__()
        pretrainer.optimizer.build(pretrainer.trainable_variables)
        self.pretrainer = pretrainer
        self.strategy = pretrainer.distribute_strategy
        self.chief = is_chief(self.strategy)
        self.folder, self.steps, self.total = pathlib.Path(folder), steps, total
        self.save_every, self.keep = save_every, keep
        # Steps that are done, and that were when the run was saved.
        self.done = self.saved = 0
        self.saved_at = time.monotonic()
        self.signals: list[int] = []
        self.epochs_done = tf.Variable(0, dtype=tf.int64, trainable=False)
        self.epoch_steps = tf.Variable(0, dtype=tf.int64, trainable=False)
        self.figures = tf.Variable(self._figures(), trainable=False)
        self._begun = False
        earlier = {
            "pretrainer": pretrainer, "optimizer": pretrainer.optimizer,
            "epochs_done": self.epochs_done,
        }  # fmt: skip
        self.earlier_checkpoint = tf.train.Checkpoint(**earlier)
        self.checkpoint = tf.train.Checkpoint(
            **earlier, epoch_steps=self.epoch_steps, figures=self.figures
        )

    @property
    def position(self) -> RunPosition:
        """Where the run is."""
        if self.done == self.total:
            return RunPosition(-(-self.done // self.steps))
        return RunPosition(*divmod(self.done, self.steps))

    def restore_newest(self, witnesses: Sequence[pathlib.Path] = ()) -> int:
        """Restores the newest checkpoint that can be, and sets aside those that cannot.

        Args:
            witnesses: files that only a run with checkpoints has.

        Returns:
            How many steps are done; 0 when the run begins.

        Raises:
            UserError: when none can be restored, or all are gone.
        """
        position, failed = self._newest_restored(witnesses)
        # Before the chief renames what others may still read.
        check_alike(
            self.strategy,
            f"Workers found unlike checkpoints in {self.folder}; allowed: a folder that all see.",
            position,
        )
        if self.chief:
            self._set_aside(failed)
        return self.done

    def _newest_restored(
        self, witnesses: Sequence[pathlib.Path]
    ) -> tuple[RunPosition | None, dict[RunPosition, str]]:
        """Restores the newest checkpoint that can be; also returns why those after it cannot.

        Every worker does so, since all take part in the assignment of some variables.
        """
        failed: dict[RunPosition, str] = {}
        for position in reversed(kept_positions(self.folder)):
            try:
                self.restore(position)
            except UserError as error:
                failed[position] = str(error)
                continue
            return position, failed
        if failed:
            raise UserError(
                f"{' '.join(failed.values())} No other is left in {self.folder}; give another "
                "--run_dir, or remove the folder to begin anew."
            )
        for witness in witnesses:
            if witness.exists():
                raise UserError(
                    f"{witness} is there, but no checkpoint in {self.folder}; training would begin "
                    "anew. Put the checkpoints back, or give another --run_dir."
                )
        return None, failed

    def restore(self, position: RunPosition) -> None:
        """Restores one checkpoint.

        Args:
            position: where it was written.

        Raises:
            UserError: when it is damaged, or of another version of the model.
        """
        path = self.folder / position.file_name
        try:
            with _without_patterns(self.folder) as folder:
                prefix = str(folder / position.file_name)
                complete = tf.train.load_checkpoint(prefix).has_tensor(_ADDED)
                checkpoint = self.checkpoint if complete else self.earlier_checkpoint
                checkpoint.read(prefix).assert_existing_objects_matched()
        except Exception as error:
            if is_loss(self.strategy, error):
                raise
            # What is read of a damaged file may be anything, and fail anywhere.
            reason = " ".join(str(error).split())[:200] or type(error).__name__
            raise UserError(f"Checkpoint {path} cannot be restored: {reason}.") from None
        within = int(self.epoch_steps.numpy()) if complete else 0
        self.done = self.saved = self._steps_at(RunPosition(int(self.epochs_done.numpy()), within))
        self._begun = within > 0

    def _steps_at(self, position: RunPosition) -> int:
        done = position.epochs * self.steps + position.steps
        return done if self.total is None else min(done, self.total)

    def _set_aside(self, failed: dict[RunPosition, str]) -> None:
        """Renames checkpoints that cannot be restored, and tells from where the run goes on."""
        for position, reason in failed.items():
            for file in files_of(self.folder, position):
                os.replace(file, file.with_name(f"damaged-{file.name}"))
            lost = self._steps_at(position) - self.done
            print(
                f"{reason} Its files are called damaged-{position.file_name} now. Going on from "
                f"{self.position.file_name}: {lost} steps are made again.",
                flush=True,
            )

    def on_train_begin(self, logs: dict | None = None) -> None:
        """Saves a new run.

        Args:
            logs: unused.
        """
        if self.chief:
            remove_unfinished(self.folder)
        if not from_chief(self.strategy, len(kept_positions(self.folder)))[0]:
            self._save()

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        """Goes on with the figures of an epoch that had begun.

        Args:
            epoch: index of the epoch.
            logs: unused.
        """
        if self._begun:
            self._set_figures(self.figures.numpy())
            self._begun = False

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        """Counts the steps of a call, and saves where that is due or a signal asks to end.

        Args:
            batch: unused.
            logs: unused.
        """
        self.done += self.pretrainer.steps_per_execution
        # The end of an epoch follows at once.
        if self.done % self.steps and self.done != self.total:
            self._save_if_due()

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Saves where that is due, at the end of the run, or if a signal asks to end.

        Args:
            epoch: index of the epoch.
            logs: unused.
        """
        self.done = self._steps_at(RunPosition(epoch + 1))
        self._save_if_due(end=self.done == self.total)

    @contextlib.contextmanager
    def saving_at_signals(self) -> Iterator[None]:
        """Within, SIGTERM and SIGHUP end the run once its last step is saved."""
        # One worker that ends at once would take the step from the others.
        together = are_several(self.strategy)
        with interruption.noted(lambda: together or self.done > self.saved) as self.signals:
            yield

    def _save_if_due(self, end: bool = False) -> None:
        seconds = time.monotonic() - self.saved_at
        due = end or self.save_every.is_due(self.done, self.steps, seconds)
        # Once, since further ones may come while it is saved; of any worker, as the clock's.
        told = of_every_worker(self.strategy, due, *(self.signals[:1] or [0]))
        due, asked = told.max(axis=0).tolist()
        if due or asked:
            self._save()
        if asked:
            raise interruption.Terminated(
                asked,
                f"saved after step {self.done:,} as {self.folder / self.position.file_name}; the "
                "same command goes on from there",
            )

    def _figures(self) -> np.ndarray:
        """Returns the state of the epoch's means."""
        states = [np.ravel(np.asarray(v)) for m in self.pretrainer.metrics for v in m.variables]
        return np.concatenate([np.zeros(0), *states]).astype(np.float32)

    def _set_figures(self, figures: np.ndarray) -> None:
        for metric in self.pretrainer.metrics:
            for variable in metric.variables:
                count = int(np.prod(variable.shape))
                variable.assign(figures[:count].reshape(variable.shape))
                figures = figures[count:]

    def _save(self) -> None:
        position = self.position
        self.epochs_done.assign(position.epochs)
        self.epoch_steps.assign(position.steps)
        self.figures.assign(self._figures())
        path = self.folder / position.file_name
        try:
            with written_by_chief(self.strategy, self.folder) as made:
                self.checkpoint.write(str(made / position.file_name))
        except (OSError, tf.errors.OpError) as error:
            reason = disk_fault(error)
            if not reason and is_loss(self.strategy, error):
                raise
            reason = reason or " ".join(str(error).split())[:200]
            raise UserError(
                f"Checkpoint {path} cannot be written: {reason}. Those of before are whole; the "
                "same command goes on from them."
            ) from None
        self.saved, self.saved_at = self.done, time.monotonic()
        if self.chief:
            self._remove_surplus()

    def _remove_surplus(self) -> None:
        """Removes what is over `keep`: first what a signal had saved, then what is oldest.

        The newest two stay, since one of them may be damaged.
        """

        def in_turn(position: RunPosition) -> tuple[bool, RunPosition]:
            done = self._steps_at(position)
            return self.save_every.is_due(done, self.steps, float("inf")), position

        kept = kept_positions(self.folder)
        newest = kept[-min(2, self.keep) :]
        surplus = max(0, len(kept) - self.keep)
        for position in sorted(set(kept) - set(newest), key=in_turn)[:surplus]:
            for file in files_of(self.folder, position):
                file.unlink()


@contextlib.contextmanager
def _without_patterns(folder: pathlib.Path) -> Iterator[pathlib.Path]:
    """Gives a folder by a name in which TensorFlow, which reads patterns, finds none."""
    if not set("*?[\\") & set(str(folder)):
        yield folder
        return
    with tempfile.TemporaryDirectory() as place:
        link = pathlib.Path(place) / "checkpoints"
        link.symlink_to(folder.absolute())
        yield link
