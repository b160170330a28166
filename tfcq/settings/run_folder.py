"""The folder of a run: what lies where, and whether it belongs to the settings at hand."""

import difflib
import importlib.metadata
import os
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

from tfcq.errors import UserError
from tfcq.files import UNFINISHED, check_local, check_writable, read_text, write_text
from tfcq.parsing import parse_json
from tfcq.settings.backbones import FILE, settings_of, standard_start
from tfcq.settings.checkpoints import CHECKPOINTS_HELP
from tfcq.settings.config_file import config_from_json
from tfcq.settings.fields import differences, flat
from tfcq.settings.run_lock import LOCK
from tfcq.settings.run_position import RunPosition, kept_positions
from tfcq.settings.saving import OF_A_START
from tfcq.settings.training import Config, config_from_flat
from tfcq.settings.used import used, used_alike

LATEST = "latest"


class RunFolder:
    """Paths inside a run's folder.

    Args:
        path: the folder.

    Raises:
        UserError: when it is an address, such as of a bucket.
    """

    def __init__(self, path: str | os.PathLike) -> None:
        check_local(path)
        self.path = pathlib.Path(path)
        self.config = self.path / "config.json"
        self.history = self.path / "history.csv"
        self.starts = self.path / "starts.csv"
        self.checkpoints = self.path / "checkpoints"
        self.backbone = self.path / "backbone.keras"
        self.lock = self.path / LOCK
        self.preview = self.path / "preview.png"
        self.features = self.path / "features"
        self.tracked_run = self.path / "tracked_run.txt"
        self.tensorboard = self.path / "tensorboard"
        self.evaluation = self.path / "evaluation"
        self.export = self.path / "export"
        self.detection = self.path / "detection"

    def check(self, config: Config, settle: Callable[[Config], Config] | None = None) -> None:
        """Refuses a folder that cannot take this run.

        Args:
            config: the settings.
            settle: gives what a run of such settings uses; None where data and network, which
                decide some of it, are not known yet.

        Raises:
            UserError: when the folder holds a run with other settings, showing the difference,
                or files but no run.
        """
        if self.config.exists():
            now = flat(config)
            kept = config_from_flat({**flat(self._read()), **{n: now[n] for n in OF_A_START}})
            pair = (settle(kept), settle(config)) if settle else used_alike(kept, config)
            changed = differences(*pair)
            if changed:
                begun = kept_positions(self.checkpoints) or self.backbone.exists()
                way_out = (
                    "give the same settings to go on with it, or another --run_dir, which "
                    f"--start={self.path} lets begin with its weights."
                    if begun
                    else "it has no checkpoint yet: remove the folder, or give another --run_dir."
                )
                raise UserError(
                    f"{self.path} holds a run with other settings ({'; '.join(changed)}); {way_out}"
                )
            return
        if self.path.is_file():
            raise UserError(f"{self.path} exists and holds no run: it is a file.")
        check_writable(self.path)
        ours = (self.preview, self.lock)
        held = self.path.iterdir() if self.path.exists() else ()
        if any(f not in ours and not f.name.startswith(UNFINISHED) for f in held):
            raise UserError(
                f"{self.path} exists and holds no run; allowed: a new or empty folder, or a run."
            )

    def begin(self, config: Config, settle: Callable[[Config], Config] = used) -> None:
        """Checks the folder and writes what a new run uses.

        Args:
            config: the settings.
            settle: gives what a run of such settings uses.

        Raises:
            UserError: when the folder cannot take this run.
        """
        self.check(config, settle)
        if not self.config.exists():
            write_text(self.config, settle(config).to_json(asked=_changed(config)))

    def asked(self, config: Config) -> set[str]:
        """Returns the names of the settings of which a run asked for another than the usual.

        Args:
            config: the settings of the run.
        """
        tree = parse_json(read_text(self.config), str(self.config))
        if "asked" in tree:
            return set(tree["asked"])
        # Earlier versions recorded nothing but that, and had one stem where none was asked for.
        unasked = {"stem"} if tree.get("network", {}).get("stem") is None else set()
        return set(_changed(config)) - unasked

    def told_version(self) -> str | None:
        """Returns, in a line, that another version began the run; None where that changes nothing.

        Versions that noted no generator left it to the device: under XLA, and so on TPUs, they drew
        other bits than those since, and everywhere another order of keys.
        """
        tree = parse_json(read_text(self.config), str(self.config))
        wrote, runs = tree.get("version"), importlib.metadata.version("tfcq")
        execution = self._read().execution
        compiled = execution.xla or execution.strategy == "tpu"
        draws = "generator" not in tree and (compiled or execution.batch_norm == "shuffled")
        if wrote == runs and not draws:
            return None
        by = f"tfcq {wrote}" if wrote not in (None, runs) else "an earlier tfcq"
        others = "; from here on, steps draw otherwise than they would have" if draws else ""
        return f"{self.path} was begun by {by}, this is {runs}{others}."

    @property
    def _hint(self) -> str:
        """Names the run beside this folder whose name is nearest, if one is near."""
        beside = {file.parent.name: file.parent for file in self.path.parent.glob("*/config.json")}
        near = difflib.get_close_matches(self.path.name, beside, n=1)
        return f" Did you mean {beside[near[0]]}?" if near else ""

    def load(self) -> Config:
        """Returns the configuration of a run.

        Raises:
            UserError: when the folder is missing, or holds no run or no trained backbone.
        """
        config = self.load_unfinished()
        if not self.backbone.exists():
            raise UserError(
                f"The run in {self.path} has not ended yet; `python -m tfcq.train "
                f"--run_dir={self.path}` goes on with it, --checkpoint={LATEST} scores it as it is."
            )
        return config

    def load_unfinished(self, given: Mapping[str, Any] = {}, new: str = "") -> Config:
        """Returns the configuration of a run that may still be going on.

        Args:
            given: values of flags, of which those that may change from start to start count.
            new: how a folder that is not there may be named, for the message.

        Raises:
            UserError: when the folder is missing or holds no run.
        """
        if not self.config.exists():
            found = f"{self.path} holds no config.json"
            if not self.path.is_dir():
                found = f"Folder {str(self.path)!r} "
                found += "is no folder" if self.path.exists() else "does not exist"
            raise UserError(f"{found}; allowed: a run's folder{new}.{self._hint}")
        changed = {name: value for name, value in given.items() if name in OF_A_START}
        config = self._read()
        return config_from_flat(flat(config) | changed) if changed else config

    def position_of(self, checkpoint: str) -> RunPosition:
        """Returns where in the run a checkpoint was written.

        Args:
            checkpoint: `latest`, or the position as text.

        Raises:
            UserError: when there is no such checkpoint.
        """
        kept = {str(position): position for position in kept_positions(self.checkpoints)}
        if not kept:
            raise UserError(
                f"{self.path} holds no checkpoint yet; the first is written before its first step."
            )
        if checkpoint == LATEST:
            return max(kept.values())
        if checkpoint not in kept:
            raise UserError(
                f"--checkpoint={checkpoint} is not in {self.checkpoints}; allowed: {LATEST}, "
                f"{', '.join(kept)}."
            )
        return kept[checkpoint]

    def _read(self) -> Config:
        try:
            return config_from_json(read_text(self.config))
        except UserError as error:
            raise UserError(f"{self.config} cannot be used: {error}") from None


