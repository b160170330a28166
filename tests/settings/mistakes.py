"""What tests of settings share: the message of a mistake, and settings that are none."""

import pytest

from tfcq.errors import UserError


def error_of(function, *arguments) -> str:
    with pytest.raises(UserError) as caught:
        function(*arguments)
    message = str(caught.value)
    assert "\n" not in message
    return message


CHANGED = {
    "dataset": "fashion_mnist", "data_dir": "/d", "download": True, "image_size": 32, "flip": 0.25,
    "crop_area": "0.2-1", "backbone": "resnet50", "stem": "imagenet", "width": 3,
    "policy": "uniform",
    "recipe": "v1@q->v2@fp", "weight_bits": "2,4", "bit_schedule": "list", "epochs": 7,
    "learning_rate": 0.3, "warmup": "1.5epochs", "seed": 9, "deterministic": True,
    "framework": "byol", "target_momentum": 0.9, "optimizer": "lars",
    "learning_rate_schedule": "step", "milestones": "3epochs,5epochs",
}  # fmt: skip
