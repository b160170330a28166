"""tfcq: quantization-friendly self-supervised learning for Keras."""

import importlib
import os
import sys
from typing import Any

__version__ = "0.1.0"

# Loaded on first use, so that command lines can tell a mistake before TensorFlow's start-up.
_HOME_OF = {
    "Augmentation": "tfcq.data.augmentation",
    "BitWidth": "tfcq.settings.bitwidths",
    "FeatureExtractor": "tfcq.evaluation.features",
    "Policy": "tfcq.settings.policies",
    "Precision": "tfcq.quantization.precision",
    "Pretrainer": "tfcq.pretraining.pretrainer",
    "RecordRanges": "tfcq.quantization.precision",
    "calibrate": "tfcq.nn.calibration",
    "deployable": "tfcq.integer.form",
    "int8_tflite": "tfcq.deployment.tflite",
    "load": "tfcq.pretraining.loading",
    "load_detector": "tfcq.detection.saved",
    "float_model": "tfcq.nn.float_model",
    "quantizable": "tfcq.nn.quantizable",
    "requantizable": "tfcq.nn.float_model",
    "Framework": "tfcq.pretraining.framework",
    "LARS": "tfcq.training.lars",
    "cifar_resnet": "tfcq.backbones.cifar_resnet",
    "mobilenet_v2": "tfcq.backbones.mobilenet_v2",
    "resnet": "tfcq.backbones.resnet",
    "vision_transformer": "tfcq.backbones.vision_transformer",
    "summary": "tfcq.nn.summary",
    "two_views": "tfcq.data.user_images",
}

__all__ = sorted(_HOME_OF)


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(
            f"module 'tfcq' has no attribute {name!r}; it has {', '.join(__all__)}"
        )
    _check_backend()
    return getattr(importlib.import_module(_HOME_OF[name]), name)


def _check_backend() -> None:
    """Raises an `ImportError` in one line in place of what another backend would break in."""
    keras = sys.modules.get("keras")
    chosen = os.environ.get("KERAS_BACKEND", "tensorflow")
    backend = keras.backend.backend() if hasattr(keras, "backend") else chosen
    if backend != "tensorflow":
        raise ImportError(
            f"Keras runs on backend {backend!r}; allowed for tfcq: KERAS_BACKEND=tensorflow, set "
            "before Keras is imported."
        )
    if hasattr(keras, "config") and keras.config.image_data_format() != "channels_last":
        raise ImportError(
            "Keras has image_data_format 'channels_first'; allowed for tfcq: "
            "keras.config.set_image_data_format('channels_last')."
        )


def __dir__() -> list[str]:
    return __all__
