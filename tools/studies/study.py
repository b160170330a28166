"""Study files of tools/evidence.py: what is trained, how it is scored and what is claimed."""

import dataclasses
import pathlib
import re
import shlex
import tomllib
from typing import Any

from provenance import ROOT

from tfcq.errors import UserError, unknown_choice
from tfcq.settings.bitwidths import parse_bit_widths
from tfcq.settings.saving import SaveEvery, parse_save_every

# As many as tools/studies/figures.py has intervals for.
MOST_SEEDS = 10


@dataclasses.dataclass(frozen=True)
class Scoring:
    """How runs are scored: a section `[protocols.NAME]`.

    Args:
        flags: of tfcq.evaluate, but for `--bits`.
        bits: the bit-widths, comma-separated.
        learning_curve: whether accuracy over the epochs of its training is recorded and drawn.
    """

    flags: str
    bits: str
    learning_curve: bool = False


@dataclasses.dataclass(frozen=True)
class Followed:
    """Accuracy over pre-training: the section `[followed]`.

    Args:
        protocol: name of the scoring.
        epochs: checkpoints that are scored; the flags of the training must keep them.
        bits: the bit-widths, comma-separated.
    """

    protocol: str
    epochs: tuple[int, ...]
    bits: str


@dataclasses.dataclass(frozen=True)
class Row:
    """What is trained and compared: a section `[[rows]]`.

    Args:
        name: as tables have it.
        flags: of tfcq.train, after those of the study; `--flagfile=` may be one.
        baseline: name of the row that it is compared with, seed by seed.
        bits: bit-widths that it is scored at, in place of each protocol's own.
        paper: the paper's figures in percent, by protocol and bit-width.
    """

    name: str
    flags: str
    baseline: str | None = None
    bits: str | None = None
    paper: dict[str, dict[str, float]] = dataclasses.field(default_factory=dict)

    @property
    def slug(self) -> str:
        """The name in names of files."""
        return re.sub(r"\W+", "_", self.name).strip("_").lower()


@dataclasses.dataclass(frozen=True)
class Study:
    """A study.

    Args:
        name: that of its file and of its results.
        title: heading of its page.
        claim: what the paper says.
        flags: of tfcq.train, of all rows.
        seeds: the seeds; every row has them all.
        rows: what is trained.
        protocols: how it is scored, by name.
        followed: how accuracy is followed over pre-training, if it is.
    """

    name: str
    title: str
    claim: str
    flags: str
    seeds: tuple[int, ...]
    rows: tuple[Row, ...]
    protocols: dict[str, Scoring]
    followed: Followed | None = None

    def training(self, row: Row) -> list[str]:
        """Returns the flags of a row's training, those of flag files in place of their names."""
        return _without_files(shlex.split(self.flags) + shlex.split(row.flags))

    def scoring(self, row: Row, name: str) -> list[str]:
        """Returns the flags of a row's scoring."""
        protocol = self.protocols[name]
        return [*shlex.split(protocol.flags), f"--bits={row.bits or protocol.bits}"]

    def following(self, epoch: int) -> list[str]:
        """Returns the flags of scoring after an epoch; the study follows accuracy."""
        assert self.followed is not None
        flags = self.protocols[self.followed.protocol].flags
        return [*shlex.split(flags), f"--bits={self.followed.bits}", f"--checkpoint={epoch}"]

    def settings(self, row: Row) -> dict[str, Any]:
        """Returns all that decides a row's figures, as JSON gives it back."""
        settings: dict[str, Any] = {"training": self.training(row)}
        settings["scoring"] = {name: self.scoring(row, name) for name in self.protocols}
        if self.followed:
            settings["followed"] = {
                **dataclasses.asdict(self.followed),
                "epochs": list(self.followed.epochs),
            }
        return settings


