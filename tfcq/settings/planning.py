"""What a command tells of a run without training it."""

import dataclasses

from tfcq.errors import UserError
from tfcq.settings.devices import Devices, parse_devices
from tfcq.settings.fields import setting


@dataclasses.dataclass(frozen=True)
class PlanSettings:
    """Looking ahead.

    Raises:
        UserError: on accelerators that cannot be read, or flags that would change nothing.
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

    def __post_init__(self) -> None:
        if self.preview and self.dry_run:
            raise UserError("--preview with --dry_run; allowed: one of them.")
        if self.devices is not None and not self.dry_run:
            raise UserError(
                f"--devices={self.devices} has no effect here: it is planned for, not trained on; "
                "allowed with --dry_run."
            )
        self.accelerators()

    def accelerators(self) -> Devices | None:
        """Returns the accelerators that the run is planned for; None where none are named."""
        return None if self.devices is None else parse_devices(self.devices)
