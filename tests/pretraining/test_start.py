"""Weights of another run, and the backbone of a run that has not ended."""

import keras
import numpy as np
import pytest

from tfcq.backbones.build import backbone_from
from tfcq.errors import UserError
from tfcq.evaluation.run_subject import open_run
from tfcq.nn.quantizable import quantizable
from tfcq.pretraining.building import pretrainer_from
from tfcq.pretraining.start import give_start
from tfcq.settings.evaluation import evaluation_from_flat
from tfcq.settings.run_folder import RunFolder
from tfcq.settings.training import config_from_flat
from tfcq.training.checkpoints import RunCheckpoints

SHAPE = (8, 8, 1)
SMALL = {"backbone": "cifar_resnet8", "width": 2, "projection_width": 4, "predictor_width": 2,
         "train_images": 64, "batch_size": 32, "epochs": 2}  # fmt: skip


@pytest.fixture
def ended(tmp_path):
    """A run that has ended."""
    folder = RunFolder(tmp_path / "ended")
    config = config_from_flat(SMALL)
    folder.begin(config)
    keras.utils.set_random_seed(7)
    quantizable(backbone_from(config.network, SHAPE), "uniform").save(folder.backbone)
    return folder


def kernels(model):
    return {
        layer.name: np.asarray(layer.kernel)
        for layer in model.layers if hasattr(layer, "kernel")
    }  # fmt: skip


@pytest.mark.parametrize("framework", ["simsiam", "byol"])
def test_run_begins_with_the_weights_of_another_one_in_every_network(ended, framework):
    import tfcq

    values = {**SMALL, "framework": framework, "start": str(ended.path)}
    model = pretrainer_from(config_from_flat(values), SHAPE, steps=2)
    expected = kernels(tfcq.load(ended.backbone))
    moving = [] if model.momentum_network is None else [model.momentum_network.backbone]
    assert len(moving) == (framework == "byol")
    for network in (model.backbone, *moving):
        found = kernels(network)
        assert found.keys() == expected.keys()
        for name, kernel in expected.items():
            np.testing.assert_array_equal(found[name], kernel)
    goes_on = pretrainer_from(config_from_flat(values), SHAPE, steps=2, begins=False)
    assert any((kernels(goes_on.backbone)[name] != expected[name]).any() for name in expected)


def test_start_with_another_network_is_told(ended):
    for other in ({"width": 4}, {"backbone": "cifar_resnet14"}):
        network = config_from_flat({**SMALL, **other, "start": str(ended.path)}).network
        with pytest.raises(UserError, match="holds another network than cifar_resnet"):
            give_start(backbone_from(network, SHAPE), network)


@pytest.mark.parametrize("recipe", ["ssql", "cq_c"])
def test_checkpoint_of_an_unfinished_run_is_what_is_scored(tmp_path, recipe):
    folder, config = RunFolder(tmp_path), config_from_flat({**SMALL, "recipe": recipe})
    folder.begin(config)
    saved = []
    for epoch in range(2):
        keras.utils.set_random_seed(epoch)
        model = pretrainer_from(config, SHAPE, steps=2)
        RunCheckpoints(folder.checkpoints, model, 2).on_epoch_end(epoch)
        saved.append(kernels(model.backbone))
    for checkpoint, expected in (("latest", saved[1]), ("1", saved[0])):
        asked = evaluation_from_flat({"run_dir": str(tmp_path), "checkpoint": checkpoint})
        subject = open_run(asked, folder)
        assert subject.name.endswith(f", epoch {2 if checkpoint == 'latest' else 1}")
        for name, kernel in kernels(subject.model).items():
            np.testing.assert_array_equal(kernel, expected[name])
        subject.check_weights()
    with pytest.raises(UserError, match="--checkpoint=latest scores it as it is"):
        open_run(evaluation_from_flat({"run_dir": str(tmp_path)}), folder)
    with pytest.raises(UserError, match="--checkpoint has no effect here"):
        evaluation_from_flat({"model": "a.keras", "checkpoint": "latest"})
