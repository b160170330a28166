"""README and docs/: the example runs as written, and what the pages name and link is there."""

import importlib
import json
import pathlib
import re
import subprocess
import sys

import keras
import numpy as np
import pytest
from PIL import Image

import tfcq
from tests.test_fidelity import exists
from tfcq.data.plain_images import labelled_arrays
from tfcq.data.sources import open_source
from tfcq.integer.labels import with_labels
from tfcq.integer.lite_file import LiteFile
from tfcq.integer.runtime import LiteModel

ROOT = pathlib.Path(__file__).parent.parent
README = ROOT / "README.md"
COMMANDS = ("train", "evaluate", "export", "verify", "detect", "features", "report")
PAGES = [README, *sorted((ROOT / "docs").glob("*.md"))]
LINKING = [*PAGES, ROOT / "CONTRIBUTING.md", *sorted((ROOT / "results").glob("*.md"))]
IDEA = (
    "`precision` is a call argument like `training`; `None` is the float pass, in which no "
    "quantization operation exists."
)


def test_example_pretrains_a_users_model_without_flags():
    blocks = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
    assert len(blocks) == 2
    assert len([line for line in blocks[0].splitlines() if line.strip()]) < 20
    names = {}
    exec(compile(blocks[0], str(README), "exec"), names)
    assert names["features"].shape == (1000, 32)
    assert np.all(np.isfinite(names["features"]))
    history = names["pretrainer"].history.history
    assert history["loss"][1] < history["loss"][0]
    page = ROOT / "docs" / "python.md"
    for block in re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL):
        exec(compile(block.replace("epochs=20", "epochs=1"), str(page), "exec"), names)
    assert names["quantized"](names["floats"][:2], precision=tfcq.Precision(4, 4)).shape == (2, 32)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_flag_of_a_command_stands_on_a_page(command):
    text = "\n".join(page.read_text() for page in PAGES)
    flags = importlib.import_module(f"tfcq.{command}").flag_set().help_text()
    names = re.findall(r"^  --(\w+)", flags, re.MULTILINE)
    assert len(names) > 5
    assert [name for name in names if not re.search(rf"--{name}\b", text)] == []


def test_every_public_name_stands_on_the_page_of_python():
    text = (ROOT / "docs" / "python.md").read_text()
    assert [name for name in tfcq.__all__ if not re.search(rf"`{name}\(", text)] == []


def test_example_of_the_device_runs_where_this_library_and_tensorflow_are_not(tmp_path):
    images = labelled_arrays(open_source("digits").split("test"), 8)[0]
    form = tfcq.deployable(with_classes(10))
    tfcq.calibrate(form, images[:64])
    file = LiteFile.read(tfcq.int8_tflite(form, images[:64]))
    names = [f"class {n}" for n in range(10)]
    content = with_labels(file, names)
    file = tmp_path / "runs" / "demo" / "export" / "int8_classifier.tflite"
    file.parent.mkdir(parents=True)
    file.write_bytes(content)
    Image.fromarray(np.round(255 * images[0, ..., 0]).astype(np.uint8)).save(tmp_path / "photo.png")
    script = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)[1]
    hidden = "import sys\nfor name in ('tensorflow', 'keras', 'tfcq'): sys.modules[name] = None\n"
    (tmp_path / "script.py").write_text(hidden + script)
    ended = subprocess.run(
        [sys.executable, "script.py"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stderr[-2000:]
    assert ended.stdout.splitlines()[-1] == names[LiteModel(content)(images[:1]).argmax()]


def with_classes(count):
    """Returns a small network from digits to scores."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((8, 8, 1))
    x = keras.layers.Flatten()(keras.layers.Conv2D(4, 3, activation="relu")(inputs))
    return keras.Model(inputs, keras.layers.Dense(count)(x))


@pytest.mark.parametrize("page", [README, ROOT / "docs/method.md"], ids=lambda path: path.name)
def test_the_idea_stands_in_the_first_ten_lines(page):
    assert IDEA in " ".join(page.read_text().splitlines()[:10])


def test_figures_of_the_readme_are_those_of_results():
    record = json.loads((ROOT / "results/digits.json").read_text())
    for name, means in record["mean"].items():
        cells = zip(means, record["spread"][name], strict=True)
        figures = " | ".join(f"{100 * mean:.1f} ± {100 * spread:.1f}" for mean, spread in cells)
        assert f"| {figures} |" in README.read_text()


def anchors(page: pathlib.Path) -> set[str]:
    """Returns the anchors of a page's headings."""
    headings = re.findall(r"(?m)^#+ (.*)$", page.read_text())
    return {re.sub(r"[^\w\- ]", "", heading).lower().replace(" ", "-") for heading in headings}


def dead_links(text: str, folder: pathlib.Path) -> list[str]:
    """Returns the relative links of a text whose file, or heading in it, is not there."""
    dead = []
    for link in re.findall(r"\]\((?!https?://)([^)\s]+)\)", text):
        file, _, anchor = link.partition("#")
        path = folder / file
        if not path.exists() or (anchor and anchor not in anchors(path)):
            dead.append(link)
    return dead


@pytest.mark.parametrize("page", LINKING, ids=lambda path: path.name)
def test_every_link_leads_to_a_file_and_a_heading_that_exist(page):
    assert dead_links(page.read_text(), page.parent) == []


def test_dead_links_are_noticed():
    text = "[a](no.md) [b](README.md#no) [c](README.md#papers) [d](https://example.org/no.md)"
    assert dead_links(text, ROOT) == ["no.md", "README.md#no"]


def missing(text: str) -> list[str]:
    """Returns the flag files and flags that a text names and that do not exist."""
    files = [name for name in re.findall(r"\bflags/[a-z\d_/-]+\.cfg", text) if not exists(name)]
    flags = re.findall(r"`(--\w+(?:='[^']*'|=[^`\s]*)?)", text)
    return files + [flag for flag in flags if not exists(flag)]


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_every_flag_file_and_flag_that_a_page_names_exists(page):
    assert missing(page.read_text()) == []


def test_flag_files_and_flags_that_are_not_there_are_noticed():
    text = "`--flagfile=flags/digits/no.cfg`, `--no_such=1`, `--policy=no`, `flags/ssql.cfg`"
    assert missing(text) == ["flags/digits/no.cfg", "--no_such=1", "--policy=no"]


@pytest.mark.parametrize("folder", ["tools", "flags", "tfcq"])
def test_every_flag_file_that_a_file_names_exists(folder):
    for path in (ROOT / folder).rglob("*"):
        if path.suffix not in ("", ".py", ".cfg") or not path.is_file():
            continue
        text = path.read_text()
        beside = re.findall(r"(?<![\w/])table\w[\w-]*\.cfg", text)
        named = [*re.findall(r"\bflags/[a-z\d_/-]+\.cfg", text), *beside]
        assert all((path.parent if n in beside else ROOT).joinpath(n).exists() for n in named), path
