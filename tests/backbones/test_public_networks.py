"""Networks of other libraries: found by names and shapes, and computing what they compute there."""

import json
import pathlib

import keras
import numpy as np
import public_vectors
import pytest
from public_vectors import SIZE, value

from tests.backbones.torch_files import save
from tfcq import train
from tfcq.backbones.build import backbone_from
from tfcq.backbones.checkpoint_files import CheckpointFile, Stored, read_checkpoint
from tfcq.backbones.public_models import give_checkpoint, model_from_checkpoint
from tfcq.backbones.public_names import RESNET, TORCHVISION, place_of
from tfcq.backbones.public_networks import network_in, network_of_checkpoint
from tfcq.backbones.public_weights import give_public_weights, public_weights
from tfcq.errors import UserError
from tfcq.pretraining.start import check_start, give_start
from tfcq.settings.checkpoints import IMAGENET
from tfcq.settings.training_groups import NetworkSettings

VECTORS = np.load(pathlib.Path(__file__).parents[1] / "vectors" / "public" / "networks.npz")
NETWORKS = {
    "resnet18": {"backbone": "resnet18", "stem": "imagenet", "width": 8},
    "resnet34": {"backbone": "resnet34", "stem": "imagenet", "width": 8},
    "resnet50": {"backbone": "resnet50", "stem": "imagenet", "width": 8},
    "mobilenet_v2": {"backbone": "mobilenet_v2", "stem": "imagenet", "width": 8},
    "timm_mobilenet_v2": {"backbone": "mobilenet_v2", "stem": "imagenet", "width": 16},
    "vit": {"backbone": "vit_small", "width": 24, "patch_size": 8},
}


def shapes_of(name) -> dict[str, tuple[int, ...]]:
    shapes = json.loads(bytes(VECTORS[f"{name}/shapes"]))
    return {key: tuple(shape) for key, shape in shapes.items()}


def state_of(name) -> dict[str, np.ndarray]:
    """Returns the tensors of a network of the vectors, under the names of its library."""
    fixed = {key: VECTORS[f"{name}/{key}"] for key in ("pos_embed",) if f"{name}/{key}" in VECTORS}
    return {key: value(key, shape) for key, shape in shapes_of(name).items()} | fixed


def file_of(shapes, metadata=None) -> CheckpointFile:
    """Returns a file of which the shapes alone are there."""
    stored = {name: Stored(tuple(shape), None) for name, shape in shapes.items()}
    return CheckpointFile("net.pth", stored, metadata or {})


