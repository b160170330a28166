"""Public files of weights as settings: by their names, and what has an effect beside them."""

import pytest

from tfcq.errors import UserError
from tfcq.settings.checkpoints import is_checkpoint
from tfcq.settings.evaluation import evaluation_from_flat
from tfcq.settings.run_folder import network_of_start
from tfcq.settings.subject_files import check_files


def test_files_are_known_by_their_names():
    for name in ("a.pth", "moco_v2_200ep_pretrain.pth.tar", "b/c.PT", "d.safetensors", "e.ckpt"):
        assert is_checkpoint(name)
    for name in (None, "", "a.keras", "a.tar", "runs/pth", "a.pth/backbone.keras", "a.tflite"):
        assert not is_checkpoint(name)


MODEL = {"model": "net.pth", "dataset": "digits", "output_dir": "out"}


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"input_range": "0-255"}, "--input_range has no effect here: what it takes is known"),
        ({"input_mean": "0.5"}, "--input_mean=0.5 with --input_std=None; allowed: both or none"),
        ({"input_mean": "0.5", "input_std": "0"}, "--input_std=0; allowed: numbers above 0 to 1"),
        ({"model": "net.keras", "input_mean": "0.5", "input_std": "1"},
         "--input_mean has no effect here: .*; allowed with --model=PATH.pth or PATH.safetensors"),
        ({"weights": "imagenet"}, "--weights has no effect here"),
    ],
)  # fmt: skip
def test_settings_beside_a_public_file_that_do_not_go_with_it_are_told(values, told):
    with pytest.raises(UserError, match=told):
        evaluation_from_flat({**MODEL, **values})


def test_a_public_file_that_is_not_there_is_told_before_start_up(tmp_path):
    config = evaluation_from_flat({**MODEL, "model": str(tmp_path / "net.pth")})
    with pytest.raises(UserError, match="net.pth does not exist; allowed: a .pth file"):
        check_files(config)
    (tmp_path / "net.pth").write_bytes(b"")
    check_files(config)


def test_a_start_that_is_nothing_is_told_with_all_that_it_can_be(tmp_path):
    with pytest.raises(UserError, match="a run's folder. Other files of weights are .keras, PATH"):
        network_of_start(str(tmp_path / "net.h5"), set())
