"""Every flag file is a run that can be started, and says which figure of which table it is for."""

import functools
import json
import os
import pathlib
import re

import numpy as np
import pytest

from tfcq.errors import UserError
from tfcq.settings.backbones import cifar_depth
from tfcq.settings.fields import differences, flat
from tfcq.settings.frameworks import FRAMEWORK_SETTINGS
from tfcq.settings.recipes import RECIPES, recipe_named
from tfcq.settings.training import Config, config_from_flat
from tfcq.settings.unused import check_used
from tfcq.train import flag_set

ROOT = pathlib.Path(__file__).parent.parent.parent
FILES = {str(path.relative_to(ROOT)): path for path in sorted((ROOT / "flags").rglob("*.cfg"))
         if path.parent.name != "detection"}  # fmt: skip
PAPER_FILES = [name for name in FILES if name.startswith(("flags/ssql/", "flags/cq/"))]
# Two that the commands of README, demo and results name.
NAMED_BY_COMMANDS = {"flags/ssql.cfg": "simsiam_ssql", "flags/simsiam.cfg": "simsiam_float"}
DATASETS = {"cifar10": "cifar10", "cifar100": "cifar100", "imagenet": "imagenet2012"}
BATCH = 4
# What a step is not taken for again: numbers, views (which have a test of their own), and choices
# that the tests of backbones and frameworks go through.
NO_OTHER_STEP = {
    "dataset", "train_images", "image_size", "crop_area", "flip", "brightness", "contrast",
    "saturation", "hue", "stem", "weight_bits", "activation_bits", "precision_set", "temperature",
    "regression_loss", "loss_reduction", "target_momentum", "target_momentum_schedule", "epochs",
    "learning_rate", "scale_learning_rate", "weight_decay", "exclude", "kernel_initializer",
    "zero_init_residual", "input_mean", "input_std", "projection_layers", "projection_norm",
    "target_update",
}  # fmt: skip


def config_of(*arguments: str) -> Config:
    """Returns the settings of a command line, every given one of which has an effect."""
    command = flag_set().parse(list(arguments))
    config = config_from_flat({k: v for k, v in command.values.items() if k in flat(Config())})
    check_used(config, command.given)
    return config


def header_and_flags(name: str) -> tuple[str, list[str]]:
    """Returns the comments that open a file, as one text, and the lines after them."""
    lines = FILES[name].read_text().splitlines()
    end = next(index for index, line in enumerate(lines) if not line.startswith("# "))
    return " ".join(line.removeprefix("#").strip() for line in lines[:end]), lines[end:]


CONFIGS = {name: config_of(f"--flagfile={path}") for name, path in FILES.items()}


@pytest.mark.parametrize("name", FILES)
def test_file_opens_with_its_command(name):
    header, lines = header_and_flags(name)
    commands = re.findall(r"python -m tfcq\.train((?: \\| --\S+=\S+)+)", header)
    data = [] if CONFIGS[name].data.dataset == "digits" else ["--data_dir=DIR"]
    given = [sorted(text.replace("\\", "").split()) for text in commands]
    assert given == [[*data, f"--flagfile={name}"]]
    assert not header.startswith("python")
    assert lines and all(re.fullmatch(r"--\w+(=\S.*)?", line) for line in lines)
    assert all(len(line) <= 100 for line in FILES[name].read_text().splitlines())


@pytest.mark.parametrize("name", FILES)
def test_every_line_of_a_file_is_a_setting_that_it_changes_nothing_to_name_once(name):
    _, lines = header_and_flags(name)
    command = flag_set().parse(lines)
    names = [line.removeprefix("--").split("=")[0] for line in lines]
    assert sorted(names) == sorted(command.given)
    values = {key: command.values[key] for key in command.given}
    assert config_from_flat(values) == CONFIGS[name]


