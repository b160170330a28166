"""Checkpoints of a whole run: weights, optimizer, ranges, bits, steps and epoch."""

import pathlib

import keras
import tensorflow as tf

from tfcq.errors import UserError


class RunCheckpoints(keras.callbacks.Callback):
    """Saves everything that affects the next step after each epoch; restores the newest.

    Args:
        folder: where checkpoints are kept.
        pretrainer: a compiled model.
        keep: how many checkpoints are kept.
    """

    def __init__(self, folder: str | pathlib.Path, pretrainer: keras.Model, keep: int = 2) -> None:
        super().__init__()
        pretrainer.optimizer.build(pretrainer.trainable_variables)
        self.epochs_done = tf.Variable(0, dtype=tf.int64, trainable=False)
        self.checkpoint = tf.train.Checkpoint(
            pretrainer=pretrainer, optimizer=pretrainer.optimizer, epochs_done=self.epochs_done
        )
        self.manager = tf.train.CheckpointManager(self.checkpoint, str(folder), max_to_keep=keep)

    def restore(self, epoch: int | None = None) -> int:
        """Restores a checkpoint, if there is one.

        Args:
            epoch: number of epochs after which it was written; None for the newest.

        Returns:
            How many epochs are done; 0 when nothing was saved yet.

        Raises:
            UserError: when the checkpoint is damaged, or of another version of the model.
        """
        newest = self.manager.latest_checkpoint
        if epoch is not None:
            newest = f"{self.manager.directory}/ckpt-{epoch}"
        if newest:
            try:
                self.checkpoint.restore(newest).assert_existing_objects_matched()
            except (IndexError, ValueError, AssertionError, tf.errors.OpError) as error:
                reason = " ".join(str(error).split())[:200]
                raise UserError(
                    f"Checkpoint {newest} cannot be restored: {reason}. Remove its files to go on "
                    "from the one before, or begin in another folder."
                ) from None
        return int(self.epochs_done.numpy())

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Saves.

        Args:
            epoch: index of the epoch.
            logs: unused.
        """
        self.epochs_done.assign(epoch + 1)
        self.manager.save(checkpoint_number=epoch + 1)
