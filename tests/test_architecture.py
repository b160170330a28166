"""Floors of the house: a file imports only from floors below it, or from its own."""

import ast
import pathlib

import pytest

ROOT = pathlib.Path(__file__).parent.parent
FLOORS = [
    ["tfcq.quantization", "tfcq.errors", "tfcq.files", "tfcq.native_messages"],
    ["tfcq.nn", "tfcq.data"],
    ["tfcq.backbones", "tfcq.pretraining.losses"],
    ["tfcq.pretraining"],
    ["tfcq.training"],
    ["tfcq.evaluation", "tfcq.post_training", "tfcq.deployment", "tfcq.reporting"],
    [
        "tfcq.settings",
        "tfcq.config",
        "tfcq.settings.unused",
        "tfcq.build",
        "tfcq.command_line",
        "tfcq.settings.run_folder",
        "tfcq.settings.evaluation",
        "tfcq.evaluation_flags",
        "tfcq.evaluation_data",
        "tfcq.measurement",
        "tfcq.opened_subject",
        "tfcq.settings.protocols",
        "tfcq.quantization_aware",
        "tfcq.subject",
    ],
    ["tfcq.train", "tfcq.evaluate", "tfcq.export", "tfcq.report", "tfcq.__main__"],
]
FLAGS_FLOOR = 6
PRIVATE = ("keras.src", "tensorflow.python", "keras._tf_keras", "tf_keras.src")


def within(module: str, package: str) -> bool:
    return module == package or module.startswith(package + ".")


def floor_of(module: str) -> int | None:
    """Returns the floor of a module, None for what stands on no floor (tfcq itself, libraries)."""
    for number, packages in enumerate(FLOORS):
        if any(within(module, package) for package in packages):
            return number
    return None


def imported_modules(source: str) -> set[str]:
    """Returns the full names that a file imports, in functions too."""
    names = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def private_attributes(source: str) -> set[str]:
    """Returns private paths that are reached through attributes, such as `tf.python` modules."""
    dotted = {ast.unparse(n) for n in ast.walk(ast.parse(source)) if isinstance(n, ast.Attribute)}
    return {
        name for name in dotted if name.startswith(("keras.src", "tf.python", "tensorflow.python"))
    }


def violations(module: str, source: str) -> list[str]:
    """Returns what a file does against the rules, one text each."""
    own = floor_of(module)
    found = []
    for name in sorted(imported_modules(source)):
        floor = floor_of(name)
        if floor is not None and own is not None and floor > own:
            found.append(f"{module} (floor {own}) imports {name} (floor {floor})")
        if own is not None and own < FLAGS_FLOOR and within(name, "absl.flags"):
            found.append(f"{module} (floor {own}) imports {name}")
        if within(name, "absl.app"):
            found.append(f"{module} imports {name}")
        if any(within(name, private) for private in PRIVATE):
            found.append(f"{module} imports private {name}")
    return found + [f"{module} reads private {name}" for name in private_attributes(source)]


def modules() -> dict[str, pathlib.Path]:
    paths = sorted((ROOT / "tfcq").rglob("*.py"))
    names = [".".join(path.relative_to(ROOT).with_suffix("").parts) for path in paths]
    return {n.removesuffix(".__init__"): p for n, p in zip(names, paths, strict=True)}


def test_no_file_looks_upwards_or_into_private_modules():
    assert [v for name, path in modules().items() for v in violations(name, path.read_text())] == []


def test_every_file_stands_on_a_floor():
    assert [name for name in modules() if floor_of(name) is None] == ["tfcq"]


@pytest.mark.parametrize(
    ("module", "source", "what"),
    [
        ("tfcq.quantization.ops", "import tfcq.nn.layers", "tfcq.nn.layers (floor 1)"),
        ("tfcq.quantization.ops", "from tfcq.nn import layers", "tfcq.nn.layers (floor 1)"),
        ("tfcq.quantization.ops", "from tfcq import losses", "tfcq.pretraining.losses (floor 2)"),
        (
            "tfcq.nn.layers",
            "def f():\n    from tfcq.config import Config",
            "tfcq.config.Config (floor 6)",
        ),
        ("tfcq.pretraining.losses", "if True:\n    import tfcq.train", "tfcq.train (floor 7)"),
        ("tfcq.evaluation.linear", "from absl import flags", "absl.flags"),
        ("tfcq.pretraining.pretrainer", "from absl.flags import FLAGS", "absl.flags.FLAGS"),
        ("tfcq.nn.layers", "from keras.src.layers import Layer", "private keras.src.layers.Layer"),
        ("tfcq.train", "import tensorflow.python as tp", "private tensorflow.python"),
        ("tfcq.nn.layers", "import keras\nx = keras.src.layers", "private keras.src"),
        ("tfcq.train", "from absl import app", "absl.app"),
    ],
)
def test_violation_is_detected(module, source, what):
    assert any(what in violation for violation in violations(module, source))


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("tfcq.data.pipeline", "from absl import logging"),
        ("tfcq.command_line", "from absl import flags"),
        ("tfcq.nn.layers", "from tfcq.quantization import ops\nfrom tfcq.nn import precision"),
        ("tfcq.train", "from tfcq import build, config"),
    ],
)
def test_what_the_rules_allow_is_no_violation(module, source):
    assert violations(module, source) == []


# Imported before TensorFlow starts, so that a mistake is told at once.
LIGHT = [
    "tfcq.config",
    "tfcq.settings.unused",
    "tfcq.settings.durations",
    "tfcq.command_line",
    "tfcq.settings.run_folder",
    "tfcq.report",
    "tfcq.settings.bitwidths",
    "tfcq.errors",
]
HEAVY = {"tensorflow", "keras", "numpy", "sklearn", "tensorflow_datasets", "matplotlib"}


def loaded_at_import(module: str, seen: set[str]) -> set[str]:
    """Returns every module that importing a module loads, by the text of the files."""
    if module in seen:
        return seen
    seen.add(module)
    path = modules().get(module)
    if path is None:
        return seen
    body = ast.parse(path.read_text()).body
    for node in body:
        if isinstance(node, ast.Import):
            names = {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names = {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
        else:
            continue
        for name in names:
            parts = name.split(".")
            for end in range(1, len(parts) + 1):
                loaded_at_import(".".join(parts[:end]), seen)
    return seen


@pytest.mark.parametrize("module", LIGHT)
def test_what_checks_settings_loads_no_heavy_library(module):
    assert loaded_at_import(module, set()) & HEAVY == set()


def test_heavy_library_is_detected_through_other_files():
    assert "tensorflow" in loaded_at_import("tfcq.build", set())
