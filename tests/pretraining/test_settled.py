"""What config.json records once images and network are known."""

import contextlib

import pytest

from tfcq.backbones.cifar_resnet import cifar_resnet
from tfcq.data.sources import open_source
from tfcq.errors import UserError
from tfcq.nn.quantizable import quantizable
from tfcq.pretraining.building import pretrainer_from
from tfcq.pretraining.settled import in_words, settled
from tfcq.settings.fields import flat
from tfcq.settings.run_folder import RunFolder
from tfcq.settings.training import config_from_flat

SMALL = {"backbone": "cifar_resnet8", "width": 2, "projection_width": 4, "predictor_width": 2,
         "batch_size": 32}  # fmt: skip
SPLIT = open_source("digits").split("train").first(100)
STEPS = 3


def settle(**values):
    config = config_from_flat({**SMALL, **values})
    size = config.data.image_size or 8
    model = pretrainer_from(config, (size, size, 1), STEPS)
    return settled(config, SPLIT, STEPS, model), model


def test_images_views_and_length_are_what_was_used():
    found = flat(settle(flip=0.25)[0])
    expected = {"image_size": 8, "train_images": 100, "crop_area": "0.4-1.0", "flip": 0.25,
                "brightness": 0.4, "saturation": 0.0, "blur": 0.0, "epochs": 100}  # fmt: skip
    assert {name: found[name] for name in expected} == expected
    lengths = [(one.epochs, one.duration) for duration in ("6steps", "7steps", "96examples")
               for one in [settle(duration=duration)[0].optimization]]  # fmt: skip
    assert lengths == [(2, None), (3, "7steps"), (1, None)]


def test_what_has_no_part_in_the_run_stays_open():
    plain = flat(settle(recipe="cq_quant")[0])
    assert plain["flip"] is plain["crop_area"] is None
    fixed = flat(settle(policy="weights_8_bit")[0])
    assert (fixed["weight_bits"], fixed["activation_bits"]) == (None, None)
    transformer, _ = settle(backbone="vit_tiny", width=12, image_size=14)
    assert transformer.network.patch_size == 2


@pytest.mark.parametrize(
    "values",
    [{}, {"recipe": "cq_c"}, {"recipe": "pact"}, {"framework": "byol", "recipe": "float"},
     {"policy": "weights_8_bit"}, {"scale_learning_rate": True, "warmup": "1"},
     {"layer_bits": "stem:4w4a", "weight_quantizer": "lsq", "duration": "7steps"}],
)  # fmt: skip
def test_run_of_what_was_recorded_is_the_run_that_was_asked_for(values):
    recorded, model = settle(**values)
    assert settled(recorded, SPLIT, STEPS, model) == recorded
    again = pretrainer_from(recorded, (8, 8, 1), STEPS)
    assert again.backbone.get_config() == model.backbone.get_config()
    assert again.recipe.pairs == model.recipe.pairs
    assert vars(again.bit_schedule) == vars(model.bit_schedule)
    rates = [one.optimizer.get_config()["learning_rate"] for one in (model, again)]
    assert str(rates[0]) == str(rates[1])


def test_first_line_of_a_run_says_what_is_trained_on_what():
    heads = {"framework": "simclr", "projection_hidden": 4, "predictor_width": None}
    found, model = settle(**heads, recipe="cq_c")
    float_model = cifar_resnet(8, width=2, input_shape=(8, 8, 1))
    parameters = sum(weight.numpy().size for weight in float_model.trainable_weights)
    assert in_words(found, 1, model) == (
        f"digits, 100 images of 8x8x1; cifar_resnet8, width 2, {parameters:,} "
        "parameters; simclr, recipe cq_c, policy contrastive_quant, batch 32"
    )
    found, model = settle(backbone="resnet18")
    assert "; resnet18, stem cifar, width 2, " in in_words(found, 1, model)


def test_policy_of_a_file_is_recorded_unless_it_has_quantizers_of_its_own(tmp_path):
    network = cifar_resnet(8, width=2, input_shape=(8, 8, 1))
    for name, model in {"float": network, "quantizable": quantizable(network, "uniform")}.items():
        model.save(tmp_path / f"{name}.keras")
    told = {"float": "paper", "quantizable": None}
    for name, policy in told.items():
        found, model = settle(backbone=f"file:{tmp_path / name}.keras", width=None)
        assert found.network.policy == policy
        assert f"policy {policy or 'of its file'}, " in in_words(found, 1, model)
        assert settled(found, SPLIT, STEPS, model) == found


@pytest.mark.parametrize(
    ("begun", "given", "refused"),
    [(None, None, False), (None, "paper", False), ("paper", None, False), (None, "uniform", True),
     ("uniform", None, True), ("uniform", "uniform", False)],
)  # fmt: skip
@pytest.mark.parametrize("recorded", [True, False])
def test_a_network_of_a_file_goes_on_with_the_policy_it_was_begun_with(
    tmp_path, begun, given, refused, recorded
):
    """Runs of before have no record of the policy unless it was asked for."""
    cifar_resnet(8, width=2, input_shape=(8, 8, 1)).save(tmp_path / "float.keras")
    file = {"backbone": f"file:{tmp_path / 'float.keras'}", "width": None}
    first, again = ({**SMALL, **file, "policy": one} for one in (begun, given))
    kept, model = settle(**first)
    folder = RunFolder(tmp_path / "run")
    folder.begin(kept if recorded else config_from_flat(first))
    config = config_from_flat(again)
    if not refused:
        folder.check(config)
    told = pytest.raises(UserError, match="policy: ") if refused else contextlib.nullcontext()
    with told:
        folder.check(config, lambda one: settled(one, SPLIT, STEPS, model))


@pytest.mark.parametrize(("size", "stem"), [(8, "cifar"), (64, "imagenet")])
def test_first_layers_that_the_images_chose_are_recorded_and_built(size, stem):
    found, model = settle(backbone="resnet18", image_size=size)
    assert found.network.stem == stem
    names = {layer.name for layer in model.backbone.layers}
    assert ("stem_pool" in names) == (stem == "imagenet")
    assert found.network.zero_init_residual == (stem == "imagenet")
    asked, _ = settle(backbone="resnet18", image_size=size, stem="cifar")
    assert asked.network.stem == "cifar"
