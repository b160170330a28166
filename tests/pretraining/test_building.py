"""What settings make of the model that is trained."""

import keras
import pytest
import tensorflow as tf
from keras import layers

from tfcq.errors import UserError
from tfcq.nn.quantizable import QuantizableModel, quantizable, quantizers_of
from tfcq.pretraining import building
from tfcq.pretraining.building import built, pretrainer_from
from tfcq.pretraining.run import training_split
from tfcq.quantization.kinds import WEIGHT_QUANTIZERS
from tfcq.settings.training import config_from_flat, policy

SHAPE = (8, 8, 1)


def test_every_setting_of_the_method_reaches_the_pretrainer():
    heads = {"projection_width": 4, "projection_hidden": 6}
    byol = {
        "framework": "byol", "predictor_width": 2, "regression_loss": "negative_cosine",
        "target_momentum": 0.5, "target_momentum_schedule": "constant",
        "target_update": "before_targets", "recipe": "cq_c", "precision_set": "3-5",
        "bit_schedule": "cyclic", "loss_reduction": "sum", "batch_norm": "shuffled", "xla": True,
    }  # fmt: skip
    small = {"backbone": "cifar_resnet8", "width": 2, "seed": 6, "epochs": 3, **heads}
    model = pretrainer_from(config_from_flat({**small, **byol}), SHAPE, steps=4)
    schedule, framework = model.bit_schedule, model.framework
    assert model.recipe.name == "cq_c"
    assert (schedule.kind, schedule.seed, schedule.same_bits) == ("cyclic", 6, True)
    assert schedule.weight_choices == schedule.activation_choices == (3, 4, 5)
    assert (model.loss_reduction, model.shuffle_keys, model.jit_compile) == ("sum", True, True)
    assert (int(model.steps_per_epoch.value), int(model.total_steps.value)) == (4, 12)
    for name in ("target_momentum", "target_momentum_schedule", "target_update", "regression_loss"):
        assert getattr(framework, name) == byol[name]
    assert framework.projector.output_shape == (None, 4)
    assert framework.projector.get_layer("projector_dense1").units == 6
    assert framework.predictor.get_layer("predictor_dense1").units == 2
    moving = model.momentum_network
    assert [id(network) for network in model.networks] == [
        id(network)
        for network in (model.backbone, framework.projector, framework.predictor,
                        moving.backbone, moving.projector)
    ]  # fmt: skip

    simclr = {
        "framework": "simclr", "temperature": 0.3, "weight_bits": "3", "activation_bits": "5-6",
        "error_correlation": True, "batch_norm": "synchronized", "policy": "uniform",
        "weight_quantizer": "lsq", "product_dtype": "bfloat16", "accumulate": 2,
    }  # fmt: skip
    model = pretrainer_from(config_from_flat({**small, **simclr}), SHAPE, steps=4)
    assert model.framework.temperature == 0.3
    assert model.bit_schedule.weight_choices == (3,)
    assert model.bit_schedule.activation_choices == (5, 6)
    assert model.figures.correlated and not model.shuffle_keys
    assert len(model.networks) == 2 and model.accumulate == 2
    kernels = [layer for one in model.networks for layer in one.layers if hasattr(layer, "kernel")]
    assert {layer.product_dtype for layer in kernels} == {"bfloat16"}
    weights = quantizers_of(model.backbone, "weight_quantizer").values()
    assert {type(one) for one in weights} == {WEIGHT_QUANTIZERS["lsq"]}
    for network in model.networks:
        norms = [x for x in network.layers if isinstance(x, layers.BatchNormalization)]
        assert all(norm.synchronized for norm in norms)


def test_settings_reach_pre_training(monkeypatch):
    values = {
        "framework": "byol", "recipe": "cq_c", "seed": 5, "loss_reduction": "sum",
        "bit_schedule": "list", "precision_set": "4,8", "error_correlation": True,
        "projection_width": 8, "predictor_width": 4, "target_momentum": 0.8,
        "batch_norm": "shuffled", "layer_bits": "stem:8w8a", "accumulate": 2,
    }  # fmt: skip
    network = {"backbone": "cifar_resnet8", "width": 2}
    config, given = config_from_flat({**values, **network}), {}

    class Built(Exception):
        pass

    def pretrainer(backbone, **settings):
        given.update(settings)
        raise Built

    monkeypatch.setattr(building, "Pretrainer", pretrainer)
    with pytest.raises(Built):
        pretrainer_from(config, SHAPE, steps=2)
    expected = {name: values[name] for name in set(values) - {"batch_norm", "layer_bits"}}
    assert expected | {
        "weight_bits": None, "activation_bits": None, "policy": policy(config),
        "shuffle_keys": True,
    } == given  # fmt: skip


def test_backbone_of_an_earlier_run_goes_on_with_its_own_quantizers(tmp_path):
    keras.utils.set_random_seed(0)
    float_model = keras.Sequential(
        [keras.Input(SHAPE), layers.Conv2D(3, 3), layers.GlobalAveragePooling2D()]
    )
    path = tmp_path / "backbone.keras"
    quantizable(float_model, "uniform").save(path)
    heads = {"projection_width": 4, "predictor_width": 2}
    values = {"backbone": f"file:{path}", **heads}
    model = pretrainer_from(config_from_flat(values), SHAPE, steps=2)
    assert isinstance(model.backbone, QuantizableModel)
    with pytest.raises(UserError, match="--policy has no effect here: file:.* quantizable already"):
        pretrainer_from(config_from_flat({**values, "policy": "paper"}), SHAPE, steps=2)


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"steps_per_execution": 4}, "does not divide the 3 steps of an epoch"),
     ({"accumulate": 3}, "multiples of 3")],
    ids=str,
)  # fmt: skip
def test_batches_are_refused_before_the_network_is_built(settings, message, monkeypatch):
    monkeypatch.setattr(building, "pretrainer_from", lambda *_: pytest.fail("was built"))
    config = config_from_flat({"train_images": 100, "batch_size": 32, "epochs": 4, **settings})
    with pytest.raises(UserError, match=message):
        built(config, frozenset(), training_split(config.data), tf.distribute.get_strategy(), True)


def test_losses_are_scaled_where_products_are_float16():
    values = {"backbone": "cifar_resnet8", "width": 2, "projection_width": 4, "predictor_width": 2}

    def optimizer(dtype):
        settings = config_from_flat({**values, "product_dtype": dtype})
        return pretrainer_from(settings, SHAPE, steps=2).optimizer

    assert isinstance(optimizer("float16"), keras.optimizers.LossScaleOptimizer)
    assert not isinstance(optimizer("bfloat16"), keras.optimizers.LossScaleOptimizer)
