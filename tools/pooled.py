#!/usr/bin/env python3
"""Takes the seeds of studies that trained and scored the same together, and writes their page.

    .venv/bin/python tools/pooled.py ssql_mobilenet ssql_mobilenet_norms --protocol=linear

Reads the studies and their records, and writes `results/FIRST_pooled.md`, of another protocol than
`linear` `results/FIRST_pooled_PROTOCOL.md`. Flags that decide what is kept on disk may differ; all
others may not.
"""

import argparse
import dataclasses
import pathlib
import sys
from collections.abc import Sequence

from studies.figures import Record
from studies.page import scores
from studies.records import earlier
from studies.study import ROOT, Study, read_study

from tfcq.errors import UserError, unknown_choice
from tfcq.files import write_text
from tfcq.settings.saving import OF_A_START

LINEAR = "linear"
# These change no figure.
SAVING = tuple(f"--{name}=" for name in OF_A_START)


def decisive(study: Study, protocol: str) -> dict[str, list[str]]:
    """Returns the flags that decide each row's figures: those of training and of scoring.

    Args:
        study: the study.
        protocol: how it is scored.

    Raises:
        UserError: when it is not scored so.
    """
    if protocol not in study.protocols:
        raise unknown_choice(f"--protocol of study {study.name}", protocol, study.protocols)
    return {
        row.name: [
            *(flag for flag in study.training(row) if not flag.startswith(SAVING)),
            *study.scoring(row, protocol),
        ]
        for row in study.rows
    }


def pooled(studies: Sequence[Study], protocol: str) -> Study:
    """Returns a study with the seeds of all.

    Args:
        studies: two or more, in any order.
        protocol: how all are scored.

    Raises:
        UserError: when it is one alone, or they trained or scored differently, or share a seed.
    """
    first, *others = studies
    if not others:
        raise UserError(f"{first.name} alone; allowed: two studies or more.")
    ours = decisive(first, protocol)
    for other in others:
        theirs = decisive(other, protocol)
        for name in {**ours, **theirs}:
            one, two = ours.get(name, ["no such row"]), theirs.get(name, ["no such row"])
            if one != two:
                differing = [flag for flag in [*one, *two] if (flag in one) != (flag in two)]
                raise UserError(
                    f"Row {name!r} is not the same in {first.name} and {other.name}: "
                    f"{' '.join(differing)}."
                )
    seeds = sorted(seed for study in studies for seed in study.seeds)
    if twice := sorted({seed for seed in seeds if seeds.count(seed) > 1}):
        raise UserError(f"Seed {twice[0]} stands in two studies; it counts once.")
    return dataclasses.replace(first, seeds=tuple(seeds))


def page(study: Study, names: Sequence[str], protocol: str, records: Sequence[Record]) -> str:
    """Returns the page of the seeds of all.

    Args:
        study: the study that has them all.
        names: of the studies.
        protocol: how they are scored.
        records: of every row and seed.

    Raises:
        UserError: on more seeds than there are intervals for.
    """
    runs, bits = len(study.rows) * len(study.seeds), study.protocols[protocol].bits.split(",")
    studies = " and ".join(f"[{name}]({name}.md)" for name in names)
    blocks = [
        f"# {study.title}: {' and '.join(names)} taken together",
        f"Studies {studies} trained and scored the same with other seeds; {len(records)} of {runs} "
        "runs have ended. Commits, wall time and versions stand on their pages. Differences are "
        "paired by seed, with a 95% interval by Student's t for each width by itself: by chance "
        f"{0.05 * len(bits):.1f} of {len(bits)} such intervals leave out zero. Where a study was "
        "begun because of what another had found, these intervals are too narrow; those of its own "
        "page are not.",
        *scores(study, protocol, study.protocols[protocol], records),
        f"- Command: `.venv/bin/python tools/pooled.py {' '.join(names)} --protocol={protocol}`",
    ]
    return "\n\n".join(blocks) + "\n"


def main() -> None:
    """Reads the studies' records and writes the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("studies", nargs="+", metavar="study", help="names in tools/studies")
    parser.add_argument("--protocol", default=LINEAR, help=f"how all were scored [{LINEAR}]")
    arguments = parser.parse_args()
    protocol, results = arguments.protocol, ROOT / "results"
    try:
        studies = [read_study(named(name)) for name in arguments.studies]
        study = pooled(studies, protocol)
        records = [r for one in studies for r in earlier(results / f"{one.name}.json", one)]
        text = page(study, arguments.studies, protocol, records)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    kind = "" if protocol == LINEAR else f"_{protocol}"
    write_text(results / f"{study.name}_pooled{kind}.md", text)
    print(text)


def named(name: str) -> pathlib.Path:
    """Returns the file of a study.

    Args:
        name: its name.

    Raises:
        UserError: when there is none of that name.
    """
    files = {file.stem: file for file in (ROOT / "tools" / "studies").glob("*.toml")}
    if name not in files:
        raise unknown_choice("study", name, files)
    return files[name]


if __name__ == "__main__":
    main()
