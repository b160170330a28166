"""Backbones that detectors start from, in files of this library and of others."""

import pytest

from tests.backbones.test_public_networks import check_features, state_of
from tests.backbones.torch_files import save
from tfcq.detection.backbone import opened_backbone
from tfcq.detection.parts import any_size, trunk_and_last_stage
from tfcq.errors import UserError
from tfcq.settings.detection_subject import DetectionSubject


def test_a_public_file_is_a_backbone_of_images_of_any_size_with_its_pixels(tmp_path, capsys):
    state = {f"module.encoder_q.{name}": value for name, value in state_of("resnet18").items()}
    path = save({"state_dict": state}, tmp_path / "moco.pth.tar")
    backbone = any_size(opened_backbone(DetectionSubject(model=path)))
    check_features(backbone, "resnet18")
    trunk, _ = trunk_and_last_stage(backbone)
    assert trunk.layers[1].name == "input_normalization"
    told = capsys.readouterr().out
    assert told.startswith(f"{path}: --backbone=resnet18 ") and told.count("\n") == 1
    asked = DetectionSubject(model=path, input_mean="0", input_std="1")
    opened_backbone(asked)
    assert "--input_mean=0 --input_std=1" in capsys.readouterr().out


def test_a_public_file_of_another_network_is_refused(tmp_path):
    path = save(state_of("vit"), tmp_path / "vit.pth")
    with pytest.raises(UserError, match="no four stages to detect with; allowed: resnet18"):
        any_size(opened_backbone(DetectionSubject(model=path)))
