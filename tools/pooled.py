#!/usr/bin/env python3
"""Takes the seeds of studies that trained and scored the same together, and writes their page.

    .venv/bin/python tools/pooled.py ssql_mobilenet ssql_mobilenet_norms --protocol=linear

Reads the studies and their records, and writes `results/FIRST_pooled.md`. Flags that decide what is
kept on disk may differ; all others may not.
"""

import argparse
import dataclasses
import pathlib
import sys
from collections.abc import Sequence

from evidence import earlier
from studies.figures import Record
from studies.page import scores
from studies.study import ROOT, Study, read_study

from tfcq.errors import UserError, unknown_choice
from tfcq.files import write_text

# These change no figure.
SAVING = ("--save_every=", "--keep=")


def decisive(study: Study, protocol: str) -> dict[str, tuple[list[str], list[str]]]:
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
        row.name: (
            [flag for flag in study.training(row) if not flag.startswith(SAVING)],
            study.scoring(row, protocol),
        )
        for row in study.rows
    }


def pooled(studies: Sequence[Study], protocol: str) -> Study:
    """Returns a study with the seeds of all.

    Args:
        studies: two or more, in any order.
        protocol: how all are scored.

    Raises:
        UserError: when they trained or scored differently, or share a seed.
    """
    first = studies[0]
    for other in studies[1:]:
        if decisive(other, protocol) != decisive(first, protocol):
            raise UserError(f"Studies {first.name} and {other.name} have other rows or flags.")
    seeds = [seed for study in studies for seed in study.seeds]
    if len(set(seeds)) < len(seeds):
        raise UserError(f"A seed stands in two studies: {sorted(seeds)}; name others.")
    return dataclasses.replace(first, seeds=tuple(sorted(seeds)))


def page(study: Study, names: Sequence[str], protocol: str, records: Sequence[Record]) -> str:
    """Returns the page of the seeds of all.

    Args:
        study: the study that has them all.
        names: of the studies.
        protocol: how they are scored.
        records: of every row and seed.
    """
    runs = len(study.rows) * len(study.seeds)
    studies = " and ".join(f"[{name}]({name}.md)" for name in names)
    blocks = [
        f"# {study.title}: {' and '.join(names)} taken together",
        f"Studies {studies} trained and scored the same with other seeds; {len(records)} of {runs} "
        "runs have ended. Commits, wall time and versions stand on their pages. Differences are "
        "paired by seed, with a 95% interval by Student's t.",
        *scores(study, protocol, study.protocols[protocol], records),
        f"- Command: `.venv/bin/python tools/pooled.py {' '.join(names)} --protocol={protocol}`",
    ]
    return "\n\n".join(blocks) + "\n"


def main() -> None:
    """Reads the studies' records and writes the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("studies", nargs="+", metavar="study", help="names in tools/studies")
    parser.add_argument("--protocol", default="linear", help="how all were scored [linear]")
    arguments = parser.parse_args()
    results: pathlib.Path = ROOT / "results"
    try:
        studies = [read_study(ROOT / f"tools/studies/{name}.toml") for name in arguments.studies]
        study = pooled(studies, arguments.protocol)
        records = [r for one in studies for r in earlier(results / f"{one.name}.json", one)]
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    text = page(study, arguments.studies, arguments.protocol, records)
    write_text(results / f"{study.name}_pooled.md", text)
    print(text)


if __name__ == "__main__":
    main()
