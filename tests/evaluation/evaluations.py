"""Evaluations of tiny networks, and command lines, for the tests of this room."""

import dataclasses
import pathlib

import keras
import numpy as np
import tensorflow as tf

from tfcq import evaluate
from tfcq.data.augmentation import Augmentation
from tfcq.data.split import Split
from tfcq.evaluation.accuracy import LabelledImages
from tfcq.evaluation.classifier import Training
from tfcq.evaluation.evaluation import Evaluation
from tfcq.evaluation.features import QuantizedFeatures
from tfcq.evaluation.subject import Subject
from tfcq.evaluation.sweep import sweep
from tfcq.nn.cloning import copy_of
from tfcq.nn.quantizable import QuantizableModel, quantizable
from tfcq.post_training.plan import Plan
from tfcq.settings.evaluation import EvaluationConfig, evaluation_from_flat
from tfcq.settings.evaluation_groups import ProtocolSettings, SubjectSettings
from tfcq.settings.fields import flat
from tfcq.settings.policies import UNIFORM
from tfcq.settings.training_groups import DataSettings

NO_AUGMENTATION = Augmentation(
    crop_area=(1.0, 1.0), crop_aspect=(1.0, 1.0), flip=0.0, jitter_probability=0.0, saturation=0.0,
    hue=0.0, grayscale=0.0, blur=0.0,
)  # fmt: skip


def sgd(rate=0.1):
    return lambda steps: keras.optimizers.SGD(rate, momentum=0.9)


TRAINING = Training(epochs=20, batch_size=4, optimizer=sgd())

TRAINED = {"linear", "finetune", "semi", "qat"}
WHOLE = TRAINED - {"linear"}
WITH_NEW = TRAINED - {"qat"}
AFTER = {"linear", "knn", "finetune", "classifier"}
# What each flag is for: another value than the default, and the protocols that use it.
FLAGS = {
    "neighbours": (5, {"knn"}),
    "temperature": (0.2, {"knn"}),
    "features": ("augmented", {"linear"}),
    "label_share": (1, {"finetune", "semi"}),
    "from_scratch": (True, {"linear", "knn", "finetune", "semi"}),
    "quantizer": ("pact", {"qat"}),
    "start": ("finetune", {"qat"}),
    "curve_images": (50, WHOLE),
    "keep_classifiers": (True, WHOLE),
    "seed": (1, TRAINED),
    "preset": ({"linear": "ssql", "semi": "contrastive_quant_imagenet_1"}, TRAINED),
    "epochs": (70, TRAINED),
    "batch_size": (64, TRAINED),
    "optimizer": ("lars", TRAINED),
    "learning_rate": (0.3, TRAINED),
    "learning_rate_schedule": ("constant", TRAINED),
    "milestones": ("7epochs", TRAINED),
    "weight_decay": (0.01, TRAINED),
    "crop_area": ("0.5-0.9", TRAINED),
    "classifier_start": ({"linear": "normal", "finetune": "zeros", "semi": "zeros"}, WITH_NEW),
    "equalize": (True, AFTER),
    "mixed_precision": (True, AFTER),
    "weight_scales": ("mse", AFTER),
    "rounding": ("adaround", AFTER),
    "rounding_iterations": (50, AFTER),
    "reestimate_batch_norm": (True, AFTER),
    "correct_biases": (True, AFTER),
}


def command_of(**flags):
    arguments = [f"--{name}={value}" for name, value in flags.items()]
    return evaluate.flag_set().parse(["--verbosity=1", *arguments])


def config_of(**flags):
    flags = {"run_dir": "run", **flags}
    return evaluate.config_of(command_of(**{n: v for n, v in flags.items() if v is not None}))


def flags_of(protocol, name=None):
    """Returns the flags of an evaluation, with one more, and those that it needs."""
    flags = {"protocol": protocol} | ({"label_share": 0.5} if protocol == "semi" else {})
    if name is None:
        return flags
    value = FLAGS[name][0]
    if isinstance(value, dict):
        value = value.get(protocol, next(iter(value.values())))
    return flags | needed_beside(protocol, name) | {name: value}


def needed_beside(protocol, name):
    """Returns the flags without which one has no effect."""
    if name == "crop_area":
        return {"features": "augmented"} if protocol == "linear" else {}
    needed = {
        "milestones": {"learning_rate_schedule": "step"},
        "rounding_iterations": {"rounding": "block"},
    }
    return needed.get(name, {})


