"""Flags of a command from settings, and the command line that they are read from."""

import dataclasses
import os
import re
import types
import typing
from typing import Any

from absl import flags

from tfcq.command_line.start_up import quiet_start_up
from tfcq.errors import UserError
from tfcq.settings import custom_objects
from tfcq.settings.fields import check_fields, parse_value
from tfcq.settings.flag_files import FLAGFILE, files_first

GENERAL = ("help", "version", FLAGFILE, "verbosity", custom_objects.FLAG)
Settings = typing.TypeVar("Settings")


@dataclasses.dataclass(frozen=True)
class Command:
    """A parsed command line.

    Args:
        values: value of every flag.
        given: names of the flags that the user set, on the line or in a flag file.
        arguments: what stands on the line and is no flag, where the command takes such.
    """

    values: dict[str, Any]
    given: set[str]
    arguments: tuple[str, ...] = ()

    def settings(self, kind: type[Settings]) -> Settings:
        """Returns the values of a settings dataclass.

        Args:
            kind: the dataclass.

        Raises:
            UserError: on a value that cannot be used.
        """
        settings = kind(**{name: self.values[name] for name in typing.get_type_hints(kind)})
        check_fields(settings)
        return settings

    @property
    def custom_objects(self) -> str | None:
        """The Python file with the user's own classes and functions, if there is one."""
        return self.values.get(custom_objects.FLAG)

    def start_up(
        self, deterministic: bool = False, doing: str = "", strategy: str | None = "single"
    ) -> None:
        """Imports TensorFlow without its chatter, and makes the user's own classes known.

        Args:
            deterministic: whether the process must repeat its results to the last bit.
            doing: what is told before, as the import takes seconds; empty for nothing.
            strategy: how the work is shared with other processes; None for no work.

        Raises:
            UserError: when their file fails, or the environment names other processes.
        """
        quiet_start_up(self.values["verbosity"], deterministic, doing, strategy)
        if self.custom_objects is not None:
            import keras

            custom_objects.add_defined(self.custom_objects, keras.saving.get_custom_objects())


class FlagSet:
    """The flags of one command, in groups.

    Args:
        usage: one line that says what the command does.
        arguments: what the command takes besides flags, for the help; None for nothing.
        examples: command lines to begin with, which are shown where nothing is given; none where
            the command does something then.
    """

    def __init__(
        self, usage: str, arguments: str | None = None, examples: tuple[str, ...] = ()
    ) -> None:
        self.usage = usage
        self.arguments = arguments
        self.examples = examples
        self.flags = flags.FlagValues()
        # Flags may then stand behind arguments, too.
        self.flags.set_gnu_getopt(arguments is not None)
        self.groups: dict[str, list[str]] = {}
        self.add("General", "help", bool, False, "show this help, as -h does")
        self.add("General", "version", bool, False, "show the version")
        text = "read further flags from this file, one a line; those on the command line win"
        self.add("General", FLAGFILE, str, "", text)
        self.add("General", "verbosity", int, 0, "0 quiet, 1 with TensorFlow's own messages")

    def add(
        self,
        group: str,
        name: str,
        kind: type,
        default: Any,
        text: str,
        choices: tuple[str, ...] | None = None,
    ) -> None:
        """Adds a flag.

        Args:
            group: heading in the help.
            name: name without dashes.
            kind: bool, int, float or str.
            default: value when absent.
            text: what it does.
            choices: allowed values, shown in the help.
        """
        text = f"{text}: {', '.join(choices)}" if choices else text
        flag = flags.Flag(_Reader(name, kind), None, name, default, text, boolean=kind is bool)
        flags.DEFINE_flag(flag, flag_values=self.flags)
        self.groups.setdefault(group, []).append(name)

    def add_custom_objects(self) -> None:
        """Adds the flag of a command that reads models of the user's."""
        text = "Python file with the classes and functions of one's own that a .keras file names"
        self.add("General", custom_objects.FLAG, str, None, text)

    def add_settings(self, group: str, settings: Any) -> None:
        """Adds a flag for every field of a settings dataclass.

        Args:
            group: heading in the help.
            settings: an instance that holds the defaults.
        """
        kinds = typing.get_type_hints(type(settings))
        for field in dataclasses.fields(settings):
            metadata = field.metadata
            kind = _plain_type(kinds[field.name])
            default = getattr(settings, field.name)
            self.add(group, field.name, kind, default, metadata["help"], metadata["choices"])

    def help_text(self) -> str:
        """Returns all flags in their groups, with defaults."""
        lines = [self.usage, *(f"    {example}" for example in self.examples), ""]
        if self.arguments is not None:
            lines += [f"Arguments: {self.arguments}", ""]
        for group, names in self.groups.items():
            lines.append(f"{group}:")
            for name in names:
                flag = self.flags[name]
                # Compared as text, since 0 equals False.
                default = str(flag.default)
                default = "" if default in ("None", "", "False") else f" [{default}]"
                lines.append(f"  --{name:<24} {flag.help}{default}")
            lines.append("")
        return "\n".join(lines)

    def parse(self, arguments: list[str]) -> Command:
        """Reads a command line.

        Args:
            arguments: the arguments, without the program's name.

        Raises:
            UserError: on an unknown flag, a value of the wrong kind, a missing flag file or, where
                the command takes none, an argument that is no flag.
        """
        boolean = {name: bool(self.flags[name].boolean) for name in self.flags}
        try:
            rest = self.flags(["command", *files_first(_long(arguments), boolean)])
        except (flags.Error, ValueError) as error:
            raise UserError(str(error)) from None
        if rest[1:] and self.arguments is None:
            raise UserError(f"Unexpected argument {rest[1]!r}; allowed: flags, --name=value.")
        command = Command(
            {name: self.flags[name].value for name in self.flags},
            {name for name in self.flags if self.flags[name].present},
            tuple(rest[1:]),
        )
        if command.custom_objects is not None:
            custom_objects.check_file(command.custom_objects)
        return command


class _Reader(flags.ArgumentParser):
    """Reads the value of one flag from text.

    Args:
        name: name of the flag.
        kind: bool, int, float or str.
    """

    def __init__(self, name: str, kind: type) -> None:
        super().__init__()
        self.name, self.kind = name, kind

    def parse(self, argument: Any) -> Any:
        """Returns the value that a text stands for.

        Args:
            argument: the text, or a default.
        """
        if not isinstance(argument, str):
            return argument
        try:
            return parse_value(self.name, _with_home(argument), self.kind)
        except UserError as error:
            # Another kind of error would be told together with the flag a second time.
            raise flags.IllegalFlagValueError(str(error)) from None

    def flag_type(self) -> str:
        """Returns the name of the kind."""
        return self.kind.__name__


def _with_home(text: str) -> str:
    """Returns a path with the home for the tilde that shells leave as it is behind `--name=`."""
    return re.sub(
        r"^(\w+:)?(~(?:/.*)?)$",
        lambda found: (found[1] or "") + os.path.expanduser(found[2]),
        text,
        flags=re.DOTALL,
    )


def _plain_type(annotation: Any) -> type:
    """Returns the type of an optional annotation without None."""
    if isinstance(annotation, types.UnionType):
        annotation = next(a for a in typing.get_args(annotation) if a is not type(None))
    return annotation


def _long(arguments: list[str]) -> list[str]:
    """Returns arguments with -h written out."""
    return ["--help" if argument == "-h" else argument for argument in arguments]
