"""The command reports whole and unfinished runs, says what is missing, and refuses the rest."""

import re

import numpy as np
import pytest

from tests.reporting.run_folders import BITS, evaluation, make_run, whole_run
from tests.reporting.run_folders import evaluate as give_evaluation
from tfcq import report
from tfcq.errors import UserError
from tfcq.evaluation import data as evaluation_data
from tfcq.evaluation.features import FeatureExtractor
from tfcq.evaluation.run_subject import trained_backbone
from tfcq.nn.calibration import calibrate
from tfcq.reporting import run as reporting
from tfcq.reporting import sections


def command(*runs, **values):
    arguments = [f"--{name}={value}" for name, value in values.items()]
    return report.flag_set().parse([*map(str, runs), "--verbosity=1", *arguments])


def reported(*folders, output, **options):
    page = reporting.report([(f, f.load_unfinished()) for f in folders], output, **options)
    return page.read_text(), (output / "report.md").read_text()


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return whole_run(tmp_path_factory.mktemp("runs") / "whole")


def test_whole_run_has_every_section_picture_and_figure(whole, tmp_path):
    page, markdown = reported(whole, output=tmp_path, tsne_bits=BITS, tsne_images=60)
    assert re.findall(r"^## (.*)", markdown, re.M) == [
        "Runs", "Accuracy over bit-widths", "Features (t-SNE)", "Weights",
        "Quantization against contrastive error", "Learning curves of evaluations", "Detection",
        "Training", "Model card: simsiam, ssql", "Details of the evaluations",
    ]  # fmt: skip
    pictures = sorted(path.name for path in (tmp_path / "pictures").iterdir())
    assert pictures == [
        "accuracy_1_linear.png", "accuracy_2_qat_lsq.png", "error_correlation.png",
        "learning_curve_2_qat_lsq.png", "training.png", "tsne_1.png", "weights.png",
    ]  # fmt: skip
    assert page.count("data:image/png;base64,") == len(pictures)
    assert sorted(re.findall(r"\]\(pictures/(.*?)\)", markdown)) == pictures
    assert "What is missing" not in markdown
    for text in ("| simsiam, ssql (1 run) | 90.0 | 80.0 |", "60 test images", "99.4", "1,234"):
        assert text in markdown
    assert "weights 2-8, activations 4-8, schedule uniform" in markdown


def test_snippet_of_the_model_card_runs(whole, tmp_path):
    _, markdown = reported(whole, output=tmp_path)
    (code,) = re.findall(r"```python\n(.*?)```", markdown, re.S)
    names = {}
    exec(code, names)
    assert names["features"].shape == names["quantized"].shape == (1, 32)


def test_features_are_those_of_the_first_test_images_at_their_bits(whole, tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(reporting, "tsne", lambda features, seed: (features, seed))
    monkeypatch.setattr(sections, "draw_embeddings", lambda rows: drawn.extend(rows) or b"")
    monkeypatch.setattr(evaluation_data, "CALIBRATION_IMAGES", 50)
    reported(whole, output=tmp_path, tsne_bits=BITS, tsne_images=50)
    backbone = trained_backbone(whole, whole.load())
    split, data = evaluation_data.labelled_images(whole.load().data, backbone.input_shape)
    calibrate(backbone, data.train_images[:50])
    (row,) = drawn
    assert (row.name, row.class_names) == ("simsiam, ssql", tuple(split.class_names))
    np.testing.assert_array_equal(row.labels, data.test_labels[:50])
    features = FeatureExtractor(backbone)
    assert list(row.points) == [str(bits) for bits in BITS]
    for bits in BITS:
        found, seed = row.points[str(bits)]
        expected = features(data.test_images[:50], bits)
        np.testing.assert_allclose(found, expected, atol=1e-5 * np.abs(expected).max())
        assert seed == 0


def test_run_that_has_only_begun_says_what_is_missing_and_how_to_make_it(tmp_path):
    begun = make_run(tmp_path / "run", epochs=3, weight_bits="4")
    page, markdown = reported(begun, output=tmp_path / "out", tsne_bits=BITS)
    missing = markdown.split("### What is missing")[1].split("##")[0]
    for name in ("train", "evaluate", "export"):
        assert f"`python -m tfcq.{name}" in missing
    assert missing.count("once the run has ended") == 2
    assert "no run has ended, so there are no features" in markdown
    changed = markdown.split("### Settings that differ from their defaults\n\n")[1]
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in changed.splitlines()[2:4]]
    assert rows == [["weight_bits", "4"], ["epochs", "3"]]
    assert changed.splitlines()[4] == ""
    assert "weights 4, activations 4-8, schedule uniform" in markdown and "not ended" in page