def trained(config: Config) -> str:
    """Returns `FRAMEWORK_RECIPE`; MoCo v2 predicts keys from one view only."""
    own = {"v1@fp->v2@fp": "float", "v1@fp->v2@fp, v1@q->v2@fp": "ssql"}
    method = config.method
    return f"{method.framework}_{own.get(method.recipe, method.recipe)}"


@pytest.mark.parametrize("name", FILES)
def test_file_is_named_for_what_it_trains(name):
    folder, stem, is_trained = name.split("/")[1], FILES[name].stem, trained(CONFIGS[name])
    if name in NAMED_BY_COMMANDS:
        assert NAMED_BY_COMMANDS[name] == is_trained
    elif name in PAPER_FILES:
        assert re.fullmatch(rf"table\w+?_{is_trained}(_\d+-16|_jiang|_200ep|_row_[a-i])?", stem)
    else:
        assert (CONFIGS[name].data.dataset, is_trained) == (folder, stem)


@pytest.mark.parametrize("name", PAPER_FILES)
def test_name_of_a_papers_file_is_its_table_data_and_network(name):
    match = re.fullmatch(
        r"flags/(?P<paper>ssql|cq)/table(?P<table>\d+)_(?P<data>cifar100?|imagenet)_"
        r"(?P<network>resnet\d+|mobilenet_v2|vit_small)_[a-z0-9_]+?(_(?P<bits>\d+-16))?\.cfg",
        name,
    )
    config, (header, _) = CONFIGS[name], header_and_flags(name)
    paper = {"ssql": "SSQL paper", "cq": "Contrastive Quant"}[match["paper"]]
    assert re.search(rf"{paper}, Tables? ([\d ,and]*\b)?{match['table']}\b", header)
    assert config.data.dataset == DATASETS[match["data"]]
    assert config.network.backbone.removeprefix("cifar_") == match["network"]
    if match["paper"] == "cq" and recipe_named(config.method.recipe).draws:
        assert config.method.precision_set == (match["bits"] or "6-16")


# SSQL, Table 10: batch size, rate, weight decay, temperature, size of the queue, momentum.
TABLE_10 = {
    "simsiam": (512, 0.05, 5e-4, None, None, None),
    "mocov2": (256, 0.03, 1e-4, 0.2, 4096, 0.999),
    "simclr": (512, 0.5, 1e-4, 0.5, None, None),
    "byol": (512, 0.5, 5e-4, None, None, 0.99),
    "ssql": (256, 0.05, 1e-4, None, None, None),
}


@pytest.mark.parametrize("name", PAPER_FILES)
def test_values_are_those_that_the_papers_print(name):
    config = CONFIGS[name]
    method, training = config.method, config.optimization
    cifar, own = config.data.dataset.startswith("cifar"), name.startswith("flags/ssql/")
    assert training.learning_rate_schedule == "cosine"
    if not own:
        # Contrastive Quant, Appendix A.
        assert (training.batch_size, training.epochs) == (512, 1000 if cifar else 100)
        assert (cifar, training.learning_rate) in ((True, training.learning_rate), (False, 0.6))
        assert training.optimizer == "lars" or cifar
        return
    if method.framework == "mocov3":
        # Appendix B.3 names MoCo v3's own code.
        return
    assert (training.optimizer, training.momentum) == ("sgd", 0.9)
    quantized = method.framework == "simsiam" and method.recipe not in ("float", "pact")
    printed = TABLE_10["ssql" if quantized else method.framework]
    if cifar:
        found = (
            training.batch_size, training.learning_rate, training.weight_decay,
            method.temperature, method.queue_size, method.target_momentum,
        )  # fmt: skip
        assert (found, training.epochs) == (printed, 400)
        assert method.projection_width == 2048
    elif method.framework == "simsiam":
        # Sec. 4.1, for ImageNet as SimSiam's own; Table 6 has longer runs too.
        epochs = 200 if name.endswith("_200ep.cfg") else 100
        assert (training.batch_size, training.epochs) == (256, epochs)
        assert (training.learning_rate, training.weight_decay) == (0.05, 1e-4)
    if quantized and not name.startswith("flags/ssql/table8_"):
        assert (method.weight_bits, method.activation_bits) == ("2-8", "4-8")


