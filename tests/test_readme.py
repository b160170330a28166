"""README and docs/: the example runs as written, and what the pages name and link is there."""

import json
import pathlib
import re

import numpy as np
import pytest

from tests.test_fidelity import exists

ROOT = pathlib.Path(__file__).parent.parent
README = ROOT / "README.md"
PAGES = [README, *sorted((ROOT / "docs").glob("*.md"))]
LINKING = [*PAGES, ROOT / "CONTRIBUTING.md", *sorted((ROOT / "results").glob("*.md"))]
IDEA = (
    "`precision` is a call argument like `training`; `None` is the float pass, in which no "
    "quantization operation exists."
)


def test_example_pretrains_a_users_model_without_flags():
    blocks = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
    assert len(blocks) == 1
    assert len([line for line in blocks[0].splitlines() if line.strip()]) < 20
    names = {}
    exec(compile(blocks[0], str(README), "exec"), names)
    assert names["features"].shape == (1000, 32)
    assert np.all(np.isfinite(names["features"]))
    history = names["pretrainer"].history.history
    assert history["loss"][1] < history["loss"][0]


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
