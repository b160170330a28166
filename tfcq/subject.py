"""What an evaluation is about: the backbone of a run, or a model of the user's."""

import dataclasses
import pathlib
from typing import TYPE_CHECKING

from tfcq.backbones.names import APPLICATION
from tfcq.config import Config
from tfcq.data.names import DIGITS, FOLDER_PREFIX, check_dataset_name
from tfcq.errors import UserError
from tfcq.evaluation_settings import EvaluationConfig
from tfcq.nn.policies import Policy, policy_named
from tfcq.pretraining.recipes import recipe_named
from tfcq.run_folder import RunFolder
from tfcq.settings import DataSettings

if TYPE_CHECKING:
    from tfcq.nn.quantizable import QuantizableModel


@dataclasses.dataclass(frozen=True)
class Subject:
    """What is evaluated, on which data, and where results go.

    Args:
        model: quantizable model from images to features, or to logits.
        policy: how it is quantized.
        data: the data set.
        results: folder of the results.
        title: what it is called in pictures.
    """

    model: "QuantizableModel"
    policy: Policy
    data: DataSettings
    results: pathlib.Path
    title: str

    def check_classifier(self, classes: int) -> None:
        """Refuses a model that does not give a logit for every class.

        Args:
            classes: number of classes.

        Raises:
            UserError: when it does not.
        """
        shape = self.model.output_shape
        if len(shape) != 2 or shape[-1] != classes:
            raise UserError(
                f"Model {self.title!r} returns shape {shape} and the data have {classes} classes; "
                "allowed for the protocol 'classifier': a logit for each class."
            )


def check_subject(config: EvaluationConfig) -> None:
    """Refuses a subject or a data set that is not there, before TensorFlow's start-up.

    Args:
        config: the settings.

    Raises:
        UserError: saying what is missing.
    """
    subject = config.subject
    if config.data.dataset is not None:
        check_dataset_name(config.data.dataset)
    if subject.run_dir is not None:
        RunFolder(subject.run_dir).load()
        return
    kind, _, name = subject.model.partition(":")
    if kind == APPLICATION and name:
        return
    if not subject.model.endswith(".keras"):
        raise UserError(
            f"Unknown model {subject.model!r}; allowed: PATH.keras, or {APPLICATION}:NAME such as "
            f"{APPLICATION}:MobileNetV2."
        )
    if not pathlib.Path(subject.model).is_file():
        raise UserError(f"{subject.model} does not exist; allowed: a .keras file.")


def open_subject(config: EvaluationConfig) -> Subject:
    """Returns what an evaluation is about.

    Args:
        config: the settings.

    Raises:
        UserError: when it cannot be read, or not be quantized as asked for.
    """
    if config.subject.run_dir is not None:
        return _run(config)
    return _model(config)


def _run(config: EvaluationConfig) -> Subject:
    from tfcq import build

    folder = RunFolder(config.subject.run_dir)
    run = folder.load()
    name = config.subject.policy
    method = run.method
    return Subject(
        model=build.trained_backbone(folder, name),
        policy=policy_named(name) if name else _policy_of(run),
        data=_data(config, run.data),
        results=folder.evaluation,
        title=f"{method.framework}, recipe {method.recipe}",
    )


def _policy_of(run: Config) -> Policy:
    return recipe_named(run.method.recipe).policy_for(run.network.policy)


def _model(config: EvaluationConfig) -> Subject:
    from tfcq.backbones.keras_models import application
    from tfcq.nn.float_model import requantizable
    from tfcq.nn.quantizable import QuantizableModel, load, quantizable

    subject, data = config.subject, _data(config, DataSettings(dataset=config.data.dataset))
    kind, _, name = subject.model.partition(":")
    if kind == APPLICATION:
        if data.image_size is None:
            raise UserError(f"--image_size is missing; --model={subject.model} needs it.")
        model = application(name, (data.image_size, data.image_size, 3))
    else:
        model = load(subject.model)
    policy = policy_named(subject.policy or "paper")
    if not isinstance(model, QuantizableModel):
        model = quantizable(model, policy)
    elif subject.policy is not None:
        model = requantizable(model, policy)
    return Subject(model, policy, data, pathlib.Path(subject.output_dir), subject.model)


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