def start_file(start: str) -> pathlib.Path:
    """Returns the file with the weights that another run starts with.

    Args:
        start: a `.keras` file, or the folder of a run that has ended.
    """
    return pathlib.Path(start) if start.endswith(".keras") else RunFolder(start).backbone


def network_of_start(start: str, given: set[str]) -> dict[str, Any]:
    """Returns the settings of the network that a run takes over with its first weights.

    Args:
        start: a `.keras` file, or the folder of a run that has ended.
        given: names of the settings that the user set, which stay.

    Raises:
        UserError: when there is no such file or run.
    """
    if start.endswith(".keras"):
        if not pathlib.Path(start).is_file():
            raise UserError(f"--start={start} does not exist; allowed: a .keras file, or a run.")
        return {} if "backbone" in given else {"backbone": f"{FILE}:{start}"}
    try:
        network = RunFolder(start).load().network
    except UserError as error:
        others = f"Other files of weights are .keras, {CHECKPOINTS_HELP}."
        hint = "" if pathlib.Path(start).is_dir() else f" {others}"
        raise UserError(f"--start={start} cannot be used: {error}{hint}") from None
    if "backbone" in given:
        return {}
    names = {"backbone", *settings_of(network.backbone)} - given
    return {name: getattr(network, name) for name in names}


def _changed(config: Config) -> list[str]:
    """Returns the names of the settings that are not the usual ones."""
    usual = flat(Config()) | standard_start(config.network.stem)
    # What is open follows images and network.
    return [n for n, value in flat(config).items() if value not in (usual[n], None)]


def default_run_dir(config: Config) -> str:
    """Returns the folder of a run that names none: data set, framework, recipe and seed."""
    parts = (config.data.dataset, config.method.framework, config.method.recipe)
    name = "_".join("".join(c if c.isalnum() else "-" for c in part) for part in parts)
    return str(pathlib.Path("runs") / f"{name}_seed{config.execution.seed}")
