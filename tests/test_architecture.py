"""Floors of the house: a file imports only from floors below it, or from its own."""

import ast
import pathlib
import re
import sys

import pytest

ROOT = pathlib.Path(__file__).parent.parent
FLOORS = [
    ["tfcq.errors", "tfcq.files", "tfcq.native_messages", "tfcq.parsing"],
    ["tfcq.settings", "tfcq.command_line"],
    ["tfcq.quantization"],
    ["tfcq.nn", "tfcq.data"],
    ["tfcq.backbones", "tfcq.training", "tfcq.post_training", "tfcq.integer"],
    ["tfcq.pretraining", "tfcq.evaluation"],
    ["tfcq.deployment", "tfcq.reporting", "tfcq.detection"],
    [
        "tfcq.train",
        "tfcq.evaluate",
        "tfcq.export",
        "tfcq.detect",
        "tfcq.features",
        "tfcq.report",
        "tfcq.verify",
        "tfcq.__main__",
    ],
]
COMMANDS = FLOORS[-1]
# What settings may import beside themselves and the standard library.
GROUND = ("tfcq.errors", "tfcq.files", "tfcq.parsing")
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


def allowed_in_settings(name: str) -> bool:
    """Whether settings may import a module: they stay light, so that mistakes are told early."""
    ground = any(within(name, part) for part in ("tfcq.settings", *GROUND))
    return ground or name.partition(".")[0] in sys.stdlib_module_names


def violations(module: str, source: str) -> list[str]:
    """Returns what a file does against the rules, one text each."""
    own = floor_of(module)
    found = []
    for name in sorted(imported_modules(source)):
        floor = floor_of(name)
        if floor is not None and own is not None and floor > own:
            found.append(f"{module} (floor {own}) imports {name} (floor {floor})")
        if within(name, "tfcq") and floor is None and name != "tfcq.__version__":
            # The public names stand for files of every floor.
            found.append(f"{module} imports {name} by its public name")
        if within(name, "absl.flags") and module != "tfcq.command_line.flags":
            found.append(f"{module} imports {name}")
        if within(module, "tfcq.settings") and not allowed_in_settings(name):
            found.append(f"{module} imports {name}; allowed: {', '.join(GROUND)}")
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


def unpinned_draws(source: str) -> list[str]:
    """Returns the draws of a file that leave their generator to the device."""
    calls = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)]
    return [
        ast.unparse(call)
        for call in calls
        if re.fullmatch(r"tf\.random(\.experimental)?\.\w+", ast.unparse(call.func))
        and not any(
            keyword.arg == "alg" and ast.unparse(keyword.value) == "GENERATOR"
            for keyword in call.keywords
        )
    ]


def test_every_draw_names_its_generator():
    # Under XLA, and so on TPUs, the device's own would be another one.
    assert [
        found for path in modules().values() for found in unpinned_draws(path.read_text())
    ] == []
    unpinned = "tf.random.stateless_uniform([2], seed)"
    assert unpinned_draws(f"def f():\n    return {unpinned} + 1") == [unpinned]
    assert unpinned_draws("tf.random.experimental.stateless_fold_in(seed, 1, alg='auto')")
    # Its name stands in one place.
    assert unpinned_draws("tf.random.stateless_uniform([2], seed, alg='philox')")
    assert not unpinned_draws("tf.random.stateless_uniform([2], seed, alg=GENERATOR)")


def test_every_file_stands_on_a_floor():
    assert [name for name in modules() if floor_of(name) is None] == ["tfcq"]


