"""A model of the user's, or of keras.applications, as what is evaluated."""

import dataclasses
import pathlib

import keras

from tfcq.backbones.keras_models import application
from tfcq.backbones.public_models import model_from_checkpoint
from tfcq.errors import UserError
from tfcq.evaluation.classifier import CLASSIFIER, policy_beside_classifier
from tfcq.evaluation.records import weights_fingerprint
from tfcq.evaluation.subject import Subject, at_policy, chosen_data, chosen_policy, policy_in_words
from tfcq.nn.float_model import requantizable
from tfcq.nn.input_range import found_input_range, known_input_range, with_unit_input
from tfcq.nn.loading import load
from tfcq.nn.quantizable import QuantizableModel, check_graph, check_names, quantizable
from tfcq.settings.backbones import APPLICATION, NORMALIZATION, UNIT_RANGE
from tfcq.settings.checkpoints import is_checkpoint
from tfcq.settings.evaluation import EvaluationConfig
from tfcq.settings.training_groups import DataSettings


@dataclasses.dataclass(frozen=True)
class ModelSubject(Subject):
    """A model that was no run of ours."""

    @property
    def saved_quantizers(self) -> bool:
        """Whether its quantizers come from a file, so that no policy tells of them."""
        return self.has_own_policy


def open_model(config: EvaluationConfig) -> ModelSubject:
    """Returns a model of the user's, quantized as asked for or with the quantizers it has.

    Args:
        config: the settings.

    Raises:
        UserError: when it cannot be read, or not be quantized as asked for.
    """
    subject, title = config.subject, str(config.subject.model)
    data = chosen_data(config.data, DataSettings(dataset=str(config.data.dataset)))
    kind, _, name = title.partition(":")
    if kind == APPLICATION:
        if data.image_size is None:
            raise UserError(f"--image_size is missing; --model={title} needs it.")
        shape = (data.image_size, data.image_size, 3)
        with_logits = subject.weights is not None and config.scores_logits
        model = application(name, shape, subject.weights, with_logits)
    elif is_checkpoint(title):
        given = {name: getattr(subject, name) for name in NORMALIZATION}
        given = {name: value for name, value in given.items() if value is not None}
        model, told = model_from_checkpoint(title, data.image_size, given, config.scores_logits)
        print(f"{title}: {told}", flush=True)
    else:
        model = load(title)
    _check_form(model, title, adds_layers=not config.scores_logits)
    input_range = UNIT_RANGE
    known = kind == APPLICATION or is_checkpoint(title)
    found = None if known else subject.input_range or found_input_range(model)
    if not known:
        input_range = known_input_range(model, found)
        how = "" if found else ", assumed since its first layers do not tell; see --input_range"
        print(f"{title} takes pixels in {input_range}{how}.", flush=True)
    rounding = config.quantizer_rounding
    policy = chosen_policy(subject.policy or "paper", subject, rounding)
    came_quantizable = isinstance(model, QuantizableModel)
    own = came_quantizable and subject.policy is None
    if own and rounding:
        raise UserError(
            f"--policy is missing; --rounding={rounding} needs one, since the quantizers of "
            f"{title} are its own; such as --policy=paper."
        )
    policy = policy_beside_classifier(model, policy)
    policy_name = policy_in_words("the model's own" if own else policy.name, subject, rounding)
    model = with_unit_input(model, input_range)
    weights, network = weights_fingerprint(model), model
    if not own:
        make = requantizable if came_quantizable else quantizable
        model, weights = at_policy(model, policy, make)
    return ModelSubject(
        model=model,
        weights=weights,
        network=network,
        policy=policy,
        data=data,
        results=pathlib.Path(str(subject.output_dir)),
        title=title,
        name=title if subject.weights is None else f"{title}, {subject.weights}",
        policy_name=policy_name,
        has_own_policy=own,
        input_range=input_range,
        assumed_range=not known and found is None,
        came_quantizable=came_quantizable,
    )


def _check_form(model: keras.Model, name: str, adds_layers: bool) -> None:
    """Refuses a model that does not turn one image into one vector, or cannot take a classifier."""
    check_graph(model)
    check_names(model)
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
