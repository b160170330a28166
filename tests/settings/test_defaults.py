"""What a run takes by its machine and images where size, width, batch and length were left open."""

import pathlib

import pytest

from tfcq.settings.defaults import OPEN, choice, replaced
from tfcq.settings.fields import flat
from tfcq.settings.run_folder import RunFolder
from tfcq.settings.training import Config, config_from_flat, for_images
from tfcq.settings.used import used
from tfcq.train import flag_set, settings_of

ROOT = pathlib.Path(__file__).parent.parent.parent
FLAG_FILES = sorted(
    set((ROOT / "flags").rglob("*.cfg")) - set((ROOT / "flags").glob("detection/*"))
)
ALL = frozenset(OPEN)
PHOTOGRAPHS = (300, 300, 1)
SHAPES = {"digits": (8, 8, 1), "fashion_mnist": (28, 28, 1), "cifar10": (32, 32, 3),
          "cifar100": (32, 32, 3), "imagenet2012": (None, None, 3)}  # fmt: skip


def of(*arguments):
    """Returns settings and what is open of a command line."""
    config, _, names = settings_of(flag_set().parse([*arguments]))
    return config, names


def values(shape=PHOTOGRAPHS, images=2000, accelerator=False, names=ALL, **given):
    return choice(config_from_flat(given), names, shape, images, accelerator).values


def test_photographs_without_an_accelerator_train_in_minutes():
    found = choice(Config(), ALL, PHOTOGRAPHS, 2000, accelerator=False)
    assert found.in_words() == (
        "No accelerator: --image_size=64 --width=16 --batch_size=128 --epochs=20; give these flags "
        "to choose yourself."
    )
    config = replaced(Config(), found.values)
    assert for_images(config, config.data.image_size).network.stem == "imagenet"
    for shape in ((64, 64, 3), (None, None, 3), (40, 65, 1)):
        assert values(shape) == found.values
    for shape in ((63, 63, 3), (8, 8, 1)):
        assert values(shape) == {}
    assert values(accelerator=True) == {}


@pytest.mark.parametrize("images", [1, 2, 7, 100, 127, 128, 401, 2099, 39_999, 10**7])
def test_length_is_the_same_number_of_images_and_a_batch_has_no_more_than_there_are(images):
    found = values(images=images)
    assert 1 <= found["epochs"] <= 100
    assert found["epochs"] in (1, 100) or 20_000 < found["epochs"] * images <= 40_000
    batch = found["batch_size"]
    assert batch <= max(images, 2) and (batch == 128 or 2 * batch > images)
    assert values((8, 8, 1), images=images).get("batch_size", 256) <= max(images, 2)


def test_reasons_are_told_together():
    few = choice(Config(), ALL, (8, 8, 1), 100, accelerator=True)
    text = "100 training images: --batch_size=64; give this flag to choose yourself."
    assert few.in_words() == text
    both = choice(Config(), ALL, PHOTOGRAPHS, 100, accelerator=False)
    assert both.in_words().startswith("No accelerator, 100 training images: --image_size=64 ")


@pytest.mark.parametrize("given", [(), *((name,) for name in OPEN), OPEN])
def test_each_setting_that_was_named_stays_and_the_others_are_chosen(given):
    config, names = of("--run_dir=none", "--dataset=digits", *(f"--{name}=96" for name in given))
    found = choice(config, names, PHOTOGRAPHS, 2000, accelerator=False).values
    assert set(found) == set(OPEN) - set(given)
    assert all(flat(replaced(config, found))[name] == 96 for name in given)


def test_a_duration_is_a_length():
    _, names = of("--run_dir=none", "--duration=10steps")
    assert names == ALL - {"epochs"}


@pytest.mark.parametrize(
    ("backbone", "chosen"),
    [("resnet50", set(OPEN)), ("mobilenet_v2", set(OPEN)), ("cifar_resnet20", ALL - {"width"}),
     ("vit_tiny", ALL - {"width"}), ("applications:MobileNetV2", {"batch_size", "epochs"}),
     ("file:model.keras", {"batch_size", "epochs"})],
)  # fmt: skip
def test_networks_are_asked_for_what_they_have(backbone, chosen):
    assert set(values(backbone=backbone)) == chosen


@pytest.mark.parametrize("file", FLAG_FILES, ids=lambda path: path.stem)
def test_nothing_of_a_flag_file_is_chosen(file):
    config, names = of("--run_dir=none", f"--flagfile={file}")
    shape = SHAPES[config.data.dataset]
    assert choice(config, names, shape, 1000, accelerator=False).values == {}


def test_a_run_goes_on_as_it_chose(tmp_path):
    folder = RunFolder(tmp_path / "run")
    chosen = {"image_size": 64, "width": 16, "batch_size": 128, "epochs": 20}
    folder.begin(Config(), lambda asked: used(replaced(asked, chosen)))
    for more in ((), ("--epochs=20",), ("--batch_size=128", "--width=16")):
        config, names = of(f"--run_dir={folder.path}", "--seed=0", *more)
        assert names == frozenset()
        assert {name: flat(config)[name] for name in chosen} == chosen
        folder.check(config)
    config, _ = of(f"--run_dir={folder.path}", "--seed=0", "--epochs=21")
    assert config.optimization.epochs == 21


def test_what_a_run_was_asked_for_is_not_taken_over_in_silence(tmp_path):
    folder = RunFolder(tmp_path / "run")
    folder.begin(config_from_flat({"epochs": 7}))
    config, names = of(f"--run_dir={folder.path}", "--seed=0")
    assert (config.optimization.epochs, names) == (100, frozenset())


def test_a_run_that_starts_with_another_has_its_size_and_width(tmp_path):
    folder = RunFolder(tmp_path / "run")
    folder.begin(Config(), lambda asked: used(replaced(asked, {"image_size": 96, "width": 8})))
    folder.backbone.write_text("")
    config, names = of(f"--start={folder.path}", "--run_dir=none")
    found = choice(config, names, PHOTOGRAPHS, 2000, accelerator=False).values
    assert (config.network.width, found["image_size"]) == (8, 96)
    assert "width" not in found
