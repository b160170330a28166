"""What shows a training to people: TensorBoard, a tracker of experiments, the profiler."""

import keras

from tfcq.data.split import Split
from tfcq.nn.quantizable import QuantizableModel
from tfcq.pretraining.first_views import first_views, grid
from tfcq.settings.fields import flat
from tfcq.settings.profiling import ProfiledSteps
from tfcq.settings.run_folder import RunFolder
from tfcq.settings.training import Config
from tfcq.training.network_summaries import NetworkSummaries
from tfcq.training.profiling import Profile
from tfcq.training.trackers import tracker


def observers(
    used: Config,
    folder: RunFolder,
    split: Split,
    backbone: QuantizableModel,
    steps: tuple[int, int],
    profile: ProfiledSteps | None = None,
) -> list[keras.callbacks.Callback]:
    """Returns the callbacks of a training that change nothing in it.

    Args:
        used: what the run uses.
        folder: where they write.
        split: the images.
        backbone: the network that is trained.
        steps: how many are done, and of the run.
        profile: steps to profile.

    Raises:
        UserError: when a tracker is not installed, or these steps are not made.
    """
    done, total = steps
    draw = None if done else lambda: grid(first_views(used, split).values())
    found = [
        keras.callbacks.TensorBoard(folder.tensorboard, write_graph=False),
        NetworkSummaries(folder.tensorboard / "network", backbone, draw),
    ]
    if profile is not None:
        found.append(Profile(folder.tensorboard, profile, done, total))
    if name := used.execution.tracker:
        found.append(tracker(name, folder.tracked_run, folder.path.name, flat(used)))
    return found
