"""Weights by the names of other libraries: read again as they were, with what they are of."""

import pickle
import pickletools
import re

import keras
import numpy as np
import pytest
from safetensors.numpy import load_file

from tests.integer.conftest import randomize_norms
from tfcq.backbones.build import backbone_from
from tfcq.backbones.checkpoint_files import read_checkpoint
from tfcq.backbones.cifar_resnet import cifar_resnet
from tfcq.backbones.public_models import model_from_checkpoint
from tfcq.backbones.public_names import RESNET
from tfcq.backbones.public_weights import public_weights
from tfcq.deployment.formats import Export, write_format
from tfcq.deployment.public_formats import PublicWeights, in_public_names
from tfcq.errors import UserError
from tfcq.nn.input_range import with_unit_input
from tfcq.nn.quantizable import quantizable
from tfcq.settings.checkpoints import IMAGENET
from tfcq.settings.training_groups import NetworkSettings


@pytest.fixture(scope="module")
def plain():
    """A ResNet-18 of small grey images from -1 to 1, which are normalized too."""
    keras.utils.set_random_seed(0)
    normalization = {"input_mean": "0.2", "input_std": "0.5"}
    settings = NetworkSettings(backbone="resnet18", stem="cifar", width=4, **normalization)
    model = backbone_from(settings, (8, 8, 1))
    randomize_norms(model)
    return with_unit_input(model, "-1-1")


@pytest.fixture(scope="module")
def network(plain):
    return quantizable(plain, "paper")


@pytest.fixture(scope="module")
def weights(network):
    return in_public_names(network, "torchvision")


def write(weights: PublicWeights, folder):
    export = Export(folder / "int8", folder / "float", None, None, public={"any": weights})
    return write_format("any", export)


def test_ours_to_torchvision_to_ours_is_the_same_to_the_last_bit(network, weights, tmp_path):
    (path,) = write(weights, tmp_path)
    assert path.name == "float_torchvision.safetensors"
    again, told = model_from_checkpoint(str(path), 8, {})
    for layer in again.layers:
        if layer.name != "input_normalization":
            expected = network.get_layer(layer.name).get_weights()
            for found, ours in zip(layer.get_weights(), expected, strict=False):
                np.testing.assert_array_equal(found, ours)
    images = np.random.default_rng(0).random((2, 8, 8, 1), np.float32)
    np.testing.assert_allclose(again(images), network(images), rtol=1e-4, atol=1e-5)
    # (2 x - 1 - 0.2) / 0.5 = (x - 0.6) / 0.25
    assert told == (
        "--backbone=resnet18 --stem=cifar --width=4, --input_mean=0.6 --input_std=0.25; none is "
        "left over."
    )


def test_metadata_tell_the_pixels_and_the_network(weights, tmp_path):
    metadata = read_checkpoint(str(write(weights, tmp_path)[0])).metadata
    assert re.fullmatch(r"tfcq \d.*", metadata.pop("written_by"))
    assert metadata == {
        "format": "pt", "input_range": "0-1", "channels": "1", "input_mean": "0.6",
        "input_std": "0.25", "backbone": "resnet18", "stem": "cifar", "width": "4",
    }  # fmt: skip


def test_what_differs_from_the_librarys_own_network_is_told(weights, tmp_path, capsys):
    write(weights, tmp_path)
    assert capsys.readouterr().out == (
        "The names are those of torchvision, whose own resnet18 is another network: this one has "
        "stem cifar (not imagenet), width 4 (not 64), channels 1 (not 3).\n"
    )


def test_a_classifier_is_part_of_the_file(weights, tmp_path):
    kernel, bias = np.arange(96.0).reshape(32, 3), np.arange(3.0)
    (path,) = write(weights.with_classifier(kernel, bias), tmp_path)
    found = load_file(path)
    np.testing.assert_array_equal(found["fc.weight"], kernel.T)
    np.testing.assert_array_equal(found["fc.bias"], bias)
    assert found.keys() - weights.tensors.keys() == {"fc.weight", "fc.bias"}


def test_detectron2_is_given_what_its_own_converter_would_write(plain, weights, tmp_path):
    tensors = public_weights(plain, RESNET, "detectron2")
    settings = {"backbone": "resnet50", "stem": "imagenet", "width": 2}
    detector = PublicWeights("detectron2", RESNET, settings, tensors, weights.metadata | IMAGENET)
    detector = detector.with_classifier(np.zeros((32, 3)), np.zeros(3))
    path, configuration = write(detector, tmp_path)
    content = path.read_bytes()
    whole = pickle.loads(content)
    assert whole["matching_heuristics"] is True and whole["__author__"] == "tfcq"
    assert len(whole["model"]) == len(weights.tensors)
    for name, value in weights.tensors.items():
        # As tools/convert-torchvision-to-d2.py of detectron2 renames what torchvision has.
        name = name if "layer" in name else f"stem.{name}"
        for number in (4, 3, 2, 1):
            name = name.replace(f"layer{number}", f"res{number + 1}")
            name = name.replace(f"bn{number}", f"conv{number}.norm")
        name = name.replace("downsample.0", "shortcut").replace("downsample.1", "shortcut.norm")
        np.testing.assert_array_equal(whole["model"][name], value)
        assert whole["model"][name].flags.writeable
    # Of NumPy no name that versions differ in.
    texts = {text for _, text, _ in pickletools.genops(content) if isinstance(text, str)}
    assert {"ndarray", "bytearray"} < texts and not any("multiarray" in text for text in texts)
    assert configuration.read_text() == (
        "# Beside a configuration of detectron2: the backbone, and the pixels that it takes.\n"
        "MODEL:\n"
        "  WEIGHTS: float_detectron2.pkl\n"
        "  PIXEL_MEAN: [123.675, 116.28, 103.53]\n"
        "  PIXEL_STD: [58.395, 57.12, 57.375]\n"
        "  RESNETS:\n"
        "    DEPTH: 50\n"
        "    STRIDE_IN_1X1: false\n"
        "    STEM_OUT_CHANNELS: 2\n"
        "    RES2_OUT_CHANNELS: 8\n"
        "    WIDTH_PER_GROUP: 2\n"
        "INPUT:\n"
        "  FORMAT: RGB\n"
    )


def test_networks_without_public_names_are_told(plain):
    inputs = keras.Input((8, 8, 3))
    own = keras.Model(inputs, keras.layers.GlobalAveragePooling2D()(inputs), name="own")
    queries = keras.layers.Dense(2, name="block1_attention_queries")
    transformer = keras.Model(inputs, queries(inputs))
    cifar = cifar_resnet(8, width=2, input_shape=(8, 8, 3))
    last = plain.get_layer("stage4_block2_relu").output
    pooled = keras.layers.GlobalAveragePooling2D()(last)
    other = keras.Model(plain.inputs[0], keras.layers.Rescaling(2.0, name="features")(pooled))
    for model, library, told in (
        (own, "torchvision", "network 'own' is none that has public names; allowed: ResNets"),
        (cifar, "torchvision", r"holds a ResNet with \[1, 1, 1, 0\] blocks"),
        (transformer, "torchvision", "has no Vision Transformer; allowed: timm"),
        (plain, "detectron2", "stem of 3 x 3 pixels and width 4; allowed: --stem=imagenet"),
        (other, "torchvision", "has the layers of a resnet18 and computes something else"),
    ):
        with pytest.raises(UserError, match=f"^--format={library}.*{told}"):
            in_public_names(model, library)