def check_features(model, name, head=None):
    """Checks that a model has the features of its library, or the logits of a classifier."""
    features = np.asarray(model(public_vectors.images()))
    if name == "vit":
        # MoCo v3 numbers its grid along columns: halves of the width change places.
        features = np.roll(features, features.shape[-1] // 2, 1)
    expected = VECTORS[f"{name}/features"]
    if head is not None:
        expected = expected @ head["fc.weight"].T + head["fc.bias"]
    assert np.abs(features - expected).max() <= 1e-5 * np.abs(expected).max()


@pytest.mark.parametrize("name", ["resnet34", "resnet50", "mobilenet_v2", "vit"])
def test_features_are_those_of_the_library_and_weights_go_back_to_the_last_bit(name, tmp_path):
    state = state_of(name)
    head = {"fc.weight": value("fc", (3, 64)), "fc.bias": value("fc.bias", (3,))}
    head = head if name == "resnet34" else None
    state |= head or {}
    path = save({"epoch": 3, "state_dict": state}, tmp_path / "net.pth")
    model, told = model_from_checkpoint(path, SIZE, {}, classifier=head is not None)
    check_features(model, name, head)
    flags = " ".join(f"--{flag}={setting}" for flag, setting in NETWORKS[name].items())
    assert told.startswith(f"{flags} in state_dict, --input_mean=0.485,0.456,0.406 ")
    assert "0.225, which the file does not tell; none is left over." in told
    network = network_in(read_checkpoint(path))
    found = public_weights(model, network.family, network.library)
    assert found.keys() == state.keys()
    if name != "vit":
        for key, tensor in state.items():
            np.testing.assert_array_equal(found[key], tensor)
        return
    before = [np.array(weight) for weight in model.trainable_weights]
    for weight in model.trainable_weights:
        weight.assign(np.zeros(weight.shape))
    stored = {f"state_dict.{key}": Stored(v.shape, v.copy) for key, v in found.items()}
    # Positions are ours now: nothing changes places.
    assert give_public_weights(model, CheckpointFile("vit", stored), network) == []
    for weight, kept in zip(model.trainable_weights, before, strict=True):
        np.testing.assert_array_equal(weight, kept)


@pytest.mark.parametrize("name", NETWORKS)
def test_network_is_found_by_names_and_shapes(name):
    network = network_in(file_of(shapes_of(name)))
    assert network.settings == NETWORKS[name]
    assert (network.channels, network.size) == (3, SIZE if name == "vit" else None)


def test_every_name_of_timms_mobilenet_belongs_to_a_variable_of_ours():
    network = network_in(file_of(shapes_of("timm_mobilenet_v2")))
    theirs = network_in(file_of(shapes_of("mobilenet_v2")))
    variables = {"gamma": 1, "beta": 1, "moving_mean": 1, "moving_variance": 1}
    counts = (1, 2, 3, 4, 3, 3, 1)
    blocks = [(s, b) for s, n in enumerate(counts, 1) for b in range(1, n + 1)]
    parts = ("expand", "depthwise", "project")
    layers = [f"stage{s}_block{b}_{part}" for s, b in blocks for part in parts[s == 1 :]]
    layers += ["stem", "last"]
    places = [(name, "kernel") for name in layers]
    places += [(f"{name}_norm", variable) for name in layers for variable in variables]
    for one, shapes in ((network, "timm_mobilenet_v2"), (theirs, "mobilenet_v2")):
        names = [place_of(one.family, one.library, *place).name for place in places]
        assert sorted(names) == sorted(shapes_of(shapes))


PREFIXES = [
    ("module.encoder_q.", "module.encoder_k."),  # MoCo v1 and v2
    ("module.base_encoder.", "module.momentum_encoder."),  # MoCo v3
    ("module.encoder.", None),  # SimSiam
    ("online_encoder.", "target_encoder."),  # BYOL
    ("online_network.module.backbone.", "target_network.module.backbone."),
    ("module.", None),
    ("backbone.", None),
    ("student.", "teacher."),
    ("model.", "model_ema."),
    ("", "momentum."),
]


@pytest.mark.parametrize(("trained", "follower"), PREFIXES)
def test_trained_network_is_found_under_the_prefixes_of_methods(trained, follower):
    shapes = shapes_of("resnet18")
    tensors = {f"{trained}{name}": shape for name, shape in shapes.items()}
    if follower is not None:
        tensors = {f"{follower}{name}": shape for name, shape in shapes.items()} | tensors
    for container in ("", "state_dict."):
        inside = {f"{container}{name}": shape for name, shape in tensors.items()}
        network = network_in(file_of({**inside, "optimizer.state.0.momentum_buffer": (8, 3, 7, 7)}))
        assert network.prefix == f"{container}{trained}"
        assert network.settings == NETWORKS["resnet18"]


def test_resnet_as_a_sequence_of_its_children_is_found_with_all_its_weights():
    numbers = {"conv1": 0, "bn1": 1, "layer1": 4, "layer2": 5, "layer3": 6, "layer4": 7}
    tensors = {}
    for name, shape in shapes_of("resnet50").items():
        first, _, rest = name.partition(".")
        tensors[f"encoder.{numbers[first]}.{rest}"] = shape
    network = network_in(file_of(tensors))
    assert (network.prefix, network.settings) == ("encoder.", NETWORKS["resnet50"])
    names = {
        network.prefix + place_of(network.family, network.library, *place).name
        for place in [("stem", "kernel"), ("stem_norm", "moving_variance"),
                      ("stage4_block3_conv3_norm", "gamma"), ("stage2_block1_shortcut", "kernel")]
    }  # fmt: skip
    assert names <= tensors.keys()


def changed(name="resnet18", drop="-", **shapes):
    kept = {key: shape for key, shape in shapes_of(name).items() if not key.startswith(drop)}
    return kept | shapes


@pytest.mark.parametrize(
    ("shapes", "told"),
    [
        ({"fc.weight": (10, 4)}, r"holds no network that is known here \(fc.weight, ...\)"),
        ({"layer1.0.conv1.weight": (8, 8, 3, 3)}, "lacks 'conv1.weight'"),
        (changed(drop="layer4."), r"holds a ResNet with \[2, 2, 2, 0\] blocks"),
        (changed("resnet50") | {f"layer3.{n}.conv1.weight": (1,) for n in range(23)},
         r"holds a ResNet with \[3, 4, 23, 3\] blocks, of depth 101; allowed: ResNet-18"),
        (changed(**{"conv1.weight": (8, 3, 5, 5)}), "has a stem of 5 x 5 pixels; allowed: 7 x 7"),
        (changed(**{"conv1.weight": (8, 3, 7)}), r".* of shape \(8, 3, 7\); allowed: 4 lengths"),
        (changed("vit", drop="cls_token"), "holds a Vision Transformer of 12 blocks and 17 tokens"),
        (changed("vit", drop="blocks.11."), "holds a Vision Transformer of 11 blocks"),
        (changed("vit", pos_embed=(1, 16, 24)), ".* and 16 tokens; allowed: .* a square"),
        ({f"{n}.{key}": v for n in "ab" for key, v in shapes_of("resnet18").items()},
         "holds several networks .'a', 'b'.; allowed: one, and those that follow it"),
    ],
)  # fmt: skip
def test_other_networks_are_told(shapes, told):
    with pytest.raises(UserError, match=f"^net.pth {told}"):
        network_in(file_of(shapes))


@pytest.fixture(scope="module")
def moco(tmp_path_factory):
    """A checkpoint as MoCo v2 writes it, of a ResNet-18."""
    state = {f"module.encoder_q.{name}": tensor for name, tensor in state_of("resnet18").items()}
    state |= {name.replace("encoder_q", "encoder_k"): tensor + 1 for name, tensor in state.items()}
    state["module.encoder_q.bn1.num_batches_tracked"] = np.zeros(1)
    state["module.queue"] = np.zeros((4, 8))
    state["module.encoder_q.fc.weight"] = np.ones((4, 64))
    path = tmp_path_factory.mktemp("moco") / "moco_v2_200ep_pretrain.pth.tar"
    return save({"epoch": 200, "arch": "resnet18", "state_dict": state}, path)


@pytest.fixture(scope="module")
def backbone():
    """The ResNet-18 of the vectors, with other weights."""
    return backbone_from(NetworkSettings(**NETWORKS["resnet18"], **IMAGENET), (SIZE, SIZE, 3))


def test_a_run_starts_with_the_weights_and_the_network_of_a_public_file(
    moco, backbone, tmp_path, capsys
):
    command = train.flag_set().parse([f"--start={moco}", f"--run_dir={tmp_path / 'run'}"])
    config, _, left_open = train.settings_of(command)
    expected = {**NETWORKS["resnet18"], **IMAGENET}
    assert {name: getattr(config.network, name) for name in expected} == expected
    assert "width" not in left_open
    check_start(config.network, 3)
    give_start(backbone, config.network)
    told = capsys.readouterr().out
    assert told.startswith(f"Weights of {moco}: --backbone=resnet18 ") and told.count("\n") == 1
    # The follower and what stands beside: 100 tensors of a ResNet-18, its head, the queue.
    assert " in state_dict.module.encoder_q, " in told
    assert f"{len(state_of('resnet18')) + 2} tensors are left over (state_dict.module." in told
    check_features(backbone, "resnet18")
    for key, tensor in public_weights(backbone, RESNET, TORCHVISION).items():
        np.testing.assert_array_equal(tensor, state_of("resnet18")[key])


def test_images_of_other_channels_are_told(moco):
    with pytest.raises(
        UserError, match="Images have 1 channels, .* takes 3; .* --channels=3 turns"
    ):
        check_start(NetworkSettings(start=moco), 1)


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (["--backbone=resnet50"], "holds a network with --backbone=resnet18, and --backbone="),
        (["--width=64"], "holds a network with --width=8, and --width=64 was given; leave it out"),
        (["--stem=cifar"], "holds a network with --stem=imagenet, and --stem=cifar was given"),
        (["--input_mean=0.5"], "--input_mean=0.5 with --input_std=None; allowed: both or none"),
    ],
)  # fmt: skip
def test_flags_that_do_not_fit_the_file_are_told_before_anything_starts(moco, flags, told):
    with pytest.raises(UserError, match=told):
        train.settings_of(train.flag_set().parse([f"--start={moco}", *flags]))


