"""What the command lines share: flags from settings, errors in one line, quiet start-up.

Imports no TensorFlow, so that a mistake in a flag is told at once.
"""

from tfcq.command_line.flags import GENERAL, Command, FlagSet
from tfcq.command_line.running import FAILURE, USER_ERROR, end, run, tell_next
from tfcq.command_line.start_up import quiet_start_up, stage

__all__ = [
    "FAILURE",
    "GENERAL",
    "USER_ERROR",
    "Command",
    "FlagSet",
    "end",
    "quiet_start_up",
    "run",
    "stage",
    "tell_next",
]
