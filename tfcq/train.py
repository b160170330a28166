"""Pre-trains a backbone: `python -m tfcq.train --flagfile=flags/ssql.cfg`."""

import dataclasses

from tfcq import command_line
from tfcq.settings.checkpoints import is_checkpoint
from tfcq.settings.defaults import left_open
from tfcq.settings.fields import flat
from tfcq.settings.recipes import RECIPES
from tfcq.settings.run_folder import RunFolder, default_run_dir, network_of_start
from tfcq.settings.saving import OF_A_START
from tfcq.settings.starting import StartSettings
from tfcq.settings.training import Config, config_from_flat
from tfcq.settings.unused import check_used


def flag_set() -> command_line.FlagSet:
    """Returns the command's flags."""
    flags = command_line.FlagSet(
        "Pre-trains a backbone without labels: python -m tfcq.train",
        examples=(
            "python -m tfcq.train --dataset=digits --epochs=20    the digits of scikit-learn",
            "python -m tfcq.train --dataset=folder:PATH           images of your own",
            "python -m tfcq.train --flagfile=flags/ssql.cfg       settings from a file",
            "python -m tfcq.train --run_dir=RUN                   a run that was cut off goes on",
        ),
    )
    flags.add("General", "run_dir", str, None, "folder of the run; alone: go on with the run there")
    flags.add_custom_objects()
    flags.add("General", "list_recipes", bool, False, "print the recipes and leave")
    flags.add_settings("General", StartSettings())
    for group in dataclasses.fields(Config):
        flags.add_settings((group.default.__doc__ or "").rstrip("."), group.default)
    return flags


def settings_of(command: command_line.Command) -> tuple[Config, RunFolder, frozenset[str]]:
    """Returns the settings of a command line, the folder of its run, and what was left open.

    Args:
        command: the parsed command line.

    Raises:
        UserError: on a value that cannot be used, a flag that would change nothing, or no run.
    """
    run_dir = command.values["run_dir"]
    beside = {*command_line.GENERAL, "run_dir", *dataclasses.asdict(StartSettings()), *OF_A_START}
    if run_dir and command.given <= beside:
        folder, given = RunFolder(run_dir), {name: command.values[name] for name in command.given}
        config = folder.load_unfinished(given, ", or flags of a new run such as --dataset=digits")
        check_used(config, command.given)
        return config, folder, frozenset()
    values = {name: command.values[name] for name in flat(Config())}
    if is_checkpoint(values["start"]):
        from tfcq.backbones.public_networks import settings_of_start

        values |= settings_of_start(values, command.given)
    elif values["start"] is not None:
        values |= network_of_start(values["start"], command.given)
    config = config_from_flat(values)
    check_used(config, command.given)
    folder = RunFolder(run_dir or default_run_dir(config))
    config, names = left_open(config, command.given, folder)
    return config, folder, names


def main(command: command_line.Command) -> None:
    """Trains, or goes on with, one run.

    Args:
        command: the parsed command line.
    """
    if command.values["list_recipes"]:
        print("\n".join(f"{name:<22}{recipe}" for name, recipe in RECIPES.items()))
        return
    start = command.settings(StartSettings)
    config, folder, names = settings_of(command)
    folder.check(config)
    # What makes no step does no work that processes could share.
    strategy = None if start.preview or start.dry_run else config.execution.strategy
    command.start_up(config.execution.deterministic, strategy=strategy)
    if start.dry_run:
        from tfcq.pretraining.dry_run import dry_run

        print(dry_run(config, folder, names, start.accelerators()))
        return
    if start.preview:
        from tfcq.pretraining.preview import draw_preview

        here = command.values["run_dir"] is None
        print(draw_preview(config, RunFolder("." if here else folder.path).preview, names))
        return
    from tfcq.pretraining.run import train

    train(config, folder, names, start.profiled_steps())
    command_line.tell_next("evaluate", run_dir=folder.path, custom_objects=command.custom_objects)


if __name__ == "__main__":
    command_line.run(flag_set(), main)
