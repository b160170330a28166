"""Training of a detector, in float or quantized, from its newest checkpoint to its end."""

import dataclasses
import math
import pathlib
from typing import Any

import keras

from tfcq.detection.boxed_data import BoxedData
from tfcq.detection.detector import Detector
from tfcq.detection.parts import part_policy
from tfcq.detection.saved import ABOUT, part_file, save_detector
from tfcq.errors import TrainingStopped, UserError
from tfcq.nn.copied_weights import copy_weights
from tfcq.nn.float_model import requantizable
from tfcq.nn.loading import load
from tfcq.settings.bitwidths import BitWidth
from tfcq.settings.detection_groups import AUTO_WARMUP, USUAL_WARMUP, DetectionTraining
from tfcq.settings.durations import parse_duration
from tfcq.settings.protocol_groups import QAT_QUANTIZERS
from tfcq.settings.saving import parse_save_every
from tfcq.training.checkpoints import RunCheckpoints
from tfcq.training.history import HistoryFile, Progress
from tfcq.training.optimizers import optimizer_from
from tfcq.training.stretches import stretches


def train(detector: Detector, data: BoxedData, folder: pathlib.Path) -> None:
    """Trains a detector to its end, and saves its networks.

    Args:
        detector: the detector.
        data: the images and settings.
        folder: where everything is written.

    Raises:
        UserError: when its checkpoint cannot be read.
        TrainingStopped: when the loss is not finite.
    """
    if all(part_file(folder, name).exists() for name in detector.parts):
        print(f"{folder}: trained already.")
        load_trained(detector, folder)
        if not (folder / ABOUT).exists():
            # An earlier version trained it.
            _save(detector, data, folder)
        return
    settings = _warmed_up(data.config.training, data.total_steps)
    optimizer = optimizer_from(settings, data.steps)
    optimizer.clipnorm = settings.clip_gradient or None
    detector.compile(optimizer)
    history = folder / "history.csv"
    total = data.total_steps
    checkpoints = RunCheckpoints(
        folder / "checkpoints", detector, data.steps, total,
        parse_save_every(settings.save_every), settings.keep,
    )  # fmt: skip
    checkpoints.restore_newest((history,))
    done, position, length = checkpoints.done, checkpoints.position, settings.length()
    span = f"steps {done} to {total}"
    if length.unit == "epochs":
        span = f"epochs {position.in_words} to {data.epochs}"
    print(f"{folder}: {data.train.size} images, {data.steps} steps an epoch, {span}", flush=True)
    callbacks = [
        HistoryFile(history, position.epochs),
        Progress(total, data.steps, done, length=length),
        _Finite(),
        # Last, so that a checkpoint never knows of an epoch that the history does not.
        checkpoints,
    ]
    with checkpoints.saving_at_signals():
        for part in stretches(done, data.steps, total):
            detector.fit(
                data.training(part.first, detector.stride, part.first_step),
                epochs=part.last, initial_epoch=part.first, steps_per_epoch=part.steps,
                shuffle=False, verbose=0, callbacks=callbacks,
            )  # fmt: skip
    _save(detector, data, folder)


def _warmed_up(settings: DetectionTraining, total: int) -> DetectionTraining:
    """Returns settings whose warm-up, where it was left open, fits into the training."""
    if settings.warmup != AUTO_WARMUP:
        return settings
    usual = parse_duration(USUAL_WARMUP).steps(total, settings.batch_size)
    if total < usual:
        print(
            f"Warm-up of {total // 10} steps instead of {usual}: the training has {total} "
            "(--warmup).",
            flush=True,
        )
        usual = total // 10
    return dataclasses.replace(settings, warmup=f"{usual}steps")


class _Finite(keras.callbacks.Callback):
    """Ends a training whose loss is not finite."""

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        loss = float((logs or {})["loss"])
        if not math.isfinite(loss):
            raise TrainingStopped(
                f"The loss became {loss} at step {batch + 1} of this epoch; try a lower "
                "--learning_rate, or --clip_gradient=10, in another --output_dir."
            )


def _save(detector: Detector, data: BoxedData, folder: pathlib.Path) -> None:
    bits = detector.training_bits
    trained_at = None if bits is None else BitWidth(*(int(one.numpy()) or None for one in bits))
    longest = data.config.data.longest_side
    save_detector(detector, folder, data.names, data.scored_side, longest, trained_at)


def trained_at(
    detector: Detector, data: BoxedData, folder: pathlib.Path, bits: BitWidth
) -> Detector:
    """Returns a float detector that was trained further at a bit-width.

    Args:
        detector: the float detector, which is left as it is.
        data: the images and settings.
        folder: where everything is written.
        bits: the bit-width.
    """
    measurement = data.config.measurement
    policy = data.config.policy
    policy = policy.with_quantizers(*QAT_QUANTIZERS[measurement.quantizer])
    heads = detector.HEADS if measurement.quantize == "backbone" else ()
    first = next(iter(detector.parts))
    quantized = detector.with_parts(
        {
            name: requantizable(part, part_policy(part, policy, heads), reads_images=name == first)
            for name, part in detector.parts.items()
        }
    )
    quantized.train_at(int(bits.weights or 0), int(bits.activations or 0))
    train(quantized, data, folder)
    return quantized


def load_trained(detector: Detector, folder: pathlib.Path) -> None:
    """Gives a detector the weights of one that was trained.

    Args:
        detector: the detector.
        folder: where the other one was written.

    Raises:
        UserError: when there is none.
    """
    for name, part in detector.parts.items():
        file = part_file(folder, name)
        if not file.exists():
            raise UserError(
                f"{folder} holds no trained detector, which qat goes on from; train it first with "
                "--protocol=finetune."
            )
        copy_weights(load(file), part)
