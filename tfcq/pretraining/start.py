"""A network that starts with the weights of another run, or of a file."""

import keras

from tfcq.backbones.public_models import check_channels, give_checkpoint
from tfcq.errors import UserError
from tfcq.nn.copied_weights import copy_weights
from tfcq.nn.loading import load
from tfcq.settings.backbones import FILE
from tfcq.settings.checkpoints import is_checkpoint
from tfcq.settings.run_folder import start_file
from tfcq.settings.training_groups import NetworkSettings


def check_start(network: NetworkSettings, channels: int) -> None:
    """Refuses images that the network of a public file of weights does not take.

    Args:
        network: settings of the network.
        channels: channels of the images.

    Raises:
        UserError: naming the channels of both.
    """
    if is_checkpoint(network.start):
        check_channels(str(network.start), channels)


def give_start(backbone: keras.Model, network: NetworkSettings) -> None:
    """Gives a backbone the weights that its settings let it start with, if they name any.

    Args:
        backbone: the backbone.
        network: its settings.

    Raises:
        UserError: when they cannot be read, or are of another network.
    """
    if network.start is None or network.backbone == f"{FILE}:{network.start}":
        return
    if is_checkpoint(network.start):
        told = give_checkpoint(backbone, network.start, network)
        print(f"Weights of {network.start}: {told}", flush=True)
        return
    try:
        copy_weights(load(start_file(network.start)), backbone)
    except ValueError as error:
        raise UserError(
            f"--start={network.start} holds another network than {network.backbone} ({error}); "
            "leave out the settings of the network, which then are those of --start."
        ) from None
