"""Checkpoints of a whole run: weights, optimizer, ranges, bits, steps and epoch."""

import contextlib
import os
import pathlib
import tempfile
from collections.abc import Iterator, Sequence

import keras
import tensorflow as tf

from tfcq.data.reading_errors import disk_fault
from tfcq.errors import UserError
from tfcq.files import whole_files
from tfcq.settings.run_position import RunPosition, files_of, kept_positions


class RunCheckpoints(keras.callbacks.Callback):
    """Saves everything that affects the next step after each epoch; restores the newest.

    A new run is saved before its first step, so that one without a checkpoint has lost it.

    Args:
        folder: where checkpoints are kept.
        pretrainer: a compiled model.
        steps: steps of an epoch.
        total: steps of the run, of which the last epoch may have fewer; None for no end.
        keep: how many checkpoints are kept.
    """

    def __init__(
        self,
        folder: str | pathlib.Path,
        pretrainer: keras.Model,
        steps: int,
        total: int | None = None,
        keep: int = 2,
    ) -> None:
        super().__init__()
        pretrainer.optimizer.build(pretrainer.trainable_variables)
        self.folder, self.steps, self.total, self.keep = pathlib.Path(folder), steps, total, keep
        self.done = 0
        self.epochs_done = tf.Variable(0, dtype=tf.int64, trainable=False)
        self.checkpoint = tf.train.Checkpoint(
            pretrainer=pretrainer, optimizer=pretrainer.optimizer, epochs_done=self.epochs_done
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
        failed: dict[RunPosition, str] = {}
        for position in reversed(kept_positions(self.folder)):
            try:
                self.restore(position)
            except UserError as error:
                failed[position] = str(error)
                continue
            self._set_aside(failed)
            return self.done
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
        return 0

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
                status = self.checkpoint.read(str(folder / position.file_name))
                status.assert_existing_objects_matched()
        except Exception as error:
            # What is read of a damaged file may be anything, and fail anywhere.
            reason = " ".join(str(error).split())[:200] or type(error).__name__
            raise UserError(f"Checkpoint {path} cannot be restored: {reason}.") from None
        self.done = int(self.epochs_done.numpy()) * self.steps
        if self.total is not None:
            self.done = min(self.done, self.total)

    def _set_aside(self, failed: dict[RunPosition, str]) -> None:
        """Renames checkpoints that cannot be restored, and tells from where the run goes on."""
        for position, reason in failed.items():
            for file in files_of(self.folder, position):
                os.replace(file, file.with_name(f"damaged-{file.name}"))
            lost = (position.epochs * self.steps + position.steps) - self.done
            if self.total is not None:
                lost = min(lost, self.total - self.done)
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
        if not kept_positions(self.folder):
            self._save()

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Saves.

        Args:
            epoch: index of the epoch.
            logs: unused.
        """
        self.done = (epoch + 1) * self.steps
        if self.total is not None:
            self.done = min(self.done, self.total)
        self._save()

    def _save(self) -> None:
        position = self.position
        self.epochs_done.assign(position.epochs)
        path = self.folder / position.file_name
        try:
            with whole_files(self.folder) as made:
                self.checkpoint.write(str(made / position.file_name))
        except (OSError, tf.errors.OpError) as error:
            reason = disk_fault(error) or " ".join(str(error).split())[:200]
            raise UserError(
                f"Checkpoint {path} cannot be written: {reason}. Those of before are whole; the "
                "same command goes on from them."
            ) from None
        for earlier in kept_positions(self.folder)[: -self.keep]:
            for file in files_of(self.folder, earlier):
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
