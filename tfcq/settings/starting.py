"""What a start of the command does beside the run, which does not know of it."""

import dataclasses

from tfcq.errors import UserError
from tfcq.settings.devices import Devices, parse_devices
from tfcq.settings.fields import setting
from tfcq.settings.profiling import ProfiledSteps, parse_profile


@dataclasses.dataclass(frozen=True)
class StartSettings:
    """One start of the command.

    Raises:
        UserError: on text that cannot be read, or flags that would change nothing.
    """

    preview: bool = setting(
        False, "draw views as the first step sees them into --run_dir, or here, and leave"
    )
    dry_run: bool = setting(
        False, "check the run, print what it costs (operations, memory, exchange), and leave"
    )
    devices: str | None = setting(
        None, "accelerators whose hours and memory --dry_run tells, such as 8xA100"
    )
    profile: str | None = setting(
        None, "steps of the run under TensorFlow's profiler, counted from 1, such as 20-30"
    )

    def __post_init__(self) -> None:
        if self.preview and self.dry_run:
            raise UserError("--preview with --dry_run; allowed: one of them.")
        if self.devices is not None and not self.dry_run:
            raise UserError(
                f"--devices={self.devices} has no effect here: it is planned for, not trained on; "
                "allowed with --dry_run."
            )
        if self.profile is not None and (self.preview or self.dry_run):
            raise UserError(
                f"--profile={self.profile} has no effect here: no step is made; leave it out."
            )
        self.accelerators()
        self.profiled_steps()

    def accelerators(self) -> Devices | None:
        """Returns the accelerators that the run is planned for; None where none are named."""
        return None if self.devices is None else parse_devices(self.devices)

    def profiled_steps(self) -> ProfiledSteps | None:
        """Returns the steps to profile; None for none."""
        return None if self.profile is None else parse_profile(self.profile)
