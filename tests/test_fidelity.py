"""docs/fidelity.md covers both papers, and names files, names and flags that exist."""

import pathlib
import re

import pytest

from tfcq import detect, evaluate, export, report, train
from tfcq.settings.recipes import recipe_named

ROOT = pathlib.Path(__file__).parent.parent
TEXT = (ROOT / "docs/fidelity.md").read_text()
ROWS = [
    [cell.strip() for cell in line[1:-1].split("|")]
    for line in TEXT.splitlines()
    if line.startswith("| ") and not line.startswith("| What |")
]
QUOTED = sorted(set(re.findall(r"`([^`]+)`", TEXT)))
FLAG_SETS = [command.flag_set() for command in (train, evaluate, export, report, detect)]
STATES = {"equal", "as their code", "reading", "different", "not built", "no code"}
# Equations, tables and figures of each paper.
NUMBERED = {"SSQL": (21, 13, 11), "Contrastive Quant": (9, 9, 2)}


def numbers(text):
    """Returns the numbers that `Eqs. 2, 5 to 7: ...` opens with."""
    found = set()
    for first, last in re.findall(r"(\d+)(?: to (\d+))?", text.split(":")[0]):
        found |= set(range(int(first), int(last or first) + 1))
    return found


@pytest.mark.parametrize("paper", NUMBERED)
def test_every_equation_table_and_figure_has_a_row(paper):
    sections = [part for part in TEXT.split("\n## ") if part.startswith(paper)]
    lines = [line[2:] for part in sections for line in part.splitlines() if line[:2] == "| "]
    for kind, count in zip((r"Eqs?\. ", r"Tables? ", r"Figs?\. "), NUMBERED[paper], strict=True):
        named = [numbers(line[match.end() :]) for line in lines if (match := re.match(kind, line))]
        assert set().union(*named) == set(range(1, count + 1)), kind


def test_every_row_says_how_it_stands_and_every_difference_why():
    assert len(ROWS) > 90
    for row in ROWS:
        assert len(row) == 4 and row[2] in STATES, row
        assert bool(row[1]) == (row[2] not in ("not built", "no code")), row
        assert row[3] or row[2] == "equal", row


def exists(quoted):
    """Returns whether a quoted file, name in a file, or flag exists; None for other quotes."""
    if quoted.startswith("--"):
        name, _, value = quoted.removeprefix("--").partition("=")
        flags = [found.flags[name] for found in FLAG_SETS if name in found.flags]
        if name == "recipe" and value:
            return bool(flags) and bool(recipe_named(value.strip("'")).pairs)
        # The help of a flag with a fixed list of values ends in it.
        lists = [re.search(r": ([\w, ]+)$", flag.help) for flag in flags if value]
        return bool(flags) and (not value or any(not m or value in m[1].split(", ") for m in lists))
    file, _, name = quoted.partition(":")
    if not re.match(r"(tfcq|flags|tests|tools|docs)/", file):
        return None
    paths = list(ROOT.glob(file))
    defined = rf'(?m)^(def|class) {name}\b|^{name}\b.*=|"{name}"' if name else ""
    return bool(paths) and all(re.search(defined, path.read_text()) for path in paths if name)


def test_what_is_named_exists():
    known = {quoted: exists(quoted) for quoted in QUOTED}
    assert sum(found is not None for found in known.values()) > 150
    assert [quoted for quoted, found in known.items() if found is False] == []


def test_files_and_flags_that_are_not_there_would_be_noticed():
    for wrong in (
        "tfcq/no_such.py", "tfcq/pretraining/losses.py:no_such", "flags/ssql/table99_*.cfg",
        "--no_such", "--policy=no_such", "tests/no_such.py",
    ):  # fmt: skip
        assert exists(wrong) is False
    assert (
        exists("tfcq/pretraining/losses.py:negative_cosine")
        and exists("--policy=paper")
        and exists("--xla")
    )
    assert exists("paper") is None
