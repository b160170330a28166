"""What an exported file is checked on, and must keep."""

import dataclasses

from tfcq.settings.fields import setting


@dataclasses.dataclass(frozen=True)
class GateSettings:
    """The check of a file, tensor by tensor."""

    images: int = setting(
        1000,
        "test images, and training images where those are fewer, of the check tensor by tensor",
        at_least=1,
    )


@dataclasses.dataclass(frozen=True)
class ExportSettings(GateSettings):
    """The comparison of a file with what was evaluated."""

    min_agreement: float = setting(
        0.99, "exit with 1 below this top-1 agreement", at_least=0, at_most=1
    )
    classifier: bool = setting(
        False, "the outputs are logits, compare them as they are; default under a linear probe"
    )
