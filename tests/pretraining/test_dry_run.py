"""A run that is checked and counted: as the run would, and without a trace."""

import json

import numpy as np
import pytest
from PIL import Image

from tfcq import train
from tfcq.errors import UserError
from tfcq.pretraining import dry_run
from tfcq.pretraining.building import pretrainer_from
from tfcq.settings.run_folder import RunFolder
from tfcq.settings.training import config_from_flat

SMALL = {
    "backbone": "cifar_resnet8", "width": 2, "projection_width": 8,
    "train_images": 100, "batch_size": 32, "epochs": 4,
}  # fmt: skip
FLAGS = [f"--{name}={value}" for name, value in SMALL.items()]
MIRRORED = "--strategy=mirrored"
UNKNOWN = ["--dataset=imagenet2012", "--image_size=8", "--data_dir=nowhere"]


@pytest.fixture
def told(tmp_path, monkeypatch, capsys):
    """Returns a function that runs the command dry in an empty folder and reads its figures."""
    monkeypatch.chdir(tmp_path)

    def run(*flags):
        train.main(train.flag_set().parse(["--dry_run", *FLAGS, *flags]))
        lines = capsys.readouterr().out.splitlines()
        figures = json.loads(lines[-1])
        # Each stands in a line of its own, too.
        assert [line.split("  ")[0] for line in lines[-1 - len(figures) : -1]] == [
            name.replace("_", " ") for name in figures
        ]
        return figures, lines[: -1 - len(figures)]

    return run


def test_figures_are_those_of_the_run_and_the_disk_stays_as_it_was(told, tmp_path):
    figures, lines = told()
    assert list(tmp_path.iterdir()) == []
    assert lines[0].startswith("digits, 100 images of 8x8x1; cifar_resnet8, width 2")
    model = pretrainer_from(config_from_flat(SMALL), (8, 8, 1), 3)
    assert figures["trained_parameters"] == sum(
        w.shape.num_elements() for w in (one.value for one in model.trainable_variables)
    )
    assert (figures["images"], figures["epochs"], figures["steps"]) == (100, 4, 12)
    assert figures["images_in_all"] == 12 * 32
    assert (figures["trained_passes"], figures["further_passes"]) == (4, 0)
    assert figures["gradient_bytes"] == 4 * figures["trained_parameters"]
    # SGD has a momentum for each weight, and two counters.
    assert 0 < figures["optimizer_bytes"] - figures["gradient_bytes"] <= 16
    held = ("activation_bytes", "variable_bytes", "gradient_bytes", "optimizer_bytes")
    assert figures["memory_bytes"] == sum(figures[name] for name in held)
    assert "hours" not in figures


def test_copies_and_queues_are_counted_apart(told):
    moco = ("--framework=mocov2", "--queue_size=128", "--projection_hidden=4", "--recipe=float")
    figures, _ = told(*moco)
    assert figures["momentum_parameters"] == figures["trained_parameters"]
    assert figures["queue_bytes"] == 4 * 128 * 8
    shorter, _ = told(*moco, "--queue_size=64")
    assert shorter["variable_bytes"] == figures["variable_bytes"]


def test_time_is_that_of_products_and_of_what_goes_round_the_ring(told, tmp_path):
    figures, lines = told(MIRRORED, "--devices=4x2TFLOPS,1GB,3GB/s,50%")
    assert lines[-2].startswith("4 x custom: 50% of 2 TFLOP/s in float32, 1 GB")
    assert lines[-1].startswith("Bytes are those of each of 4 replicas;")
    exchanged = 2 * figures["all_reduce_bytes"] + figures["all_gather_bytes"]
    seconds = figures["step_flops"] / (4 * 2e12 * 0.5) + 3 / 4 * exchanged / 3e9
    assert figures["seconds_per_step"] == pytest.approx(seconds)
    assert figures["hours"] == pytest.approx(12 * seconds / 3600)
    assert figures["images_per_second"] == pytest.approx(32 / seconds)
    assert figures["memory_fits"]
    # A replica holds its share of the batch.
    alone, _ = told("--devices=1x2TFLOPS,0.001GB,3GB/s")
    assert alone["activation_bytes"] == 4 * figures["activation_bytes"]
    assert not alone["memory_fits"]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("count", "flags"), [(2, [MIRRORED]), (1, []), (1, ["--accumulate=4"])], ids=str
)
def test_largest_batch_fits_and_one_more_of_each_replica_does_not(told, count, flags):
    def planned(gigabytes, batch_size=32):
        device = f"--devices={count}x2TFLOPS,{gigabytes:.9f}GB,3GB/s"
        return told(device, *flags, f"--batch_size={batch_size}")[0]

    half = planned(1)["memory_bytes"] / 2e9
    found = planned(half)
    assert not found["memory_fits"]
    largest, step = found["largest_batch_size"], 4 if "--accumulate=4" in flags else count
    assert planned(half, largest)["memory_fits"]
    assert not planned(half, largest + step)["memory_fits"]
    # What the heads and weights alone take leaves room for no two images.
    assert planned(1e-6)["largest_batch_size"] == 0


