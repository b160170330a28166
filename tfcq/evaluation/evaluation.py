"""An evaluation, resolved once from its settings, its subject and its data."""

import dataclasses
import pathlib
from collections.abc import Iterator, Mapping

import numpy as np

from tfcq.data.augmentation import Augmentation
from tfcq.errors import UserError
from tfcq.evaluation.accuracy import Accuracy
from tfcq.evaluation.data import calibration_images, labelled_images
from tfcq.evaluation.features import QuantizedFeatures
from tfcq.evaluation.model_subject import open_model
from tfcq.evaluation.run_subject import open_run
from tfcq.evaluation.scoring import Scoring, file_stem
from tfcq.evaluation.subject import Subject
from tfcq.evaluation.sweep import Scorer, sweep
from tfcq.files import whole_file
from tfcq.nn.cloning import copy_of
from tfcq.nn.quantizable import QuantizableModel
from tfcq.post_training.plan import Calibration, Plan, PostTraining, check_plan
from tfcq.post_training.rounding import RoundingSettings
from tfcq.settings.bitwidths import FLOAT, BitWidth
from tfcq.settings.evaluation import EvaluationConfig
from tfcq.settings.evaluation_groups import CalibrationSettings
from tfcq.settings.fields import share_range
from tfcq.settings.protocol_groups import LEARNED_ROUNDINGS
from tfcq.settings.protocols import Protocol
from tfcq.settings.run_folder import RunFolder

# Up to so many pixels a side a preset's crop is not taken: no source has such images, and 0.08 of
# an 8x8 one is a patch of two pixels a side.
_SMALL_IMAGE = 16


@dataclasses.dataclass(frozen=True)
class Evaluation(Scoring):
    """What every protocol is given of a network.

    Args:
        subject: what is evaluated; no protocol changes its model.
        calibration_images: float array [count, height, width, channels].
        plan: the steps after training.
    """

    subject: Subject
    calibration_images: np.ndarray
    plan: Plan

    @property
    def backbone(self) -> QuantizableModel:
        """Quantizable model from images to features, or to logits."""
        return self.subject.model

    @property
    def bit_widths(self) -> tuple[BitWidth, ...]:
        """The bit-widths, in the order of the results."""
        return self.config.bit_widths

    @property
    def columns(self) -> tuple[BitWidth, ...]:
        """The bit-widths, under which figures stand."""
        return self.bit_widths

    def scored(self, scorers: Mapping[str, Scorer]) -> Iterator[tuple[str, Accuracy]]:
        """Yields protocol and accuracy at each bit-width, from frozen features.

        Args:
            scorers: by protocol, what gives the accuracy from features.
        """
        features = QuantizedFeatures(self.post_training(copy_of(self.backbone)).at)
        for name, result in sweep(features, self.data, self.bit_widths, scorers):
            yield name, result.chosen_by(features.run)

    @property
    def image_size(self) -> int:
        """Height and width of the images, in pixels."""
        return self.data.train_images.shape[1]

    def post_training(self, model: QuantizableModel) -> PostTraining:
        """Returns a trained model as the plan quantizes it at any bit-width.

        Args:
            model: the trained model.
        """
        return PostTraining(model, self.calibration_images, self.plan)

    def calibration(self, model: QuantizableModel) -> Calibration:
        """Returns what sets a model's activation ranges.

        Args:
            model: the model.
        """
        return Calibration(model, self.calibration_images, self.plan)

    def augmentation(self, protocol: Protocol) -> Augmentation:
        """Returns how a protocol augments labelled images: crops and flips, colours as they are.

        Crops are those given, or the preset's on images above 16 pixels; flips, and crops where
        there is no such, are those of the run, or else the standard of the image size.

        Args:
            protocol: the protocol.
        """
        size, channels = self.image_size, self.data.train_images.shape[3]
        standard = self.subject.standard_augmentation(size, channels)
        asked = self.config.training.crop_area
        if protocol.presets and size > _SMALL_IMAGE:
            asked = protocol.training(self.config.training).crop_area
        area = share_range("crop_area", asked) or standard.crop_area
        return dataclasses.replace(
            standard, crop_area=area, jitter_probability=0.0, grayscale=0.0, blur=0.0
        )

    def keep(self, protocol: Protocol, bits: BitWidth, network: QuantizableModel) -> None:
        """Writes a trained network beside the results, if that was asked for.

        Args:
            protocol: what trained it.
            bits: the bit-width that it was trained at.
            network: the network.
        """
        if not self.config.measurement.keep_classifiers:
            return
        file = _kept_file(self.config, self.subject, protocol, bits)
        with whole_file(file) as temporary:
            network.save(temporary)
        print(f"Classifier: {file}", flush=True)


def open_evaluation(config: EvaluationConfig) -> Evaluation:
    """Opens the subject and the data of an evaluation, and refuses what does not fit.

    Args:
        config: the settings.

    Raises:
        UserError: when the subject or the data cannot be had or do not fit each other.
    """
    subject = open_subject(config)
    _check_kept(config, subject)
    shape = subject.model.input_shape
    fitted = not config.scores_logits
    split, data = labelled_images(
        subject.data, shape, config.data.test_images, config.test_crop, fitted=fitted
    )
    chosen = config.calibration
    images = calibration_images(
        data.train_images, chosen.calibration_images, chosen.calibration_seed
    )
    plan = plan_of(config)
    check_plan(subject.model, plan)
    return Evaluation(config, subject, split, data, images, plan)


def open_subject(config: EvaluationConfig) -> Subject:
    """Returns what an evaluation is about.

    Args:
        config: the settings.

    Raises:
        UserError: when it cannot be read, or not be quantized as asked for.
    """
    folder = config.subject.run_dir
    subject = open_model(config) if folder is None else open_run(config, RunFolder(folder))
    subject.check_weights()
    return subject


def plan_of(config: EvaluationConfig) -> Plan:
    """Returns the steps after training that an evaluation asks for.

    Args:
        config: the settings.
    """
    steps = dataclasses.asdict(config.post_training)
    iterations = steps.pop("rounding_iterations")
    if steps["rounding"] not in LEARNED_ROUNDINGS:
        # That of the quantizers themselves, see `open_subject`.
        steps["rounding"] = "nearest"
    learning = RoundingSettings(iterations=iterations, seed=config.measurement.seed)
    return Plan(
        calibration=config.calibration.calibration or "minmax",
        calibration_pass=config.calibration.calibration_pass,
        # Ranges that were asked for in another way than usual are recorded anew.
        keep_ranges=config.calibration == CalibrationSettings(),
        learning=learning,
        **steps,
    )


def _kept_file(
    config: EvaluationConfig, subject: Subject, protocol: Protocol, bits: BitWidth
) -> pathlib.Path:
    stem = file_stem(config, subject.results, protocol)
    return stem.with_name(f"{stem.name}_{bits}.keras")


def _check_kept(config: EvaluationConfig, subject: Subject) -> None:
    """Refuses to replace a classifier that an earlier evaluation kept.

    Raises:
        UserError: naming the file.
    """
    if not config.measurement.keep_classifiers:
        return
    for protocol in (p for p in config.protocols if p.trains_network):
        for bits in (FLOAT,) if protocol.keeps_float else config.bit_widths:
            file = _kept_file(config, subject, protocol, bits)
            if file.exists():
                raise UserError(f"{file} exists; move it away, or leave out --keep_classifiers.")
