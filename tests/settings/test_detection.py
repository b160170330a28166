"""Settings of a detection that do not go together are told in one line."""

import pytest

from tests.settings.mistakes import error_of
from tfcq import detect
from tfcq.settings.detection import default_training, detection_from_flat
from tfcq.settings.detection_presets import with_preset


def config(**values):
    return detection_from_flat({"run_dir": "RUN", **values})


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"run_dir": None}, "--run_dir is missing"),
        ({"model": "m.keras"}, "--run_dir and --model were both given"),
        ({"run_dir": None, "model": "m.keras"}, "--output_dir is missing; --model=m.keras needs"),
        (
            {"run_dir": None, "model": "m.h5", "output_dir": "D"},
            "Unknown model 'm.h5'; allowed: PATH.keras, PATH.pth or PATH.safetensors.",
        ),
        ({"input_std": "1"}, "--input_std has no effect here"),
        (
            {"run_dir": None, "model": "m.pth", "output_dir": "D", "input_mean": "0"},
            "--input_mean=0 with --input_std=None; allowed: both or none",
        ),
        ({"dataset": "digit"}, "allowed"),
        ({"shorter_side": "480,wide"}, "--shorter_side=480,wide cannot be used; allowed: whole"),
        ({"shorter_side": "64,15"}, "allowed: whole numbers of pixels from 16 on"),
        ({"shorter_side": "480,1400"}, "=480,1400 is beyond --longest_side=1333; allowed: 16 to"),
        ({"anchor_sizes": "big"}, "--anchor_sizes=big cannot be used; allowed: numbers of pixels"),
        ({"anchor_sizes": "32,nan"}, "--anchor_sizes=32,nan cannot be used"),
        ({"anchor_sizes": "0"}, "allowed: numbers of pixels from 1 on, such as 32,64,128"),
        ({"detector": "faster_rcn"}, "Did you mean 'faster_rcnn'"),
        ({"bits": "8w8"}, "8w8"),
        ({"export_bits": "4w4a"}, "--export_bits=4w4a cannot be exported; allowed: one of 2w8a"),
        ({"export_bits": "fp"}, "--export_bits=fp cannot be exported"),
        ({"export_bits": "8w8a", "protocol": "qat"}, "--export_bits has no effect here"),
        (
            {"export_bits": "8w8a", "quantize": "backbone"},
            "--export_bits=8w8a with --quantize=backbone, which no int8 file has",
        ),
        (
            {"export_bits": "8w8a", "calibration": "mse"},
            "--export_bits=8w8a with --calibration=mse",
        ),
        ({"export_bits": "8w8a", "equalize": True}, "--export_bits=8w8a with --equalize=True"),
        ({"warmup": "soon"}, "Unknown duration 'soon'"),
        ({"quantizer": "lqs"}, "Did you mean 'lsq'"),
        ({"epochs": 0}, "--epochs=0"),
        ({"preset": "ssql_vok"}, "Did you mean 'ssql_voc'"),
        ({"bits": "fp,8w8a,fp"}, "Bit-width 'fp' stands twice"),
        ({"milestones": "3epochs"}, "--learning_rate_schedule=cosine with --milestones=3epochs"),
        ({"warmup": "soon"}, "soon"),
        ({"duration": "long"}, "long"),
        ({"mosaic": True, "detector": "mask_rcnn"}, "allowed: faster_rcnn or yolov4"),
        ({"mosaic": True, "batch_size": 3}, "--mosaic with --batch_size=3; allowed: 4 and more"),
    ],
)
def test_mistakes_are_told_with_what_is_allowed(values, told):
    assert told in error_of(lambda: config(**values))


def test_folders_are_those_of_the_run_or_as_told():
    assert str(config().folder) == "RUN/detection/faster_rcnn"
    assert str(config(output_dir="D").folder) == "D"
    assert str(config().backbone_file) == "RUN/backbone.keras"


def test_what_trains_a_detector_is_compared_and_what_scores_it_is_not():
    base = config().trained_with()
    spelt = with_preset({"preset": "cq_voc"}) | {"preset": None}
    assert config(preset="cq_voc").trained_with() == config(**spelt).trained_with()
    for scored in (
        {"bits": "fp"}, {"test_images": 3}, {"pictures": 0}, {"calibration": "mse"},
        {"data_dir": "D"}, {"download": True},
    ):  # fmt: skip
        assert config(**scored).trained_with() == base
    for trained in (
        {"epochs": 3},
        {"flip": False},
        {"mosaic": True},
        {"from_scratch": True},
        {"seed": 1},
    ):
        assert config(**trained).trained_with() != base
    public = {"run_dir": None, "model": "m.pth", "output_dir": "D"}
    other_pixels = config(**public, input_mean="0", input_std="1")
    assert config(**public).trained_with() != other_pixels.trained_with()
    assert "input_mean" not in base
    one, other = (config(protocol="qat", quantize=name) for name in ("all", "backbone"))
    assert one.trained_with() != other.trained_with()


def of_line(*flags):
    return detect.config_of(detect.flag_set().parse(["--run_dir=RUN", *flags]))


# Steps of 16 images, where the rate falls, its height; SSQL follows MoCo's detectors.
MOCO = {
    "ssql_voc": ("voc", "faster_rcnn", "24000steps", "18000steps,22000steps", 0.02),
    "ssql_coco": ("coco", "mask_rcnn", "90000steps", "60000steps,80000steps", 0.02),
}


