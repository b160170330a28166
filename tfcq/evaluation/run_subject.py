"""The backbone of a run as what is evaluated."""

import dataclasses

from absl import logging

from tfcq.data.augmentation import Augmentation, augmentation_from
from tfcq.errors import UserError
from tfcq.evaluation.records import weights_fingerprint
from tfcq.evaluation.subject import (
    Subject,
    at_policy,
    chosen_data,
    chosen_policy,
    policy_in_words,
    rounded,
)
from tfcq.nn.activation_ranges import is_trained_quantized, mark_trained
from tfcq.nn.float_model import requantizable
from tfcq.nn.loading import load
from tfcq.nn.quantizable import QuantizableModel
from tfcq.pretraining.run import backbone_at
from tfcq.settings.backbones import FILE
from tfcq.settings.evaluation import EvaluationConfig
from tfcq.settings.frameworks import FRAMEWORK_SETTINGS
from tfcq.settings.policies import Policy
from tfcq.settings.recipes import recipe_named
from tfcq.settings.run_folder import RunFolder
from tfcq.settings.run_position import RunPosition
from tfcq.settings.training import Config, policy
from tfcq.settings.training_groups import ViewSettings


@dataclasses.dataclass(frozen=True)
class RunSubject(Subject):
    """The backbone of a run.

    Args:
        views: how the run augmented its views.
    """

    views: ViewSettings = ViewSettings()

    def standard_augmentation(self, size: int, channels: int) -> Augmentation:
        """Returns how the run augmented its views.

        Args:
            size: height and width of the images, in pixels.
            channels: number of channels.
        """
        return augmentation_from(self.views, size, channels)


def open_run(config: EvaluationConfig, folder: RunFolder) -> RunSubject:
    """Returns the backbone of a run, quantized as asked for or the way it was trained.

    Args:
        config: the settings.
        folder: the run.

    Raises:
        UserError: when it cannot be read, or not be quantized as asked for.
    """
    checkpoint = config.subject.checkpoint
    run = folder.load() if checkpoint is None else folder.load_unfinished()
    position = None if checkpoint is None else folder.position_of(checkpoint)
    name, rounding = config.subject.policy, config.quantizer_rounding
    if not name and rounding == policy(run).rounding:
        # As trained: made anew, quantizers would lose what they have learned.
        rounding = None
    of_file = run.network.backbone.startswith(f"{FILE}:") and run.network.policy is None
    if rounding and not name and of_file:
        raise UserError(
            f"--policy is missing; --rounding={rounding} needs one, since the quantizers of "
            f"{run.network.backbone} may be its own; such as --policy=paper."
        )
    own = rounded(policy(run), rounding)
    chosen = chosen_policy(name, config.subject, rounding) if name else own
    method = run.method
    after = "" if position is None else f", epoch {position}"
    images, held_out = run.data, config.data.holdout
    if held_out is not None and images.holdout is None and "train_images" not in folder.asked(run):
        # All that there were, of which some are tested on now.
        images = dataclasses.replace(images, train_images=None)
    data = chosen_data(config.data, images)
    if data.holdout != run.data.holdout and data.dataset == run.data.dataset:
        logging.warning("The run was trained on the images that --holdout takes to test on, too.")
    model = trained_backbone(folder, run, position=position)
    weights, network = weights_fingerprint(model), model
    if name or rounding:
        model, weights = at_policy(model, chosen, requantizable)
    return RunSubject(
        model=model,
        weights=weights,
        network=network,
        policy=chosen,
        data=data,
        results=folder.evaluation,
        title=f"{method.framework}, recipe {method.recipe}{after}",
        name=f"{method.framework}, {method.recipe}{after}",
        policy_name=policy_in_words(name or "as trained", config.subject, rounding),
        has_own_policy=name is None and rounding is None,
        views=run.views,
    )


def trained_backbone(
    folder: RunFolder,
    run: Config,
    policy: str | Policy | None = None,
    position: RunPosition | None = None,
) -> QuantizableModel:
    """Returns the backbone of a run.

    Args:
        folder: the run.
        run: its settings.
        policy: how it is quantized instead of the way it was trained; None for that way.
        position: of the checkpoint that it is taken from; None for its end.

    Raises:
        UserError: when it cannot be read, or not be quantized so.
    """
    model = load(folder.backbone) if position is None else backbone_at(run, folder, position)
    target_network = "target_momentum" in FRAMEWORK_SETTINGS[run.method.framework]
    passes = recipe_named(run.method.recipe).online_passes(target_network)
    if not any(one.is_float for one in passes) and not is_trained_quantized(model):
        # A file of before that was noted.
        mark_trained(model, quantized=True)
    return model if policy is None else requantizable(model, policy)