@dataclasses.dataclass(frozen=True)
class TinySubject(Subject):
    """A subject whose training augmented images as it is told."""

    augmentation: Augmentation = NO_AUGMENTATION

    def standard_augmentation(self, size, channels):
        return self.augmentation


def subject_of(model, policy=UNIFORM, augmentation=NO_AUGMENTATION):
    return TinySubject(
        model, policy, DataSettings(), pathlib.Path("no_results"), "tiny", "tiny", "as trained",
        True, augmentation=augmentation,
    )  # fmt: skip


def split_of(images, labels):
    """Returns a split of uint8 images [count, height, width, channels]."""
    records = tf.data.Dataset.from_tensor_slices(
        {"index": np.arange(len(images), dtype=np.int64), "image": images, "label": labels}
    )
    return Split("train", len(images), images.shape[1:], ("a", "b"), records, lambda r: r, 16)


def brightness(shape=(2, 2, 1)):
    """Returns a network whose two features are the mean brightness and its negative."""
    inputs = keras.Input(shape)
    x = keras.layers.Conv2D(2, 1, use_bias=False, name="conv")(inputs)
    model = keras.Model(inputs, keras.layers.GlobalAveragePooling2D(name="features")(x))
    model.get_layer("conv").set_weights([np.array([1.0, -1.0]).reshape(1, 1, 1, 2)])
    return quantizable(model, "uniform")


def evaluation_of(model, images, labels, test=None, calibration=None, classes=2, **flags):
    """Returns an evaluation of a model on uint8 images, which are also the test images by default.

    Args:
        model: quantizable model.
        images: uint8 [count, height, width, channels].
        labels: int [count].
        test: float test images and their labels.
        calibration: float calibration images; default the training images.
        classes: number of classes.
        **flags: settings by flag name.
    """
    train = images.astype(np.float32) / 255
    config = EvaluationConfig(
        subject=SubjectSettings(run_dir="run"), measurement=ProtocolSettings(bits="fp,8w8a")
    )
    return asking(
        Evaluation(
            config,
            subject_of(model),
            split_of(images, labels),
            LabelledImages(train, labels, *(test or (train, labels)), classes),
            train if calibration is None else calibration,
            Plan(),
        ),
        **flags,
    )


def tiny_evaluation():
    """Returns an evaluation whose class 1 is bright; one of four test images is on the wrong side.

    It asks for fp and 8w8a.
    """
    levels = np.array([10, 30, 20, 40, 200, 220, 210, 250], np.uint8)
    images = np.broadcast_to(levels[:, None, None, None], (8, 2, 2, 1)).copy()
    test = np.array([15, 240, 35, 205], np.float32)[:, None, None, None] / 255
    test = np.broadcast_to(test, (4, 2, 2, 1)).copy(), np.array([0, 0, 0, 1])
    return evaluation_of(brightness(), images, np.array([0] * 4 + [1] * 4, np.int64), test)


def asking(evaluation: Evaluation, **flags) -> Evaluation:
    """Returns the evaluation with other settings, by the names of their flags."""
    config = evaluation_from_flat({**flat(evaluation.config), **flags})
    return dataclasses.replace(evaluation, config=config)


def with_model(evaluation: Evaluation, model: QuantizableModel) -> Evaluation:
    """Returns the evaluation of another model."""
    subject = dataclasses.replace(evaluation.subject, model=model)
    return dataclasses.replace(evaluation, subject=subject)


def on_features(evaluation, scorer):
    """Yields the accuracy of what scores the features of the evaluation's backbone."""
    features = QuantizedFeatures(evaluation.post_training(copy_of(evaluation.backbone)).at)
    for _, result in sweep(features, evaluation.data, evaluation.bit_widths, {"scored": scorer}):
        yield result


EXPECTED = [("fp", 0.75, 1.0, round(5 / 6, 6)), ("8w8a", 0.75, 1.0, round(5 / 6, 6))]


def figures(results):
    return [(r.bits, r.top1, r.top5, round(r.mean_per_class, 6)) for r in results]


def losses_of(results):
    (found,) = (one for one in results if one.curve is not None)
    return [point["loss"] for point in found.curve]