@pytest.mark.parametrize("name", MOCO)
def test_presets_of_ssql_are_mocos_detectors(name):
    made = of_line(f"--preset={name}")
    training = made.training
    assert (
        made.data.dataset, made.detector.detector, training.duration, training.milestones,
        training.learning_rate,
    ) == MOCO[name]  # fmt: skip
    assert (training.batch_size, training.weight_decay, training.clip_gradient) == (16, 1e-4, 0)
    assert training.learning_rate_schedule == "step" and training.milestone_factor == 0.1
    assert (max(made.data.shorter_sides), made.data.longest_side) == (800, 1333)


def test_preset_of_contrastive_quant_trains_50_epochs():
    made = of_line("--preset=cq_voc")
    assert (made.data.dataset, made.detector.detector) == ("voc", "yolov4")
    assert (made.training.epochs, made.training.duration) == (50, None)
    assert (made.data.shorter_sides, made.data.longest_side) == ((416,), 416)
    assert list(map(str, made.bit_widths)) == ["fp", "6w6a", "4w4a"]


def test_what_is_given_wins_over_the_preset():
    made = of_line("--preset=ssql_voc", "--epochs=2", "--learning_rate_schedule=cosine",
                   "--bits=2w4a", "--clip_gradient=10", "--detector=yolov4")  # fmt: skip
    training = made.training
    # A length in epochs and a course without milestones leave those of the preset aside.
    assert (training.epochs, training.duration, training.milestones) == (2, None, None)
    assert training.clip_gradient == 10 and str(made.bit_widths[0]) == "2w4a"
    assert made.detector.detector == "yolov4" and training.batch_size == 16


@pytest.mark.parametrize(
    ("flags", "unused", "why"),
    [
        ("", "--quantizer=pact", "--protocol=finetune trains in float"),
        ("--protocol=qat", "--rounding=adaround", "qat trains at each bit-width"),
        ("--protocol=qat", "--equalize", "qat trains at each bit-width"),
        ("--protocol=qat", "--calibration=mse", "qat trains at each bit-width"),
        ("--protocol=qat", "--calibration_images=9", "quantizer 'lsq' of qat has no range"),
        ("--protocol=qat", "--from_scratch", "qat goes on from the float detector"),
        ("", "--data_dir=D", "data set 'scenes' is none of TensorFlow Datasets"),
        ("", "--download", "data set 'scenes' is none of TensorFlow Datasets"),
        ("--dataset=boxes:.", "--data_dir=D", "data set 'boxes:.' is none of TensorFlow"),
        ("", "--longest_side=500", "scenes are square"),
        ("--detector=yolov4", "--anchor_sizes=16", "yolov4 has anchors of its own"),
        ("--detector=yolov4", "--proposals=9", "yolov4 has anchors of its own"),
        ("--detector=yolov4", "--sampled_regions=9", "yolov4 has anchors of its own"),
        ("--bits=fp", "--quantize=backbone", "--bits=fp quantizes nothing"),
        ("--bits=fp", "--correct_biases", "--bits=fp quantizes nothing"),
        ("--bits=fp", "--calibration=mse", "--bits=fp quantizes nothing"),
        ("--bits=fp", "--calibration_images=9", "--bits=fp quantizes nothing"),
        ("--bits=fp --protocol=qat", "--quantizer=pact", "--bits=fp quantizes nothing"),
        ("", "--rounding_iterations=9", "--rounding learns nothing"),
        ("", "--holdout=0.2", "data set 'scenes' has a test split of its own"),
        ("--dataset=boxes:.", "--holdout_seed=1", "--holdout is missing"),
        ("--rounding=floor", "--rounding_iterations=9", "--rounding learns nothing"),
        ("--duration=9steps", "--epochs=9", "--duration says how long"),
        ("", "--milestone_factor=0.5", "the learning rate has no milestones"),
        ("--optimizer=adamw", "--nesterov", "AdamW has none"),
        ("--weight_decay=0", "--exclude=bias", "--weight_decay is 0"),
    ],
)
def test_a_flag_that_would_change_nothing_is_refused(flags, unused, why):
    name = unused.split("=")[0]
    told = error_of(of_line, *flags.split(), unused)
    assert told.startswith(f"{name} has no effect here: {why}") and told.endswith("; leave it out.")
    of_line(*flags.split())


@pytest.mark.parametrize(
    "flags",
    [
        "--protocol=qat --quantizer=minmax --calibration_images=9",
        "--bits=fp --export_bits=8w8a --calibration_images=9",
        "--dataset=scenes:mnist --data_dir=D --download",
        "--dataset=voc --data_dir=D --longest_side=500",
        "--dataset=scenes:folder:. --holdout=0.2 --holdout_seed=1",
        "--rounding=block --rounding_iterations=9",
        "--preset=cq_voc --detector=faster_rcnn --anchor_sizes=16,32",
    ],
)
def test_a_flag_that_changes_something_is_taken(flags):
    of_line(*flags.split())


def test_a_warm_up_that_is_left_open_is_the_one_that_earlier_versions_recorded():
    assert config().trained_with() == config(warmup="100steps").trained_with()
    assert config().trained_with()["warmup"] == default_training()["warmup"] == "100steps"


def test_rounding_of_quantizers_reaches_the_policy():
    assert config(rounding="floor").policy.rounding == "floor"
    assert config(rounding="adaround").policy == config().policy
