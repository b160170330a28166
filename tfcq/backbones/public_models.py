"""A network of ours with the weights of a public file."""

import dataclasses
from typing import Any

import keras

from tfcq.backbones.build import backbone_from
from tfcq.backbones.checkpoint_files import CheckpointFile, read_checkpoint
from tfcq.backbones.public_names import HEADS, layer_name
from tfcq.backbones.public_networks import (
    TAKEN,
    PublicNetwork,
    network_in,
    network_of_checkpoint,
)
from tfcq.backbones.public_weights import give_public_weights, in_one_line
from tfcq.errors import UserError
from tfcq.settings.training_groups import NetworkSettings


def model_from_checkpoint(
    path: str, image_size: int | None, given: dict[str, Any], classifier: bool = False
) -> tuple[keras.Model, str]:
    """Returns the network of a public file, of images in [0, 1], and a line that tells of it.

    Args:
        path: the file.
        image_size: height and width of the images in pixels; None for those that the file tells.
        given: settings of the network that the user set, such as `input_mean`.
        classifier: whether it returns logits of the file's classifier, instead of features.

    Raises:
        UserError: when the file does not hold such a network, or nobody tells the size.
    """
    file = read_checkpoint(path)
    network, found = network_of_checkpoint(file, given)
    size = image_size or network.size
    if size is None:
        raise UserError(f"--image_size is missing; --model={path} needs it.")
    settings = NetworkSettings(**{**found, **given})
    classes = _classes(file, network) if classifier else 0
    model = backbone_from(settings, (size, size, network.channels))
    if classes:
        logits = keras.layers.Dense(classes, name=HEADS[0])(model.outputs[0])
        model = keras.Model(model.inputs[0], logits, name=model.name)
    left = give_public_weights(model, file, network)
    return model, _in_words(file, network, settings, left)


def give_checkpoint(backbone: keras.Model, path: str, settings: NetworkSettings) -> str:
    """Gives a backbone the weights of a public file, and returns a line that tells of it.

    Args:
        backbone: the backbone.
        path: the file.
        settings: those of the backbone, which are the file's.

    Raises:
        UserError: when the file does not hold all its weights.
    """
    file = read_checkpoint(path)
    chosen = {n: v for n, v in dataclasses.asdict(settings).items() if n in TAKEN and v is not None}
    network, _ = network_of_checkpoint(file, chosen)
    return _in_words(file, network, settings, give_public_weights(backbone, file, network))


def check_channels(path: str, channels: int) -> None:
    """Refuses images that the network of a public file does not take.

    Args:
        path: the file.
        channels: channels of the images.

    Raises:
        UserError: naming both numbers.
    """
    taken = network_in(read_checkpoint(path)).channels
    if taken != channels:
        hint = f" --channels={taken} turns them." if {taken, channels} == {1, 3} else ""
        raise UserError(
            f"Images have {channels} channels, and the network of {path} takes {taken}; allowed: "
            f"images of {taken}.{hint}"
        )


def _in_words(
    file: CheckpointFile, network: PublicNetwork, settings: NetworkSettings, left: list[str]
) -> str:
    """Returns what was found in a file, and the names that were left over, in one line."""
    kind = " ".join(f"--{name}={getattr(settings, name)}" for name in network.settings)
    place = f" in {network.prefix.removesuffix('.')}" if network.prefix else ""
    mean, deviation = settings.input_mean, settings.input_std
    pixels = f"--input_mean={mean} --input_std={deviation}" if mean else "images in [0, 1]"
    untold = "" if "input_mean" in file.metadata else ", which the file does not tell"
    return f"{kind}{place}, {pixels}{untold}; {in_one_line(left)}."


def _classes(file: CheckpointFile, network: PublicNetwork) -> int:
    """Returns the classes of the dense layer that public classifiers have behind their features."""
    name = layer_name(network.family, network.library, HEADS[0])
    kernel = file.tensors.get(f"{network.prefix}{name}.weight")
    if kernel is None or len(kernel.shape) != 2:
        raise UserError(
            f"{file.path} holds no classifier {name or 'behind the features'!r}; allowed: a file "
            "of a classifier, or a protocol that scores features, such as --protocol=linear."
        )
    return kernel.shape[0]
