"""From the settings of an evaluation to quantization-aware training, and what that starts from."""

import dataclasses
from collections.abc import Iterator

import keras

from tfcq import build
from tfcq.errors import UserError
from tfcq.evaluation import protocols
from tfcq.evaluation.accuracy import Accuracy, LabelledImages
from tfcq.evaluation.task import Task, Training
from tfcq.evaluation_settings import QAT_QUANTIZERS, STARTS, EvaluationConfig
from tfcq.nn.float_model import requantizable
from tfcq.nn.quantizable import QuantizableModel, load
from tfcq.subject import Subject


def qat(
    config: EvaluationConfig,
    subject: Subject,
    task: Task,
    training: Training,
    keep: protocols.Keep,
) -> Iterator[Accuracy]:
    """Trains with the quantizers asked for and yields the accuracy at every bit-width.

    Args:
        config: the settings.
        subject: what is evaluated.
        task: its backbone and images.
        training: how it is trained.
        keep: takes the network trained at each bit-width.
    """
    policy = subject.policy.with_quantizers(*QAT_QUANTIZERS[config.measurement.quantizer])
    policy = dataclasses.replace(
        policy,
        overrides=((protocols.CLASSIFIER, "fp"), *policy.overrides),
        rounding=config.quantizer_rounding or policy.rounding,
    )

    def start() -> QuantizableModel:
        if config.measurement.start == "linear":
            return protocols.linear_classifier(task)
        if config.measurement.start == "finetune":
            own = _start_config(config)
            crops = subject.augmentation(own, task.data.train_images, "finetune")
            return protocols.finetuned_classifier(
                dataclasses.replace(task, augmentation=crops),
                build.training(own.optimization("finetune")),
            )
        return load(config.measurement.start)

    return protocols.qat(task, training, start, lambda model: requantizable(model, policy), keep)


def check_start(config: EvaluationConfig, subject: Subject, data: LabelledImages) -> None:
    """Refuses a start that cannot be trained, or is no classifier of this backbone's architecture.

    Args:
        config: the settings.
        subject: what is evaluated.
        data: the labelled images.

    Raises:
        UserError: saying what does not fit.
    """
    start, images = config.measurement.start, len(data.train_images)
    batch_size = _start_config(config).optimization("finetune").batch_size
    if start == "finetune" and batch_size > images:
        raise UserError(
            f"--start=finetune fine-tunes with batches of {batch_size}, and there are {images} "
            f"training images; allowed: --batch_size from 1 to {images}, which counts for both."
        )
    if start in STARTS:
        return
    kept = load(start)
    expected = {*_shapes(subject.model), (protocols.CLASSIFIER, None)}
    if not isinstance(kept, QuantizableModel) or set(_shapes(kept)) != expected:
        raise UserError(
            f"--start={start} is no classifier on a network like that of {subject.title}; allowed: "
            "one that --protocol=finetune --keep_classifiers saved for it."
        )
    if kept.input_shape != subject.model.input_shape:
        raise UserError(
            f"--start={start} takes images of shape {kept.input_shape[1:]}, and {subject.title} "
            f"{subject.model.input_shape[1:]}; allowed: the same."
        )
    if kept.output_shape[-1] != data.classes:
        raise UserError(
            f"--start={start} tells {kept.output_shape[-1]} classes apart and the data have "
            f"{data.classes}; allowed: a classifier of the same data."
        )


def _shapes(model: keras.Model) -> Iterator[tuple[str, tuple[int, ...] | None]]:
    """Yields name and shape of every kernel; that of a kept classifier is not a backbone's."""
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            yield from _shapes(layer)
        elif layer.name == protocols.CLASSIFIER:
            yield layer.name, None
        elif hasattr(layer, "kernel"):
            yield layer.name, tuple(layer.kernel.shape)


def _start_config(config: EvaluationConfig) -> EvaluationConfig:
    """Returns how a start is fine-tuned: as its own protocol is, but for a batch size given."""
    given = {"batch_size": config.training.batch_size}
    return dataclasses.replace(config, training=type(config.training)(**given))