def test_strategies_of_other_machines_are_counted_here(told):
    several = told(MIRRORED, "--devices=4xA100")[0]["step_flops"]
    for flags in (
        ["--strategy=tpu", "--devices=4xTPUv4"],
        ["--strategy=multi_worker", "--devices=4xA100"],
    ):
        assert told(*flags)[0]["step_flops"] == several


def test_images_that_are_not_here_are_taken_as_the_flags_say(told):
    figures, lines = told(*UNKNOWN)
    assert figures["images"] == 100
    assert lines[0].startswith("Data set 'imagenet2012' is not prepared; images are taken as")
    with pytest.raises(UserError, match="needs no images beside --train_images and --image_size"):
        train.main(train.flag_set().parse(["--dry_run", *UNKNOWN]))


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--batch_size=30", "--devices=8xA100", MIRRORED], "batch_size=30 over 8 replicas"),
        (["--devices=1xV100", "--product_dtype=bfloat16"], "bfloat16 with --devices=1xV100"),
        (
            ["--devices=8xA100", "--accumulate=2"],
            "single does not .* 8 .*: --strategy=mirrored, mu",
        ),
        (["--devices=1xTPUv4"], "allowed: --strategy=tpu\\.$"),
        (["--devices=1xA100", "--strategy=tpu"], "allowed: --strategy=single, mirrored, multi_"),
        (["--warmup=5epochs"], "warm"),
        (["--dataset=mnist", "--download"], "--download with --dry_run"),
        (["--accumulate=2", "--devices=2xA100", MIRRORED], "accumulate=2 over 2 replicas"),
    ],
)
def test_what_a_run_refuses_is_refused(told, flags, message):
    with pytest.raises(UserError, match=message):
        told(*flags)


def test_photographs_of_several_sizes_are_counted_at_the_size_that_their_run_chooses(
    tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    for number in range(40):
        image = np.full((70 + number, 90, 3), number, np.uint8)
        Image.fromarray(image).save(tmp_path / "photos" / f"{number}.png")
    flags = ["--dry_run", "--dataset=folder:photos", "--batch_size=8", "--epochs=1"]
    train.main(train.flag_set().parse(flags))
    assert "folder:photos, 40 images of 64x64x3; resnet18" in capsys.readouterr().out


def test_folder_of_another_run_is_refused_and_its_own_run_is_counted(told, tmp_path):
    folder = RunFolder(tmp_path / "run")
    folder.begin(config_from_flat(SMALL))
    assert told("--run_dir=run")[0]["steps"] == 12
    train.main(train.flag_set().parse(["--dry_run", "--run_dir=run"]))
    with pytest.raises(UserError, match="run with other settings"):
        told("--run_dir=run", "--seed=9")
    assert [file.name for file in folder.path.iterdir()] == ["config.json"]


def test_memory_of_this_machine_suffices_only_where_the_run_is_to_be_here(told, monkeypatch):
    monkeypatch.setattr(dry_run, "check_memory", lambda *_: (_ for _ in ()).throw(UserError("GB")))
    with pytest.raises(UserError, match="GB"):
        told()
    assert told("--devices=8xA100", MIRRORED)[0]["hours"] > 0


def test_numbers_are_read_with_the_prefix_of_their_unit():
    assert dry_run._prefixed(1.8136e9, "FLOP") == "1.81 GFLOP"
    assert dry_run._prefixed(0, "B") == "0 B"
