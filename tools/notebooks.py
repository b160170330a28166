#!/usr/bin/env python3
"""Makes a notebook of every script under examples/, cell by cell at its `# %%` marks.

    .venv/bin/python tools/notebooks.py

Writes `NAME.ipynb` beside `NAME.py`. What stands behind a mark becomes the cell's first line, a
comment; a cell of `# %% [markdown]` is text.
"""

import argparse
import json
import pathlib
import re

from tfcq.files import write_text

ROOT = pathlib.Path(__file__).resolve().parent.parent
MARK = re.compile(r"(?m)^# %%(.*)\n")


def main() -> None:
    """Writes all notebooks."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.parse_args()
    for script in sorted((ROOT / "examples").glob("*.py")):
        write_text(script.with_suffix(".ipynb"), notebook(script.read_text()))


def notebook(source: str) -> str:
    """Returns a script as the JSON of a notebook, without what stands before its first mark."""
    _, *parts = MARK.split(source)
    cells = [
        cell(f"cell-{number}", title.strip(), text)
        for number, (title, text) in enumerate(zip(parts[::2], parts[1::2], strict=True))
    ]
    about = {
        "cells": cells,
        "metadata": {
            "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
            "language_info": {"name": "python"},
        },
        "nbformat": 4,
        "nbformat_minor": 5,
    }
    return json.dumps(about, indent=1) + "\n"


def cell(name: str, title: str, text: str) -> dict:
    """Returns one cell of a notebook."""
    text = text.strip("\n")
    if title == "[markdown]":
        lines = re.sub(r"(?m)^# ?", "", text).splitlines(keepends=True)
        return {"cell_type": "markdown", "id": name, "metadata": {}, "source": lines}
    lines = f"# {title}\n{text}" if title else text
    return {
        "cell_type": "code",
        "execution_count": None,
        "id": name,
        "metadata": {},
        "outputs": [],
        "source": lines.splitlines(keepends=True),
    }


if __name__ == "__main__":
    main()
