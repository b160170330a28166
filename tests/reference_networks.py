"""The network of the reference vectors as our Pretrainer, and the names of both sides."""

import keras
import numpy as np
import tensorflow as tf

from tfcq.backbones.resnet import resnet

# A bias right before a batch norm moves only the running mean; our projectors leave it out.
FROZEN_BIASES = ("param/encoder_q.fc.6.bias", "param/encoder_k.fc.6.bias")
MOMENTUM = 0.99


def reference_backbone():
    """Returns the small CIFAR ResNet of the vectors."""
    return resnet(18, width=4, blocks=(1, 1, 1, 1))


def our_key(reference_key: str) -> tuple[str, str, str]:
    """Translates a name of the reference into (network, layer, variable)."""
    module, kind = reference_key.split("/")[1].rsplit(".", 1)
    network, _, rest = module.partition(".")
    if network == "predictor":
        layer = {"0": "predictor_dense1", "1": "predictor_norm1", "3": "predictor_dense2"}[rest]
    else:
        layer = _layer(rest)
    if "norm" in layer:
        names = {"weight": "gamma", "bias": "beta"}
    else:
        names = {"weight": "kernel", "bias": "bias"}
    names |= {"running_mean": "moving_mean", "running_var": "moving_variance"}
    return "target" if network == "encoder_k" else "online", layer, names[kind]


def _layer(module: str) -> str:
    # The quantized encoder calls its batch norms `bn_function`, the momentum one as PyTorch does.
    parts = module.split(".")
    norm = parts[-1] == "bn_function"
    parts = parts[:-1] if norm else parts
    if parts[0] == "fc":
        index = int(parts[1])
        return f"projector_{'norm' if norm or index % 3 else 'dense'}{index // 3 + 1}"
    if parts[0] in ("conv1", "bn1"):
        return "stem_norm" if norm or parts[0] == "bn1" else "stem"
    stage, block, branch = parts[0].removeprefix("layer"), int(parts[1]) + 1, parts[2]
    if branch == "downsample":
        norm = norm or parts[3:] == ["1"]
        branch = "shortcut"
    elif branch.startswith("bn"):
        norm, branch = True, f"conv{branch[2]}"
    return f"stage{stage}_block{block}_{branch}{'_norm' if norm else ''}"


def variables_of(pretrainer) -> dict[tuple[str, str, str], object]:
    """Returns every variable by (network, layer, variable)."""
    framework, momentum = pretrainer.framework, pretrainer.momentum_network
    networks = {"online": [pretrainer.backbone, framework.projector, framework.predictor]}
    if momentum is not None:
        networks["target"] = [momentum.backbone, momentum.projector]
    return {
        (network, layer.name, variable.name): variable
        for network, models in networks.items()
        for model in models
        for layer in model.layers
        for variable in layer.variables
    }


def set_state(variables, vectors) -> None:
    """Gives every variable the value it has before the reference's step."""
    for key, value in vectors.items():
        if key.startswith(("param/", "stat_before/")) and key not in FROZEN_BIASES:
            variables[our_key(key)].assign(value)


def run_step(pretrainer, vectors, in_graph: bool):
    """Takes a training step; returns its loss and the gradients that it followed."""
    # Of rate 1 and without momentum, so that the weights tell the gradient.
    pretrainer.compile(keras.optimizers.SGD(1.0))
    before = [variable.numpy() for variable in pretrainer.trainable_variables]
    views = tf.constant(vectors["x1"]), tf.constant(vectors["x2"])
    step = tf.function(pretrainer.train_step) if in_graph else pretrainer.train_step
    loss = step(views)["loss"]
    bits = [vectors["weight_bits"], vectors["activation_bits"]]
    assert pretrainer.bits.numpy().tolist() == [bits]
    after = pretrainer.trainable_variables
    return loss, {id(v): old - v.numpy() for v, old in zip(after, before, strict=True)}


def distance(ours, theirs) -> float:
    """Returns the largest absolute difference."""
    return float(np.max(np.abs(np.asarray(ours) - theirs)))


def values_per_channel(layer: str, vectors) -> int:
    """Returns how many values of one channel a batch norm of the reference network sees."""
    batch, size = vectors["x1"].shape[:2]
    stage = int(layer[5]) if layer.startswith("stage") else 1
    image = layer.startswith(("stage", "stem"))
    return batch * (size // 2 ** (stage - 1)) ** 2 if image else batch


def as_reference_statistic(ours, key: str, vectors, passes: int):
    """Returns a running statistic of ours as PyTorch would have it after so many passes."""
    _, layer, name = our_key(key)
    kept = 0.9**passes
    before = kept * vectors[key.replace("stat_after", "stat_before")]
    ours = np.array(ours)
    if name == "moving_variance":
        # Keras averages the biased variance of each batch, PyTorch the unbiased one.
        count = values_per_channel(layer, vectors)
        return before + (ours - before) * count / (count - 1)
    if layer == "projector_norm3":
        return ours + (1 - kept) * _frozen_bias(key, vectors)
    return ours


def _frozen_bias(key: str, vectors):
    """Returns the bias before the projector's last batch norm, as the step's passes saw it."""
    online = vectors["param/encoder_q.fc.6.bias"]
    if not key.startswith("stat_after/encoder_k"):
        return online
    return MOMENTUM * vectors["param/encoder_k.fc.6.bias"] + (1 - MOMENTUM) * online
