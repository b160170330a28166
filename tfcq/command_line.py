"""What the command lines share: flags from settings, errors in one line, quiet start-up.

Imports no TensorFlow, so that a mistake in a flag is told at once.
"""

import dataclasses
import io
import logging
import os
import pathlib
import shlex
import sys
import types
import typing
from collections.abc import Callable
from typing import Any

from absl import flags

import tfcq
from tfcq import interruption, native_messages
from tfcq.errors import TrainingStopped, UserError
from tfcq.settings import custom_objects
from tfcq.settings.fields import check_fields, parse_value
from tfcq.settings.flag_files import FLAGFILE, files_first

USER_ERROR = 2
FAILURE = 1
GENERAL = ("help", "version", FLAGFILE, "verbosity", custom_objects.FLAG)
# Longer words are cut in messages: paths are not.
_LONGEST_WORD = 400
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

    def start_up(self, deterministic: bool = False, doing: str = "") -> None:
        """Imports TensorFlow without its chatter, and makes the user's own classes known.

        Args:
            deterministic: whether the process must repeat its results to the last bit.
            doing: what is told before, as the import takes seconds; empty for nothing.

        Raises:
            UserError: when their file fails.
        """
        quiet_start_up(self.values["verbosity"], deterministic, doing)
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
            return parse_value(self.name, argument, self.kind)
        except UserError as error:
            # Another kind of error would be told together with the flag a second time.
            raise flags.IllegalFlagValueError(str(error)) from None

    def flag_type(self) -> str:
        """Returns the name of the kind."""
        return self.kind.__name__


def _plain_type(annotation: Any) -> type:
    """Returns the type of an optional annotation without None."""
    if isinstance(annotation, types.UnionType):
        annotation = next(a for a in typing.get_args(annotation) if a is not type(None))
    return annotation


def _long(arguments: list[str]) -> list[str]:
    """Returns arguments with -h written out."""
    return ["--help" if argument == "-h" else argument for argument in arguments]


def stage(text: str) -> None:
    """Prints what is done now and takes a while.

    Args:
        text: what it is.
    """
    print(f"{text} ...", flush=True)


def tell_next(command: str, *arguments: Any, **named: Any) -> None:
    """Prints the command to try next.

    Args:
        command: its name.
        *arguments: what it takes besides flags.
        **named: values of its flags; None to leave one out.
    """
    flags = (f"--{name}={value}" for name, value in named.items() if value is not None)
    words = [*map(str, arguments), *flags]
    print(f"Next: python -m tfcq.{command} {shlex.join(words)}")


def _in_words(error: Exception) -> str:
    """Returns what an error says, of one of the system without its number."""
    if not isinstance(error, OSError) or error.strerror is None:
        return str(error)
    return f"{error.strerror}: {error.filename}." if error.filename else f"{error.strerror}."


def _one_line(text: str) -> str:
    """Returns a message in one line of printable characters, its longest words cut."""
    words = "".join(c if c.isprintable() or c.isspace() else ascii(c)[1:-1] for c in text).split()
    cut = (word if len(word) <= _LONGEST_WORD else f"{word[:60]}...{word[-20:]}" for word in words)
    return " ".join(cut)


def run(flag_set: FlagSet, main: Callable[[Command], int | None]) -> None:
    """Parses the process's arguments, runs a command and exits with its code.

    Exit codes: what `main` returns (None is 0), 1 when training had to stop, 2 on a user error.

    Args:
        flag_set: the command's flags.
        main: takes the parsed command line.
    """
    interruption.watch()
    # Of what a terminal cannot show, such as a file name that is no text, its number is shown.
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        if flag_set.examples and not sys.argv[1:]:
            print("\n    ".join((flag_set.usage, *flag_set.examples)))
            print("--help lists all flags.")
            sys.exit(USER_ERROR)
        command = flag_set.parse(sys.argv[1:])
        if command.values["help"]:
            print(flag_set.help_text())
            sys.exit(0)
        if command.values["version"]:
            print(f"tfcq {tfcq.__version__}")
            sys.exit(0)
        sys.exit(main(command) or 0)
    except (UserError, OSError) as error:
        print(f"error: {_one_line(_in_words(error))}", file=sys.stderr)
        sys.exit(USER_ERROR)
    except TrainingStopped as error:
        print(f"stopped: {_one_line(str(error))}", file=sys.stderr)
        sys.exit(FAILURE)
    except KeyboardInterrupt:
        interruption.leave()


def _is_own(record: logging.LogRecord) -> bool:
    """Whether a message of a log comes from this project."""
    return pathlib.Path(__file__).parent in pathlib.Path(record.pathname).parents


def quiet_start_up(verbosity: int, deterministic: bool = False, doing: str = "") -> None:
    """Imports TensorFlow without its chatter, unless that is asked for.

    Args:
        verbosity: the flag of that name.
        deterministic: whether the process must repeat its results to the last bit.
        doing: what is told before, as the import takes seconds; empty for nothing.
    """
    if doing:
        stage(doing)
    if deterministic:
        # Seen with oneDNN: gradients of a strided 1x1 convolution that differ from run to run.
        os.environ["TF_ENABLE_ONEDNN_OPTS"] = "0"
    else:
        # TensorFlow leaves it off on some CPUs where a step was seen to take 1.5 times as long.
        os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
    if verbosity >= 1:
        return
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    with native_messages.hidden():
        import keras  # noqa: F401
        import tensorflow as tf
    # Libraries log on absl's logger too, which nobody who runs a command can mend.
    logging.getLogger("absl").addFilter(_is_own)
    # It would tell of functions that are traced anew on purpose.
    tf.get_logger().setLevel("ERROR")
