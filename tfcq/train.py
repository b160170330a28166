"""Pre-trains a backbone: `python -m tfcq.train --flagfile=flags/ssql.cfg`."""

import dataclasses

from tfcq import command_line
from tfcq.settings.fields import flat
from tfcq.settings.recipes import RECIPES
from tfcq.settings.run_folder import RunFolder, default_run_dir
from tfcq.settings.training import Config, config_from_flat
from tfcq.settings.unused import check_used


def flag_set() -> command_line.FlagSet:
    """Returns the command's flags."""
    flags = command_line.FlagSet("Pre-trains a backbone without labels: python -m tfcq.train")
    flags.add("General", "run_dir", str, None, "folder of the run; a run there is gone on with")
    flags.add("General", "list_recipes", bool, False, "print the recipes and leave")
    for group in dataclasses.fields(Config):
        flags.add_settings((group.default.__doc__ or "").rstrip("."), group.default)
    return flags


def main(command: command_line.Command) -> None:
    """Trains, or goes on with, one run.

    Args:
        command: the parsed command line.
    """
    if command.values["list_recipes"]:
        print_recipes()
        return
    names = flat(Config())
    config = config_from_flat({k: v for k, v in command.values.items() if k in names})
    check_used(config, command.given)
    folder = RunFolder(command.values["run_dir"] or default_run_dir(config))
    folder.check(config)
    command_line.quiet_start_up(command.values["verbosity"], config.execution.deterministic)
    from tfcq.pretraining.run import train

    train(config, folder)


def print_recipes() -> None:
    """Prints every recipe as the text that --recipe takes."""
    for name, recipe in RECIPES.items():
        print(f"{name:<22}{recipe}")


if __name__ == "__main__":
    command_line.run(flag_set(), main)