def test_normalization_is_the_users_or_what_the_file_tells_or_imagenets():
    shapes, own = shapes_of("resnet18"), {"input_mean": "0.5", "input_std": "0.25"}
    for metadata, given, expected in (
        ({}, {}, IMAGENET),
        (own, {}, own),
        ({"input_mean": "0,0,0", "input_std": "1,1,1"}, {}, {}),
        (own, {"input_mean": "0", "input_std": "1"}, {}),
    ):
        _, found = network_of_checkpoint(file_of(shapes, metadata), given)
        assert found == {**NETWORKS["resnet18"], **expected}
    for other in ((8, 3, 3, 3), (8, 1, 7, 7)):
        with pytest.raises(UserError, match="does not tell how its images were normalized; give"):
            network_of_checkpoint(file_of(shapes | {"conv1.weight": other}), {})


def test_missing_weights_and_other_shapes_are_told_and_nothing_is_given(backbone, tmp_path):
    before = [np.array(weight) for weight in backbone.weights]
    state = state_of("resnet18")
    for change, told in (
        ({"bn1.bias": None}, r"lacks 1 tensors of a resnet18 \(bn1.bias\); allowed: all weights"),
        ({"layer1.0.conv2.weight": np.zeros((8, 4, 3, 3))},
         r"'layer1.0.conv2.weight' has shape \(8, 4, 3, 3\); allowed: \(8, 8, 3, 3\)"),
        ({"bn1.weight": np.full(8, np.nan)}, "has NaN or infinity in 'bn1.weight'"),
        ({"layer1.0.se.fc1.weight": np.zeros((4, 8, 1, 1)), "layer1.0.total_ops": np.zeros(1)},
         r"is no resnet18: it has 1 more tensors in it \(layer1.0.se.fc1.weight\); allowed: none"),
        ({"conv1.bias": np.zeros(8), "fc.0.bias": np.zeros(8)}, r"1 more .* \(conv1.bias\); all"),
    ):  # fmt: skip
        tensors = {name: v for name, v in {**state, **change}.items() if v is not None}
        path = save(tensors, tmp_path / "net.pth")
        with pytest.raises(UserError, match=told):
            give_checkpoint(backbone, path, NetworkSettings(**NETWORKS["resnet18"]))
    for weight, kept in zip(backbone.weights, before, strict=True):
        np.testing.assert_array_equal(weight, kept)


def test_learned_positions_are_refused(tmp_path):
    path = save(state_of("vit") | {"pos_embed": np.ones((1, 17, 24))}, tmp_path / "vit.pth")
    file = read_checkpoint(path)
    with pytest.raises(UserError, match="learned embeddings of positions; allowed: fixed sines"):
        give_public_weights(keras.Sequential(), file, network_in(file))


def test_a_file_without_a_classifier_is_told_where_logits_are_asked_for(tmp_path):
    path = save(state_of("resnet18"), tmp_path / "net.pth")
    with pytest.raises(UserError, match="holds no classifier 'fc'; allowed: a file of a cl"):
        model_from_checkpoint(path, SIZE, {}, classifier=True)