def test_the_same_run_has_one_file():
    seen = {}
    for name in PAPER_FILES:
        assert seen.setdefault(CONFIGS[name].to_json(), name) == name


def test_digits_have_a_file_for_every_framework_and_every_recipe():
    names = {f"{framework}_ssql" for framework in FRAMEWORK_SETTINGS}
    names |= {f"simsiam_{recipe}" for recipe in RECIPES}
    assert {file for file in FILES if file.startswith("flags/digits/")} == {
        f"flags/digits/{name}.cfg" for name in names
    }


TABLE = (ROOT / "docs/flag_files.md").read_text()
NEEDS = {
    "digits": "embedded", "fashion_mnist": "Fashion-MNIST", "cifar10": "CIFAR-10",
    "cifar100": "CIFAR-100", "imagenet2012": "ImageNet",
}  # fmt: skip


def measurements() -> dict[str, tuple[str, list[str], list[float]]]:
    """Returns page, bits and means of each training that results/ hold, by its settings."""
    found = {}
    for path in sorted((ROOT / "results").glob("*.json")):
        record = json.loads(path.read_text())
        if not isinstance(record, dict):
            continue
        for file, flags in record.get("budget", {}).items():
            # Of a flag that is given twice the last counts; where data lay changes no figure.
            last = {flag.split("=")[0]: flag for flag in flags if "--data_dir=" not in flag}
            page = path.with_suffix(".md") if path.with_suffix(".md").exists() else path
            mean = record["mean"][pathlib.Path(file).stem]
            found[config_of(*last.values()).to_json()] = (page.name, record["bits"], mean)
    return found


MEASURED = measurements()


def expected_row(name: str) -> str:
    """Returns the row of a flag file, by its header, its settings and what results/ hold."""
    title = re.split(r"[.:] python -m", header_and_flags(name)[0])[0]
    split = re.fullmatch(r"(.*): (SSQL|Contrastive Quant)(?: paper)?(, Tables? .*)", title)
    what, paper = (split[1], split[2] + split[3]) if split else (title, "")
    page = MEASURED.get(CONFIGS[name].to_json(), (None,))[0]
    status = f"[measured](../results/{page})" if page else "checked"
    needs = NEEDS[CONFIGS[name].data.dataset]
    file = name.removeprefix("flags/")
    return f"| [{file}](../{name}) | {what} | {paper} | {needs} | {status} |"


def test_every_file_stands_in_the_table_once_as_it_is():
    rows = [line for line in TABLE.splitlines() if line.startswith("| [")]
    assert rows == [expected_row(name) for name in sorted(FILES, key=place)]
    assert sum("[measured]" in row for row in rows) == len(MEASURED)