def read_study(path: pathlib.Path) -> Study:
    """Reads a study file.

    Args:
        path: the file.

    Raises:
        UserError: when it cannot be read, or what it names is missing or stands twice.
    """
    try:
        tree = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read as a study: {error}") from None
    rows = tuple(_made(Row, one, f"{path}, rows") for one in tree.pop("rows", []))
    protocols = {
        name: _made(Scoring, one, f"{path}, protocols.{name}")
        for name, one in tree.pop("protocols", {}).items()
    }
    if "followed" in tree:
        tree["followed"] = _made(Followed, tree["followed"], f"{path}, followed")
    if not re.fullmatch(r"\w+", path.stem):
        raise UserError(f"{path}: allowed in a study's name: letters, digits and underscores.")
    whole = {"name": path.stem, **tree, "rows": rows, "protocols": protocols}
    study = _made(Study, whole, str(path))
    _check(study, path)
    return study


def _made(kind: type, given: dict[str, Any], where: str) -> Any:
    """Returns a section as what it is read into; lists of values become tuples."""
    fields = {field.name: field for field in dataclasses.fields(kind)}
    for name in given:
        if name not in fields:
            raise unknown_choice(f"key in {where}", name, fields)
    for name, field in fields.items():
        needed = field.default is field.default_factory is dataclasses.MISSING
        if needed and not given.get(name):
            raise UserError(f"{where}: {name!r} is missing.")
    for name, value in given.items():
        if fields[name].type == tuple[int, ...] and not isinstance(value, list):
            raise UserError(f"{where}: {name!r} is {value!r}; allowed: a list such as [0, 1, 2].")
    return kind(**{name: _read(name, value) for name, value in given.items()})


def _read(name: str, value: Any) -> Any:
    """Returns a value with lists as tuples, and bit-widths as they are called in records."""
    if name == "bits":
        return ",".join(map(str, parse_bit_widths(value)))
    return tuple(value) if isinstance(value, list) else value


def _check(study: Study, path: pathlib.Path) -> None:
    names = [row.name for row in study.rows]
    for given in (names, [row.slug for row in study.rows], list(study.seeds)):
        for one in given:
            if given.count(one) > 1:
                raise UserError(f"{path}: {one!r} stands twice; name each row and seed once.")
    for row in study.rows:
        if row.baseline is not None and row.baseline not in names:
            raise unknown_choice(f"baseline of row {row.name!r}", row.baseline, names)
        for name in row.paper:
            if name not in study.protocols:
                raise unknown_choice(f"protocol in row {row.name!r}", name, study.protocols)
        for name, figures in row.paper.items():
            asked = (row.bits or study.protocols[name].bits).split(",")
            for bits in figures.keys() - {*asked}:
                raise unknown_choice(f"paper's bit-width in row {row.name!r}", bits, asked)
    if len(study.seeds) > MOST_SEEDS:
        raise UserError(f"{path}: {len(study.seeds)} seeds; allowed: up to {MOST_SEEDS}.")
    if study.followed:
        _check_followed(study, study.followed, path)


def _check_followed(study: Study, followed: Followed, path: pathlib.Path) -> None:
    if followed.protocol not in study.protocols:
        raise unknown_choice("followed protocol", followed.protocol, study.protocols)
    for row in study.rows:
        given = [f for f in study.training(row) if f.startswith("--save_every=")]
        save_every = parse_save_every(given[-1].partition("=")[2]) if given else SaveEvery()
        for epoch in followed.epochs:
            if save_every.unit == "epochs" and epoch % save_every.amount:
                raise UserError(
                    f"{path}: epoch {epoch} is followed, and row {row.name!r} is saved every "
                    f"{save_every.amount} epochs; allowed: multiples of {save_every.amount}."
                )


def _without_files(flags: list[str]) -> list[str]:
    """Returns flags with those of a flag file in place of its name."""
    written = []
    for flag in flags:
        if not flag.startswith("--flagfile="):
            written.append(flag)
            continue
        lines = (ROOT / flag.partition("=")[2]).read_text(encoding="utf-8").splitlines()
        written += [line for line in lines if line.startswith("--")]
    return written
