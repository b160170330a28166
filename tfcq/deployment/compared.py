"""How the outputs of an exported file agree with those of its simulation and of the network."""

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np

from tfcq.deployment.backends import Made
from tfcq.deployment.check import compare, median_seconds
from tfcq.deployment.verify import class_figures
from tfcq.evaluation.evaluation import Evaluation, open_subject
from tfcq.evaluation.features import FeatureExtractor
from tfcq.evaluation.probe import fit_linear_probe
from tfcq.integer.emulation import kernels_of
from tfcq.integer.runtime import LiteModel
from tfcq.nn.quantizable import QuantizableModel
from tfcq.post_training.plan import Plan, PostTraining, Quantized
from tfcq.settings.bitwidths import FLOAT
from tfcq.settings.protocol_groups import PostTrainingSettings

Scores = Callable[[np.ndarray], np.ndarray]
_PAIRS = (
    ("int8", "simulation"),
    ("int8", "float"),
    ("int8", "simulation_as_trained"),
    ("simulation", "float"),
)


def compared_outputs(
    evaluation: Evaluation,
    model: QuantizableModel,
    made: Made,
    contents: dict[str, bytes],
    probe: bool,
) -> dict[str, Any]:
    """Returns how outputs agree, top-1 of each, by kernels too, and milliseconds per image.

    Args:
        evaluation: subject and data.
        model: the network that was written.
        made: its file, and what its maker knows of it.
        contents: the bytes of each file, `"int8"` and `"float"`.
        probe: whether a probe is part of the network.
    """
    data, (bits,) = evaluation.data, evaluation.bit_widths
    images, float_features = data.test_images, FeatureExtractor(model)
    lite = {name: LiteModel(content) for name, content in contents.items()}
    outputs = {
        "int8": lite["int8"](images),
        "simulation": made.simulated,
        "float": float_features(images, FLOAT),
    }
    lite["float"](images[:1])
    if made.simulated is None:
        del outputs["simulation"]
    if probe or evaluation.config.scores_logits:
        own: Scores = _unchanged
        scores = own
    else:
        # What agrees is seen under one probe; the float network's accuracy under its own.
        own = _probe(evaluation, float_features(data.train_images, FLOAT))
        scores = _probe(evaluation, made.extract(data.train_images)) if made.extract else own
    trained = None if probe or made.levels is None else _as_trained(evaluation)
    if trained is not None:
        outputs["simulation_as_trained"] = FeatureExtractor(trained.model)(images, bits)
    seconds = median_seconds({name: model.invoke for name, model in lite.items()})
    seconds = {name: seconds[name] / model.batch for name, model in lite.items()}
    classes = {name: scores(found).argmax(axis=1) for name, found in outputs.items()}
    if len(np.unique(classes["float"])) == 1:
        print("The float model finds the same class in every image: agreement says little.")
    return {
        **{
            f"{a}_against_{b}": dataclasses.asdict(compare(outputs[a], outputs[b], scores))
            for a, b in _PAIRS
            if a in outputs and b in outputs
        },
        "top1": {
            name: float(np.mean(found == data.test_labels))
            for name, found in {**classes, "float": own(outputs["float"]).argmax(axis=1)}.items()
            if name in ("int8", "simulation", "float")
        },
        "by_kernels": class_figures(
            {
                kernels: scores(LiteModel(contents["int8"], kernels=kernels)(images))
                for kernels in kernels_of(made.file)
            },
            data.test_labels,
        ),
        "milliseconds_per_image": {name: 1000 * value for name, value in seconds.items()},
    }


def _probe(evaluation: Evaluation, features: np.ndarray) -> Scores:
    """Returns a linear probe of the features of the training images."""
    data = evaluation.data
    return fit_linear_probe(features, data.train_labels, data.classes, seed=evaluation.seed).logits


def _unchanged(outputs: np.ndarray) -> np.ndarray:
    return outputs


def _as_trained(evaluation: Evaluation) -> Quantized | None:
    """Returns the subject with quantizers of its own; None where it has none."""
    config = evaluation.config
    if not evaluation.subject.came_quantizable:
        return None
    own = dataclasses.replace(config.subject, policy=None, layer_bits=None, per_tensor=False)
    subject = open_subject(
        dataclasses.replace(config, subject=own, post_training=PostTrainingSettings())
    )
    if not subject.has_own_policy:
        return None
    plain = PostTraining(subject.model, evaluation.calibration_images, Plan())
    return plain.at(*evaluation.bit_widths)
