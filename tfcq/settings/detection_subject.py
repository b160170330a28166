"""Whose backbone detects: a run's, a Keras model's, or that of a public file of weights."""

import dataclasses
import pathlib

from tfcq.errors import UserError
from tfcq.settings.backbones import NORMALIZATION, normalization
from tfcq.settings.checkpoints import CHECKPOINTS_HELP, is_checkpoint
from tfcq.settings.fields import setting
from tfcq.settings.run_folder import RunFolder


@dataclasses.dataclass(frozen=True)
class DetectionSubject:
    """Whose backbone detects."""

    run_dir: str | None = setting(None, "folder of the run")
    model: str | None = setting(
        None, f"instead of a run: PATH.keras, a ResNet of this library, or {CHECKPOINTS_HELP}"
    )
    input_mean: str | None = setting(
        None,
        f"of --model={CHECKPOINTS_HELP}: mean of each channel of images in [0, 1]; default what "
        "the file tells, else ImageNet's",
    )
    input_std: str | None = setting(None, "standard deviation of each channel, beside --input_mean")
    output_dir: str | None = setting(None, "where all is written; default RUN/detection/DETECTOR")
    from_scratch: bool = setting(False, "random weights instead of the backbone's")

    @property
    def file(self) -> pathlib.Path:
        """The file of the backbone."""
        if self.model is not None:
            return pathlib.Path(self.model)
        return RunFolder(str(self.run_dir)).backbone

    @property
    def normalization(self) -> dict[str, str]:
        """What the user says of a public file's pixels, by setting."""
        told = {name: getattr(self, name) for name in sorted(NORMALIZATION)}
        return {name: value for name, value in told.items() if value is not None}

    def check(self) -> None:
        """Refuses settings that do not go together.

        Raises:
            UserError: naming them.
        """
        if (self.run_dir is None) == (self.model is None):
            missing = "is missing" if self.run_dir is None else "and --model were both given"
            raise UserError(
                f"--run_dir {missing}; give the folder of a run that tfcq.train made, or a model "
                "with --model."
            )
        if self.model is not None and self.output_dir is None:
            raise UserError(f"--output_dir is missing; --model={self.model} needs it.")
        public = is_checkpoint(self.model)
        if self.model is not None and not (public or self.model.endswith(".keras")):
            raise UserError(
                f"Unknown model {self.model!r}; allowed: PATH.keras, {CHECKPOINTS_HELP}."
            )
        for name in self.normalization if not public else ():
            raise UserError(
                f"--{name} has no effect here: a run and a model of Keras have their own; "
                f"allowed with --model={CHECKPOINTS_HELP} alone."
            )
        normalization(self.input_mean, self.input_std)

    def check_files(self) -> None:
        """Refuses a backbone that is not there.

        Raises:
            UserError: saying what is missing.
        """
        if self.run_dir is not None:
            RunFolder(self.run_dir).load()
        elif not self.file.is_file():
            raise UserError(f"{self.file} does not exist; allowed: a {self.file.suffix} file.")
