"""Run folders made by hand, with nothing trained."""

import json
import pathlib

import keras

from tfcq.settings.bitwidths import BitWidth
from tfcq.settings.run_folder import RunFolder
from tfcq.settings.training import Config, config_from_flat

FIGURES = {"fp": 0.9, "4w4a": 0.8}


def evaluation(top1: dict[str, float], **changed) -> dict:
    """Returns an evaluation with accuracies by bit-width."""
    return {
        "dataset": "digits",
        "protocol": "linear",
        "results": [{"bits": bits, "top1": value, "top5": 1.0} for bits, value in top1.items()],
        "policy": "as trained",
        "calibration": {"method": "minmax", "images": 1000},
        "train_images": 1437,
        "test_images": 360,
        "seed": 0,
        "data_fingerprint": "0123456789abcdef",
        "versions": {"tensorflow": "2.0.0"},
        "settings": {"epochs": 60},
        "earlier": [],
    } | changed


def make_run(path: pathlib.Path, **settings) -> RunFolder:
    """Returns a run that has begun, and nothing else."""
    folder = RunFolder(path)
    folder.begin(config_from_flat(settings) if settings else Config())
    return folder


def evaluate(folder: RunFolder, record: dict, name: str = "linear") -> None:
    """Gives a run an evaluation."""
    folder.evaluation.mkdir(exist_ok=True)
    (folder.evaluation / f"{name}.json").write_text(json.dumps(record))


def end(folder: RunFolder) -> None:
    """Gives a run a backbone, as it was initialized, with ranges as training leaves them."""
    import numpy as np

    from tfcq.backbones.resnet import resnet
    from tfcq.nn.calibration import calibrate
    from tfcq.nn.quantizable import quantizable

    keras.utils.set_random_seed(0)
    model = resnet(18, "cifar", 16, (8, 8, 1), blocks=(1, 1))
    backbone = quantizable(model, "paper")
    calibrate(backbone, np.random.default_rng(0).random((8, 8, 8, 1), "float32"))
    backbone.save(folder.backbone)


def whole_run(path: pathlib.Path, **settings) -> RunFolder:
    """Returns a run with everything a report shows."""
    folder = make_run(path, **settings)
    end(folder)
    folder.history.write_text(
        "epoch,loss,error_correlation\n1,-0.1,0.02\n2,-0.5,-0.01\n3,-0.7,0.00\n"
    )
    evaluate(folder, evaluation(FIGURES))
    curve = [{"epoch": 1, "loss": 2.0, "top1": 0.5}, {"epoch": 2, "loss": 1.0, "top1": 0.7}]
    trained = evaluation({"2w4a": 0.7}, protocol="qat")
    trained["results"][0]["curve"] = curve
    evaluate(folder, trained, "qat_lsq")
    folder.export.mkdir()
    figures = {"agreement": 0.994, "evaluated_bits": "8w8a", "bytes": {"int8": 1234, "float": 4321}}
    (folder.export / "int8.json").write_text(json.dumps(figures))
    return folder


BITS = (BitWidth(None, None), BitWidth(2, 4))