def place(name: str) -> tuple[bool, list]:
    """Returns a key that puts the two of the commands first and orders tables by number."""
    parts = [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", name)]
    return name not in NAMED_BY_COMMANDS, parts


@pytest.mark.parametrize("name", [n for n in FILES if " gave, " in header_and_flags(n)[0]])
def test_figures_of_ours_in_a_header_are_those_of_results(name):
    header, _ = header_and_flags(name)
    _, bits, means = MEASURED[CONFIGS[name].to_json()]
    ours = re.search(r"(?:Three seeds gave,.*?2w4a|mean of three seeds): ([\d./ ]+)\.", header)
    assert ours[1].split(" / ") == [f"{100 * mean:.1f}" for mean in means]
    assert f" {' / '.join(bits)}:" in header


@pytest.mark.parametrize(
    ("name", "flag"),
    [("flags/ssql/table1_cifar10_resnet18_simsiam_float.cfg", "--weight_bits=4"),
     ("flags/ssql/table1_cifar10_resnet18_simclr_float.cfg", "--predictor_width=512"),
     ("flags/ssql/table1_cifar10_resnet18_simsiam_ssql.cfg", "--queue_size=4096"),
     ("flags/ssql/table13_cifar10_vit_small_mocov3_float.cfg", "--stem=cifar"),
     ("flags/cq/table4_cifar100_resnet74_simclr_cq_c.cfg", "--stem=cifar"),
     ("flags/cq/table4_cifar100_resnet74_simclr_cq_c.cfg", "--weight_bits=4"),
     ("flags/digits/simsiam_cq_quant.cfg", "--crop_area=0.4-1"),
     ("flags/ssql/table1_cifar10_resnet18_mocov2_float.cfg", "--projection_layers=3"),
     ("flags/cq/table4_cifar100_mobilenet_v2_simclr_cq_c.cfg", "--zero_init_residual"),
     ("flags/ssql/table1_cifar10_resnet18_simsiam_float.cfg", "--exclude=none"),
     ("flags/ssql/table13_cifar10_vit_small_mocov3_float.cfg",
      "--kernel_initializer=normal_fan_out"),
     ("flags/digits/simsiam_pact.cfg", "--data_dir=DIR")],
)  # fmt: skip
def test_flag_that_the_method_does_not_use_is_refused_beside_a_file(name, flag):
    with pytest.raises(UserError, match=flag.removeprefix("--").split("=")[0]):
        config_of(f"--flagfile={FILES[name]}", flag)


def kind_of(backbone: str) -> str:
    """Returns the name of a backbone without its depth."""
    return "cifar_resnet" if cifar_depth(backbone) else re.sub(r"^resnet\d+$", "resnet", backbone)


def combination(config: Config) -> tuple[str, str, str, str]:
    """Returns what decides which code a run goes through."""
    method = config.method
    kind = kind_of(config.network.backbone)
    return method.framework, method.recipe, kind, config.optimization.optimizer


FIRST_OF = {}
for _name, _config in CONFIGS.items():
    FIRST_OF.setdefault(combination(_config), _name)


def tiny(config: Config) -> Config:
    """Returns the same run with a narrow network of the least depth of its kind, on few pixels."""
    kind = kind_of(config.network.backbone)
    small = {
        "resnet": {"backbone": "resnet18", "width": 2},
        "cifar_resnet": {"backbone": "cifar_resnet8", "width": 2},
        "mobilenet_v2": {"width": 8},
        "vit_small": {"width": 12},
    }[kind]
    heads = {"projection_width": 8, "projection_hidden": 8, "predictor_width": 4, "queue_size": 64}
    own = FRAMEWORK_SETTINGS[config.method.framework]
    small |= {name: value for name, value in heads.items() if name in own}
    pixels = 32 if config.network.stem == "imagenet" else 8
    return config_from_flat({**flat(config), **small, "image_size": pixels, "batch_size": BATCH})


@pytest.mark.parametrize("name", FILES)
def test_a_step_is_taken_for_every_file_or_for_one_that_differs_in_nothing_else(name):
    stepped = tiny(CONFIGS[FIRST_OF[combination(CONFIGS[name])]])
    changed = {text.split(":")[0] for text in differences(stepped, tiny(CONFIGS[name]))}
    assert changed <= NO_OTHER_STEP


@pytest.fixture
def shallow(monkeypatch):
    """Leaves out blocks like earlier ones; networks of full depth have tests of their own."""
    from tfcq.backbones import build, mobilenet_v2

    networks = build._BACKBONES
    shorter = {"resnet18": {"blocks": (1,)}, "vit_small": {"depth": 1}}
    for name, values in shorter.items():
        monkeypatch.setitem(networks, name, functools.partial(networks[name], **values))
    monkeypatch.setattr(mobilenet_v2, "_STAGES", ((1, 16, 1, 1), (6, 24, 2, 2)))


@pytest.mark.parametrize("case", FIRST_OF, ids=lambda case: "-".join(case))
def test_every_combination_of_the_files_takes_a_step(case, shallow):
    import keras

    from tfcq.pretraining.building import pretrainer_from

    config = tiny(CONFIGS[FIRST_OF[case]])
    assert combination(config) == case
    channels = 1 if config.data.dataset == "digits" else 3
    shape = (config.data.image_size, config.data.image_size, channels)
    keras.utils.set_random_seed(0)
    # The length is the file's own, since warm-up and momentum are parts of it. Called by itself,
    # the step is eager: tracing it would take longer than taking it.
    model = pretrainer_from(config, shape, steps=1)
    random = np.random.default_rng(0)
    views = [random.random((BATCH, *shape), np.float32) for _ in model.recipe.views]
    figures = model.train_step(tuple(map(keras.ops.convert_to_tensor, views)))
    assert np.isfinite(float(figures["loss"]))
    assert int(model.optimizer.iterations) == int(model.step.value) == 1


def full_shape(config: Config) -> tuple[int, int, int]:
    """Returns height, width and channels of a run's views."""
    grey = config.data.dataset in ("digits", "fashion_mnist")
    own_size = {"digits": 8, "fashion_mnist": 28}.get(config.data.dataset, 32)
    size = config.data.image_size or own_size
    return size, size, 1 if grey else 3


def test_every_file_has_views_and_a_schedule_of_its_full_size():
    from tfcq.data.augmentation import augmentation_from
    from tfcq.training.optimizers import optimizer_from

    for config in CONFIGS.values():
        size, _, channels = full_shape(config)
        assert augmentation_from(config.views, size, channels)
        assert optimizer_from(config.optimization, steps=10)


NETWORKS = {(c.network.backbone, c.network.width, full_shape(c)): c for c in CONFIGS.values()}


@pytest.mark.parametrize("case", NETWORKS, ids=lambda case: f"{case[0]}-{case[2][0]}")
def test_network_of_every_file_is_built_in_full_size(case):
    from tfcq.backbones.build import backbone_from

    _, _, shape = case
    network = backbone_from(NETWORKS[case].network, shape)
    assert network.input_shape == (None, *shape)
    assert len(network.output_shape) == 2


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """A folder with each of the files' TFDS data sets, of a few synthetic images."""
    import tensorflow_datasets as tfds

    folder = tmp_path_factory.mktemp("tfds")
    random = np.random.default_rng(0)
    for name in DATASETS.values():
        builder = tfds.builder(name, data_dir=folder)
        os.makedirs(builder.data_dir)
        shape = [size or 40 for size in builder.info.features["image"].shape]
        values = {"label": 1, "coarse_label": 1, "id": "0", "file_name": "0.jpeg"}
        writer = tfds.core.SequentialWriter(builder.info, max_examples_per_shard=BATCH)
        writer.initialize_splits(["train"])
        for _ in range(BATCH):
            values["image"] = random.integers(0, 256, shape, np.uint8)
            example = {feature: values[feature] for feature in builder.info.features}
            writer.add_examples({"train": [example]})
        writer.close_all()
    return str(folder)


@pytest.mark.parametrize("dataset", DATASETS.values())
def test_tfds_data_of_the_files_become_views(dataset, prepared):
    from tfcq.data.augmentation import augmentation_from
    from tfcq.data.split import view_size
    from tfcq.data.views import view_batches
    from tfcq.pretraining.run import training_split

    config = next(c for c in CONFIGS.values() if c.data.dataset == dataset)
    config = config_from_flat({**flat(config), "data_dir": prepared})
    split = training_split(config.data)
    size = view_size(split, config.data.image_size)
    assert size == (224 if dataset == "imagenet2012" else 32)
    augmentation = augmentation_from(config.views, size, 3)
    one, other = next(iter(view_batches(split, augmentation, size, BATCH, seed=0)))
    assert one.shape == other.shape == (BATCH, size, size, 3)
    assert float(abs(one - other).numpy().max()) > 0