def test_data_that_cannot_be_had_are_noted_or_an_error_where_asked_for(whole, tmp_path):
    images = tmp_path / "images"
    images.mkdir()
    other = make_run(tmp_path / "run", dataset=f"folder:{images}")
    other.backbone.write_bytes(whole.backbone.read_bytes())
    runs = [(other, other.load())]
    images.rmdir()
    reporting.report(runs, tmp_path / "out", tsne_bits=BITS)
    markdown = (tmp_path / "out" / "report.md").read_text()
    assert str(images) in markdown.split("## Features")[1].split("## Weights")[0]
    with pytest.raises(UserError, match=str(images)):
        reporting.report(runs, tmp_path / "out2", tsne_bits=BITS, tsne_needed=True)
    assert not (tmp_path / "out2").exists()


def test_command_takes_runs_before_and_behind_flags(tmp_path, capsys):
    runs = [make_run(tmp_path / name, seed=seed) for seed, name in enumerate("ab")]
    for folder, top1 in zip(runs, (0.5, 0.7), strict=True):
        give_evaluation(folder, evaluation({"fp": top1}))
    parsed = report.flag_set().parse(
        [str(runs[0].path), f"--output={tmp_path / 'out'}", "--tsne_bits=", str(runs[1].path)]
    )
    assert report.main(parsed) is None
    assert "60.0 ± 14.1" in (tmp_path / "out" / "report.md").read_text()
    assert str(tmp_path / "out" / "report.html") in capsys.readouterr().out


def test_features_are_drawn_at_the_bit_widths_and_on_as_many_images_as_in_fig_4_of_ssql():
    values = command("run").values
    assert (values["tsne_bits"], values["tsne_images"]) == ("fp,4w4a,2w8a,2w4a", 5000)


@pytest.mark.parametrize(
    ("runs", "values", "text"),
    [((), {"output": "o"}, "No run is named"),
     (("a",), {}, "--output is missing"),
     (("a",), {"output": "o", "tsne_bits": "1w8a"}, "1w8a"),
     (("a",), {"output": "o", "tsne_images": 4}, "--tsne_images=4 .*5 and above"),
     (("a",), {"output": "o", "tsne_bits": "", "tsne_images": 9}, "--tsne_images has no effect"),
     (("no_such",), {"output": "o"}, "'no_such' does not exist"),
     (("empty",), {"output": "o"}, "empty holds no config.json"),
     (("a", "./a"), {"output": "o"}, "'a' is named twice"),
     (("a",), {"output": "a"}, "--output=a holds other files"),
     (("a",), {"output": "broken"}, "--output=broken is no folder")],
)  # fmt: skip
def test_mistakes_are_told_in_one_line(runs, values, text, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make_run(tmp_path / "a")
    (tmp_path / "empty").mkdir()
    (tmp_path / "broken").write_text("x")
    with pytest.raises(UserError, match=text) as caught:
        report.main(command(*runs, **values))
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "o").exists()


@pytest.mark.parametrize(
    ("file", "content", "text"),
    [("history.csv", "epoch,loss\n1,low\n", "history.csv cannot be read as a history"),
     ("history.csv", "loss\n1\n", "history.csv cannot be read as a history"),
     ("evaluation/linear.json", "{", "linear.json cannot be read as results"),
     ("export/int8.json", "[]", r"int8.json is '\[\]'"),
     ("detection/yolov4/finetune.json", '{"results": [{"coco": 1}]}', "'coco' is '1'; allowed: an"),
     ("backbone.keras", "x", "backbone.keras cannot be read as a saved Keras model")],
)  # fmt: skip
def test_broken_file_is_named(file, content, text, tmp_path):
    run = make_run(tmp_path / "run")
    (run.path / file).parent.mkdir(parents=True, exist_ok=True)
    (run.path / file).write_text(content)
    with pytest.raises(UserError, match=text):
        reported(run, output=tmp_path / "out")
