"""The backbone that a detection starts from, in whichever file it is."""

import keras

from tfcq.backbones.public_models import model_from_checkpoint
from tfcq.nn.loading import load
from tfcq.settings.checkpoints import is_checkpoint
from tfcq.settings.detection_subject import DetectionSubject

# Of a public file, which need not tell one: detectors take images of any size.
_ANY_SIZE = 224


def opened_backbone(subject: DetectionSubject) -> keras.Model:
    """Returns a backbone; that of a public file takes images in [0, 1], and a line tells of it.

    Args:
        subject: which.

    Raises:
        UserError: when its file cannot be read.
    """
    path = str(subject.file)
    if not is_checkpoint(subject.model):
        return load(path)
    backbone, told = model_from_checkpoint(path, _ANY_SIZE, dict(subject.normalization))
    print(f"{path}: {told}", flush=True)
    return backbone
