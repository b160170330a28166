"""The folder of a run."""

import json
from importlib.metadata import version

import pytest

from tfcq.errors import UserError
from tfcq.settings.fields import flat
from tfcq.settings.run_folder import RunFolder, default_run_dir
from tfcq.settings.run_position import RunPosition
from tfcq.settings.training import Config, config_from_flat, for_images
from tfcq.settings.used import used


@pytest.fixture
def folder(tmp_path):
    return RunFolder(tmp_path / "run")


def test_new_run_writes_its_settings_and_goes_on_with_the_same(folder):
    config = config_from_flat({"epochs": 3})
    folder.check(config)
    assert not folder.path.exists()
    folder.begin(config)
    written = folder.config.read_text()
    folder.begin(config)
    assert folder.config.read_text() == written == used(config).to_json(asked=["epochs"])
    assert folder.asked(config) == folder.asked(folder._read()) == {"epochs"}


def test_other_settings_are_refused_with_the_difference(folder):
    folder.begin(Config())
    other = config_from_flat({"epochs": 3, "seed": 1})
    with pytest.raises(UserError, match=r"epochs: 100 -> 3; seed: 0 -> 1\).*another --run_dir"):
        folder.begin(other)
    assert folder.config.read_text() == used(Config()).to_json(asked=[])


@pytest.mark.parametrize(
    "drawn", [{"xla": True}, {"strategy": "tpu"}, {"framework": "byol", "batch_norm": "shuffled"}]
)
def test_a_run_whose_draws_the_device_chose_is_told_to_go_on_with_others(folder, drawn):
    folder.begin(config_from_flat(drawn))
    assert folder.told_version() is None
    told = rewritten(folder, generator=None).told_version()
    assert "was begun by an earlier tfcq, this is" in told and "draw otherwise" in told


def test_a_run_of_another_version_is_told(folder):
    folder.begin(Config())
    # In a graph, the generator of before drew the same.
    assert rewritten(folder, generator=None).told_version() is None
    told = rewritten(folder, version="0.0.7").told_version()
    assert told == f"{folder.path} was begun by tfcq 0.0.7, this is {version('tfcq')}."
    told = rewritten(folder, version=None).told_version()
    assert told == f"{folder.path} was begun by an earlier tfcq, this is {version('tfcq')}."


def rewritten(folder, **about):
    """Returns the folder with other words in front of its settings; None leaves one out."""
    tree = {**json.loads(folder.config.read_text()), "checksum": None, **about}
    folder.config.write_text(json.dumps({k: v for k, v in tree.items() if v is not None}))
    return folder


def test_how_often_a_run_is_saved_may_change(folder):
    folder.begin(config_from_flat({"save_every": "10min"}))
    folder.check(config_from_flat({"save_every": "500steps", "keep": 5}))
    assert folder.load_unfinished().execution.save_every == "10min"


def test_folder_with_other_files_is_refused(folder):
    folder.path.mkdir()
    folder.check(Config())
    (folder.path / "thesis.tex").write_text("")
    with pytest.raises(UserError, match="exists and holds no run"):
        folder.check(Config())


def test_path_of_a_file_is_refused(folder):
    folder.path.write_text("")
    with pytest.raises(UserError, match="exists and holds no run"):
        folder.check(Config())


def test_loading_tells_what_is_missing(folder):
    with pytest.raises(UserError, match="does not exist"):
        folder.load()
    folder.path.mkdir()
    with pytest.raises(UserError, match=r"holds no config\.json"):
        folder.load()
    config = config_from_flat({"epochs": 3})
    folder.begin(config)
    with pytest.raises(UserError, match="has not ended yet"):
        folder.load()
    folder.backbone.write_text("")
    assert folder.load() == used(config)


def test_broken_settings_of_a_run_are_told(folder):
    folder.path.mkdir()
    folder.config.write_text("{")
    with pytest.raises(UserError, match="not JSON"):
        folder.check(Config())


def test_settings_that_a_disk_changed_are_refused_wherever_it_did(folder):
    folder.begin(Config())
    written = folder.config.read_bytes()
    for place in range(len(written)):
        folder.config.write_bytes(
            written[:place] + bytes([written[place] ^ 1]) + written[place + 1 :]
        )
        with pytest.raises(UserError, match=r"config\.json "):
            folder.load_unfinished()
    by_hand = json.loads(written) | {"checksum": "0" * 16}
    folder.config.write_text(json.dumps(by_hand))
    with pytest.raises(UserError, match="is damaged: .* take that line out if it was changed on"):
        folder.load_unfinished()
    del by_hand["checksum"]
    folder.config.write_text(json.dumps(by_hand))
    assert folder.load_unfinished() == used(Config())


def test_default_folder_names_data_method_and_seed():
    assert default_run_dir(Config()) == "runs/digits_simsiam_ssql_seed0"
    config = config_from_flat({"recipe": "v1@q->v2@fp", "seed": 4})
    assert default_run_dir(config) == "runs/digits_simsiam_v1-q--v2-fp_seed4"


def test_settings_that_an_earlier_version_recorded_are_those_of_now(folder):
    folder.path.mkdir()
    config = config_from_flat({"epochs": 3})
    tree = json.loads(config.to_json())
    del tree["version"], tree["checksum"]
    folder.config.write_text(json.dumps(tree))
    folder.begin(config, lambda asked: used(for_images(asked, 8)))
    assert json.loads(folder.config.read_text()) == tree
    assert folder.asked(config) == {"epochs"}
    with pytest.raises(UserError, match="width: 64 -> 32"):
        folder.check(config_from_flat({"epochs": 3, "width": 32}))


def test_what_the_data_decide_is_compared_once_they_are_known(folder):
    def settle(config):
        size = config.data.image_size or 8
        return config_from_flat({**flat(used(config)), "image_size": size})

    folder.begin(Config(), settle)
    other = config_from_flat({"image_size": 9, "duration": "7steps"})
    folder.check(config_from_flat({"duration": "7steps"}))
    folder.check(config_from_flat({"image_size": 8}), settle)
    with pytest.raises(UserError, match="image_size: 8 -> 9"):
        folder.check(other, settle)
    with pytest.raises(UserError, match="image_size: 8 -> 9"):
        folder.check(config_from_flat({"image_size": 9}))


def test_checkpoints_are_named_by_their_epochs(folder):
    folder.begin(Config())
    with pytest.raises(UserError, match="holds no checkpoint yet"):
        folder.position_of("latest")
    folder.checkpoints.mkdir()
    names = ("ckpt-9.index", "ckpt-10.index", "ckpt-9+20.index", "ckpt-9+7.data-00000-of-00001")
    for name in (*names, "other.index", "ckpt-011.index", "damaged-ckpt-12.index", "ckpt-13.txt"):
        (folder.checkpoints / name).write_text("")
    assert folder.position_of("latest") == RunPosition(10)
    assert folder.position_of("9+20") == RunPosition(9, 20)
    for other in ("8", "09", "9+", "last", ""):
        with pytest.raises(UserError, match=r"allowed: latest, 9, 9\+7, 9\+20, 10\."):
            folder.position_of(other)
