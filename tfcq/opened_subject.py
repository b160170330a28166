"""From the settings of an evaluation to its subject, refusing what cannot be read or quantized."""

import dataclasses
import pathlib
from typing import TYPE_CHECKING

from tfcq.backbones.names import APPLICATION, FILE
from tfcq.data.names import DIGITS, FOLDER_PREFIX, check_dataset_name
from tfcq.errors import UserError
from tfcq.evaluation_settings import STARTS, EvaluationConfig, SubjectSettings
from tfcq.nn.policies import Policy, policy_named
from tfcq.run_folder import RunFolder
from tfcq.settings import DataSettings
from tfcq.subject import Subject

# The name of `tfcq.evaluation.classifier.CLASSIFIER`, which needs TensorFlow.
CLASSIFIER = "classifier"

if TYPE_CHECKING:
    import keras


def check_subject(config: EvaluationConfig) -> None:
    """Refuses a subject or a data set that is not there, before TensorFlow's start-up.

    Args:
        config: the settings.

    Raises:
        UserError: saying what is missing.
    """
    subject, start = config.subject, config.measurement.start
    if config.data.dataset is not None:
        check_dataset_name(config.data.dataset)
    if start not in STARTS and not pathlib.Path(start).is_file():
        raise UserError(
            f"--start={start} does not exist; allowed: {', '.join(STARTS)}, or a .keras file that "
            "--keep_classifiers saved."
        )
    if subject.output_dir is not None and pathlib.Path(subject.output_dir).is_file():
        raise UserError(f"--output_dir={subject.output_dir} is a file; allowed: a folder.")
    if subject.run_dir is not None:
        RunFolder(subject.run_dir).load()
        return
    kind, _, name = subject.model.partition(":")
    if kind == APPLICATION and name:
        _check_weights_file(subject.weights)
        return
    if not subject.model.endswith(".keras"):
        raise UserError(
            f"Unknown model {subject.model!r}; allowed: PATH.keras, or {APPLICATION}:NAME such as "
            f"{APPLICATION}:MobileNetV2."
        )
    if not pathlib.Path(subject.model).is_file():
        raise UserError(f"{subject.model} does not exist; allowed: a .keras file.")


def _check_weights_file(weights: str | None) -> None:
    if weights in (None, "imagenet"):
        return
    if not weights.endswith(".weights.h5"):
        raise UserError(f"Unknown weights {weights!r}; allowed: imagenet, or PATH.weights.h5.")
    if not pathlib.Path(weights).is_file():
        raise UserError(f"{weights} does not exist; allowed: imagenet, or a .weights.h5 file.")


def open_subject(config: EvaluationConfig) -> Subject:
    """Returns what an evaluation is about.

    Args:
        config: the settings.

    Raises:
        UserError: when it cannot be read, or not be quantized as asked for.
    """
    subject = _model(config) if config.subject.run_dir is None else _run(config)
    _check_weights(subject)
    return subject


def _check_weights(subject: Subject) -> None:
    """Refuses NaN and infinity, which ranges and scales alone may hold, until they are set."""
    import numpy as np

    for weight in subject.model.weights:
        values = np.asarray(weight)
        unset = weight.name in ("minimum", "maximum", "scale")
        if not unset and values.dtype.kind == "f" and not np.all(np.isfinite(values)):
            raise UserError(
                f"Weight {weight.path!r} of {subject.title} holds NaN or infinity; train it again "
                "at a lower learning rate."
            )


def _run(config: EvaluationConfig) -> Subject:
    from tfcq import build

    folder = RunFolder(config.subject.run_dir)
    run = folder.load()
    name, rounding = config.subject.policy, config.quantizer_rounding
    if not name and rounding == build.policy(run).rounding:
        # As trained: made anew, quantizers would lose what they have learned.
        rounding = None
    if rounding and not name and run.network.backbone.startswith(f"{FILE}:"):
        raise UserError(
            f"--policy is missing; --rounding={rounding} needs one, since the quantizers of "
            f"{run.network.backbone} may be its own; such as --policy=paper."
        )
    policy = _rounded(_policy(name, config.subject) if name else build.policy(run), rounding)
    method = run.method
    return Subject(
        model=build.trained_backbone(folder, policy if name or rounding else None),
        policy=policy,
        data=_data(config, run.data),
        results=folder.evaluation,
        title=f"{method.framework}, recipe {method.recipe}",
        name=f"{method.framework}, {method.recipe}",
        policy_name=_named(name or "as trained", config.subject, rounding),
        has_own_policy=name is None and rounding is None,
        views=run,
    )


