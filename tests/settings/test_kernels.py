"""A TFLite file is named by its ending, and takes kernels in place of bit-widths."""

import pytest

from tests.evaluation.evaluations import command_of, config_of
from tfcq import evaluate, export
from tfcq.errors import UserError
from tfcq.settings.kernels import KERNELS, parse_kernels
from tfcq.settings.subject_files import check_files

FILE = {"run_dir": None, "model": "net.tflite", "dataset": "digits", "output_dir": "out"}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (None, ("xnnpack",)), ("reference", ("reference",)), (",".join(KERNELS), KERNELS),
        ("micro, xnnpack", ("micro", "xnnpack")),
    ],
)  # fmt: skip
def test_kernels_are_those_asked_for_in_their_order(text, expected):
    config = config_of(**FILE, kernels=text)
    assert config.scores_file and config.kernels == expected


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "Unknown kernels ''; allowed: micro, optimized, reference, xnnpack"),
        ("xnnpack,", "Unknown kernels ''"), ("refrence", "Did you mean 'reference'"),
        ("xnnpack,micro,xnnpack", "'xnnpack' stand twice in 'xnnpack,micro,xnnpack'"),
    ],
)  # fmt: skip
def test_kernels_that_there_are_not_are_refused(text, told):
    for parse in (parse_kernels, lambda kernels: config_of(**FILE, kernels=kernels)):
        with pytest.raises(UserError, match=told):
            parse(text)


@pytest.mark.parametrize(
    "flags",
    [
        {"bits": "8w8a"}, {"policy": "int8"}, {"per_tensor": True}, {"layer_bits": "a:4w4a"},
        {"calibration": "mse"}, {"calibration_pass": "float"}, {"calibration_images": 5},
        {"calibration_seed": 1}, {"equalize": True}, {"mixed_precision": True},
        {"weight_scales": "mse"}, {"rounding": "adaround"}, {"correct_biases": True},
        {"reestimate_batch_norm": True}, {"describe": True},
    ],
)  # fmt: skip
def test_what_would_quantize_a_network_is_refused_beside_a_file(flags):
    (name,) = flags
    with pytest.raises(UserError, match=f"--{name} has no effect here: net.tflite is run as it is"):
        config_of(**FILE, **flags)


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        ({"protocol": "finetune"}, "finetune trains the network.*: linear, knn, classifier"),
        ({"protocol": "semi", "label_share": 0.1}, "semi trains the network"),
        ({"protocol": "knn,qat"}, "qat trains the network, and net.tflite can only be run"),
        ({"features": "augmented"}, "--features=augmented cannot be had of net.tflite"),
        ({"from_scratch": True}, "--from_scratch cannot be had of net.tflite"),
        ({"weights": "imagenet"}, "--weights has no effect"),
        ({"checkpoint": "latest"}, "--checkpoint has no effect"),
        ({"protocol": "knn", "deterministic": True}, "--deterministic has no effect.*by LiteRT"),
        (
            {"protocol": "classifier,knn", "deterministic": True},
            "--deterministic has no effect here: net.tflite .* nothing is trained",
        ),
    ],
)
def test_what_would_train_or_change_a_network_is_refused_beside_a_file(flags, told):
    with pytest.raises(UserError, match=told):
        config_of(**FILE, **flags)


@pytest.mark.parametrize(
    "flags",
    [{"protocol": "knn", "neighbours": 5}, {"seed": 1, "epochs": 5}, {"preset": "ssql"},
     {"protocol": "classifier", "input_range": "0-255"}, {"protocol": "linear,knn,classifier"},
     {"protocol": "linear,knn", "deterministic": True}],
)  # fmt: skip
def test_what_scores_features_goes_with_a_file(flags):
    assert config_of(**FILE, **flags).scores_file


@pytest.mark.parametrize("subject", [{}, {**FILE, "model": "net.keras"}])
def test_kernels_beside_a_network_are_refused(subject):
    with pytest.raises(UserError, match="--kernels has no effect here: Keras .*=PATH.tflite alone"):
        config_of(**subject, kernels="xnnpack")


def test_a_file_is_not_exported_again():
    flags = {name: value for name, value in FILE.items() if value}
    arguments = [f"--{name}={value}" for name, value in flags.items()]
    with pytest.raises(UserError, match="net.tflite is a TFLite file already.*tfcq.evaluate"):
        export.config_of(export.flag_set().parse(arguments))


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("no.tflite", "no.tflite does not exist; allowed: a .tflite file"),
        ("folder.tflite", "folder.tflite is a folder; allowed: a .tflite file"),
        ("folder.keras", "folder.keras is a folder; allowed: a .keras file"),
        (
            "net.lite",
            "Unknown model .*net.lite'; allowed: PATH.keras, PATH.tflite, PATH.pth or",
        ),
        ("net", "Unknown model .*; allowed: PATH.keras, PATH.tflite, PATH.pth or"),
    ],
)
def test_a_model_that_is_no_file_is_told_before_start_up(tmp_path, name, told):
    for folder in ("folder.tflite", "folder.keras"):
        (tmp_path / folder).mkdir()
    flags = {name: value for name, value in FILE.items() if value}
    command = command_of(**{**flags, "model": tmp_path / name})
    with pytest.raises(UserError, match=told):
        check_files(evaluate.config_of(command))


@pytest.mark.parametrize("name", ["net.tflite", "NET.TFLITE", "a.keras.tflite"])
def test_a_file_is_known_by_its_ending(tmp_path, name):
    (tmp_path / name).write_bytes(b"")
    config = config_of(**{**FILE, "model": tmp_path / name})
    assert config.scores_file
    check_files(config)