@pytest.mark.parametrize(
    ("module", "source", "what"),
    [
        ("tfcq.quantization.ops", "import tfcq.nn.layers", "tfcq.nn.layers (floor 3)"),
        ("tfcq.quantization.ops", "from tfcq.nn import layers", "tfcq.nn.layers (floor 3)"),
        ("tfcq.quantization.ops", "from tfcq import evaluation", "tfcq.evaluation (floor 5)"),
        (
            "tfcq.nn.layers",
            "def f():\n    from tfcq.evaluation.run import evaluate",
            "tfcq.evaluation.run.evaluate (floor 5)",
        ),
        ("tfcq.nn.layers", "import tfcq", "tfcq by its public name"),
        ("tfcq.nn.layers", "from tfcq import Pretrainer", "tfcq.Pretrainer by its public name"),
        ("tfcq.pretraining.losses", "if True:\n    import tfcq.train", "tfcq.train (floor 7)"),
        ("tfcq.evaluation.probe", "from absl import flags", "absl.flags"),
        ("tfcq.train", "from absl.flags import FLAGS", "absl.flags.FLAGS"),
        ("tfcq.nn.layers", "from keras.src.layers import Layer", "private keras.src.layers.Layer"),
        ("tfcq.train", "import tensorflow.python as tp", "private tensorflow.python"),
        ("tfcq.nn.layers", "import keras\nx = keras.src.layers", "private keras.src"),
        ("tfcq.train", "from absl import app", "absl.app"),
        ("tfcq.settings.training", "def f():\n    import numpy", "numpy; allowed: tfcq.errors"),
        ("tfcq.settings.training", "from tfcq import command_line", "tfcq.command_line"),
    ],
)
def test_violation_is_detected(module, source, what):
    assert any(what in violation for violation in violations(module, source))


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("tfcq.data.order", "from absl import logging"),
        ("tfcq.command_line.flags", "from absl import flags"),
        ("tfcq.nn.layers", "from tfcq.quantization import ops\nfrom tfcq.nn import precision"),
        ("tfcq.train", "from tfcq.settings import training\nfrom tfcq.pretraining import run"),
        ("tfcq.settings.training", "import json\nfrom tfcq.settings.fields import setting"),
    ],
)
def test_what_the_rules_allow_is_no_violation(module, source):
    assert violations(module, source) == []


def circle(graph: dict[str, set[str]]) -> list[str]:
    """Returns a circle of files that import each other, the first one found, or nothing."""
    done: set[str] = set()

    def walk(name: str, path: list[str]) -> list[str]:
        if name in path:
            return path[path.index(name) :]
        if name in done:
            return []
        found = next((c for n in sorted(graph[name]) if (c := walk(n, [*path, name]))), [])
        done.add(name)
        return found

    return next((found for name in sorted(graph) if (found := walk(name, []))), [])


def import_graph() -> dict[str, set[str]]:
    """Returns for every file the files that it imports, in functions too."""
    known = modules()
    graph = {}
    for name, path in known.items():
        names = imported_modules(path.read_text())
        names |= {n.rpartition(".")[0] for n in names}
        graph[name] = (names & known.keys()) - {name, "tfcq"}
    return graph


def test_no_files_import_each_other_in_a_circle():
    assert circle(import_graph()) == []
    assert circle({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == ["b", "c"]


def test_the_top_of_the_package_is_small():
    assert len(list((ROOT / "tfcq").glob("*.py"))) <= 13


def test_no_command_has_more_than_100_lines():
    paths = modules()
    assert [name for name in COMMANDS if len(paths[name].read_text().splitlines()) > 100] == []


def lines_of_code(function: ast.FunctionDef) -> int:
    """Returns how many lines a function has without its docstring."""
    lines = function.end_lineno - function.lineno + 1
    first = function.body[0]
    documented = ast.get_docstring(function) is not None
    return lines - (first.end_lineno - first.lineno + 1 if documented else 0)


def test_no_function_has_more_than_60_lines_beside_its_docstring():
    long = {
        f"{name}.{node.name}": lines
        for name, path in modules().items()
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef) and (lines := lines_of_code(node)) > 60
    }
    assert long == {}


def names_a_protocol(line: str, names: set[str]) -> bool:
    """Whether a line of code holds a protocol's name; some are also those of other things."""
    quoted = set(re.findall(r"[\"'](\w+)[\"']", line)) & names
    return bool(quoted - {"linear", "classifier"}) or (bool(quoted) and "protocol" in line.lower())


def test_protocols_are_named_in_their_table_and_their_own_files_alone():
    from tfcq.settings.protocols import PROTOCOLS

    names = set(PROTOCOLS)
    assert names_a_protocol('if name in ("semi",):', names)
    assert names_a_protocol('protocol == "linear"', names)
    own = ("tfcq.settings.protocols", "tfcq.evaluation.protocols")
    found = [
        f"{name}: {line.strip()}"
        for name, path in modules().items()
        if not any(within(name, one) for one in own)
        for line in path.read_text().splitlines()
        if names_a_protocol(line, names)
    ]
    assert found == []


# Imported before TensorFlow starts, so that a mistake is told at once.
LIGHT = ["tfcq.command_line", "tfcq.errors", "tfcq.settings", *COMMANDS]
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
    assert "tensorflow" in loaded_at_import("tfcq.evaluation.run", set())
