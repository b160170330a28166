"""What is evaluated, and on which data."""

import keras

from tests.evaluation.evaluations import config_of
from tfcq import evaluate
from tfcq.evaluation.evaluation import open_subject
from tfcq.evaluation.subject import chosen_data
from tfcq.nn.quantizable import quantizable
from tfcq.settings.evaluation_groups import EvaluationDataSettings
from tfcq.settings.run_folder import RunFolder
from tfcq.settings.training import config_from_flat
from tfcq.settings.training_groups import DataSettings


def test_settings_of_run_and_flags_decide_the_data(tmp_path):
    folder = RunFolder(tmp_path)
    own = {"dataset": "cifar10", "data_dir": "/own", "image_size": 16, "train_images": 100}
    folder.begin(config_from_flat(own))
    inputs = keras.Input((8, 8, 1))
    outputs = keras.layers.Dense(2)(keras.layers.Flatten()(inputs))
    quantizable(keras.Model(inputs, outputs), "paper").save(folder.backbone)

    def data_of(**flags):
        return open_subject(config_of(run_dir=tmp_path, **flags)).data

    assert data_of() == DataSettings(**own)
    flags = {"data_dir": "/other", "image_size": 8, "train_images": 7, "download": True}
    assert data_of(**flags) == DataSettings("cifar10", **flags)
    # Of another data set nothing but where prepared ones are, and the look of images, is the same.
    assert data_of(dataset="cifar100") == DataSettings("cifar100", "/own")
    assert data_of(dataset="digits") == DataSettings("digits")
    run = DataSettings("folder:a", channels="1", background="black", image_size=16)
    for flags, expected in [
        ({"dataset": "folder:b"}, DataSettings("folder:b", channels="1", background="black")),
        ({"dataset": "digits"}, DataSettings("digits", channels="1")),
        ({"dataset": "folder:b", "channels": "3", "background": "grey"},
         DataSettings("folder:b", channels="3", background="grey")),
    ]:  # fmt: skip
        assert chosen_data(EvaluationDataSettings(**flags), run) == expected


def test_images_held_out_later_are_taken_from_all_unless_fewer_were_asked(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "scans").mkdir()
    inputs = keras.Input((8, 8, 1))
    outputs = keras.layers.Dense(2)(keras.layers.Flatten()(inputs))
    backbone = quantizable(keras.Model(inputs, outputs), "paper")
    whole = config_from_flat({"dataset": "folder:scans", "train_images": 50})
    for name, asked, left in [("all", {}, None), ("few", {"train_images": 50}, 50)]:
        folder = RunFolder(tmp_path / name)
        folder.begin(config_from_flat({"dataset": "folder:scans", **asked}), lambda config: whole)
        backbone.save(folder.backbone)
        for flags, taken in [({}, 50), ({"holdout": 0.2}, left)]:
            found = open_subject(config_of(run_dir=folder.path, **flags)).data
            assert (found.train_images, found.holdout) == (taken, flags.get("holdout"))


def test_what_is_quantized_is_described_without_reading_an_image(tmp_path, capsys):
    inputs = keras.Input((8, 8, 1))
    outputs = keras.layers.Dense(2, name="logits")(keras.layers.Flatten()(inputs))
    keras.Model(inputs, outputs).save(tmp_path / "mine.keras")
    flags = [f"--model={tmp_path / 'mine.keras'}", "--dataset=digits", "--output_dir=unused"]
    evaluate.main(evaluate.flag_set().parse([*flags, "--verbosity=1", "--describe"]))
    (row,) = [line for line in capsys.readouterr().out.splitlines() if "logits" in line]
    assert row.split() == ["logits", "Dense", "8", "bits", "float", "output", "of", "the", "model"]