def _policy(name: str, subject: SubjectSettings) -> Policy:
    policy = policy_named(name).with_layer_bits(subject.layer_bits)
    return dataclasses.replace(policy, per_channel=False) if subject.per_tensor else policy


def _rounded(policy: Policy, rounding: str | None) -> Policy:
    return policy if rounding is None else dataclasses.replace(policy, rounding=rounding)


def _named(policy: str, subject: SubjectSettings, rounding: str | None) -> str:
    parts = (
        policy,
        "per tensor" if subject.per_tensor else None,
        subject.layer_bits,
        f"rounding {rounding}" if rounding else None,
    )
    return ", ".join(part for part in parts if part)


def _model(config: EvaluationConfig) -> Subject:
    from tfcq.backbones.keras_models import application
    from tfcq.evaluation.classifier import policy_beside_classifier
    from tfcq.nn.float_model import requantizable
    from tfcq.nn.quantizable import QuantizableModel, load, quantizable

    subject, data = config.subject, _data(config, DataSettings(dataset=config.data.dataset))
    kind, _, name = subject.model.partition(":")
    if kind == APPLICATION:
        if data.image_size is None:
            raise UserError(f"--image_size is missing; --model={subject.model} needs it.")
        shape = (data.image_size, data.image_size, 3)
        classifier = subject.weights is not None and config.protocols() == ("classifier",)
        model = application(name, shape, subject.weights, classifier)
    else:
        model = load(subject.model)
    rounding = config.quantizer_rounding
    policy = _rounded(_policy(subject.policy or "paper", subject), rounding)
    _check_form(model, subject.model, adds_layers=config.protocols() != ("classifier",))
    own = isinstance(model, QuantizableModel) and subject.policy is None
    if own and rounding:
        raise UserError(
            f"--policy is missing; --rounding={rounding} needs one, since the quantizers of "
            f"{subject.model} are its own; such as --policy=paper."
        )
    policy = policy_beside_classifier(model, policy)
    policy_name = _named("the model's own" if own else policy.name, subject, rounding)
    if not isinstance(model, QuantizableModel):
        model = quantizable(model, policy)
    elif not own:
        model = requantizable(model, policy)
    folder = pathlib.Path(subject.output_dir)
    return Subject(
        model=model,
        policy=policy,
        data=data,
        results=folder,
        title=subject.model,
        name=subject.model if subject.weights is None else f"{subject.model}, {subject.weights}",
        policy_name=policy_name,
        has_own_policy=own,
        saved_quantizers=own,
    )


def _check_form(model: "keras.Model", name: str, adds_layers: bool) -> None:
    """Refuses a model that does not turn one image into one vector, or cannot take a classifier."""
    shapes = [len(model.inputs), len(model.outputs)]
    if shapes != [1, 1]:
        raise UserError(
            f"{name} has {shapes[0]} inputs and {shapes[1]} outputs; allowed: one of each."
        )
    taken, given = model.inputs[0].shape, model.outputs[0].shape
    if len(taken) != 4 or len(given) != 2 or given[-1] is None:
        raise UserError(
            f"{name} turns shape {tuple(taken)} into {tuple(given)}; allowed: [batch, height, "
            "width, channels] into [batch, width]. Add keras.layers.GlobalAveragePooling2D()."
        )
    for reserved in (CLASSIFIER, "standardized"):
        if adds_layers and any(layer.name == reserved for layer in model.layers):
            raise UserError(
                f"{name} has a layer named {reserved!r}, which a linear probe or fine-tuning adds; "
                "a classifier is scored with --protocol=classifier and exported with --classifier."
            )


def _data(config: EvaluationConfig, own: DataSettings) -> DataSettings:
    """Returns the data set asked for, or the run's own."""
    given = config.data
    chosen = own
    if given.dataset is not None and given.dataset != own.dataset:
        chosen = DataSettings(dataset=given.dataset)
        prepared = given.dataset != DIGITS and not given.dataset.startswith(FOLDER_PREFIX)
        if prepared:
            chosen = dataclasses.replace(chosen, data_dir=own.data_dir)
    changed = {
        name: getattr(given, name)
        for name in ("data_dir", "image_size", "train_images")
        if getattr(given, name) is not None
    }
    changed |= {n: True for n in ("download", "strict_data") if getattr(given, n)}
    return dataclasses.replace(chosen, **changed)
