"""Every table and picture of a report tells of the runs that it names."""

import dataclasses
import json
import math
import re

import numpy as np
import pytest

from tests.reporting.run_folders import evaluation
from tfcq.errors import UserError
from tfcq.reporting import sections
from tfcq.reporting.detection import detection_table, plot_precisions
from tfcq.reporting.detection_record import DetectionRecord, read_detections, read_detector
from tfcq.reporting.embedding import Embedding
from tfcq.reporting.kernels import SavedBackbone
from tfcq.reporting.page import Heading, Items, Picture, Table, Text
from tfcq.reporting.run_record import RunRecord, read_history
from tfcq.reporting.sections import Embeddings, report_sections, report_title
from tfcq.reporting.summary import group_runs
from tfcq.settings.fields import flat
from tfcq.settings.training import config_from_flat

EVALUATED = {"a0": (0.90, 0.80), "b0": (0.91, 0.88), "a1": (0.94, 0.82), "b1": (0.93, 0.88)}
HISTORIES = {
    "a0": [0.25, math.nan, -0.25],
    "a1": [0.75, 0.125, 0.125],
    "b0": [0.5, 0.5, 0.5],
    "b1": [],
}


def record(path, correlations):
    """Returns a run of its own figures; the last letter of its path is its seed."""
    settings = {"recipe": {"a": "float", "b": "ssql"}[path[0]], "seed": int(path[1])}
    low, high = EVALUATED[path][::-1]
    curve = [{"epoch": 1, "loss": 3.0, "top1": low / 2}, {"epoch": 2, "loss": 2.0, "top1": low}]
    trained = evaluation({"4w4a": low}, protocol="qat")
    trained["results"][0]["curve"] = curve
    count = len(correlations)
    history = {
        "epoch": [1.0, 2, 3][:count],
        "loss": [9.0 - settings["seed"], 8, 7][:count],
        "error_correlation": correlations,
    }
    ended = path != "a0"
    return RunRecord(
        path,
        flat(config_from_flat(settings)),
        settings,
        "weights 2-8",
        {"linear": [evaluation({"fp": high, "4w4a": low})], "qat_lsq": [trained]},
        history if count else {},
        {"agreement": 0.99, "top1": {"int8": high}} if path == "b1" else None,
        path if ended else None,
        () if ended else ("The run has not ended.",),
        detections(path) if ended else {},
    )


def detected(by_bits):
    """Returns what a file of `tfcq.detect` holds, with AP of COCO by bit-width."""
    about = {"dataset": "voc", "detector": "yolov4", "protocol": "finetune"}
    forms = lambda ap: {"AP": ap, "AP50": ap + 1, "AP75": ap - 1, "APs": None}  # noqa: E731
    results = [
        {"bits": bits, "coco": forms(ap), "voc07": forms(ap + 10)} for bits, ap in by_bits.items()
    ]
    return {**about, "test_images": 9, "classes": 20, "results": results}


NOTHING_FOUND = {
    **detected({}),
    "results": [{"bits": "fp", "coco": {"AP": 0.0, "AP50": 0.0, "AP75": 0.0}}],
}


def detections(path):
    found = {"yolov4, finetune": DetectionRecord(detected({"fp": 40.0, "4w4a": 20.0}), b"boxes")}
    if path == "b0":
        found["yolov4, finetune"] = DetectionRecord(detected({"fp": 50.0, "2w4a": 5.0}), None)
        found["yolov4, qat_lsq"] = DetectionRecord(detected({"2w4a": 30.0}), None)
    return found


def kernels(seed):
    weights = np.array([-1.0] * 50 + [1.0] * 50 + [3.0 + 3 * seed])
    return SavedBackbone((8, 8, 1), {"conv": weights, **({"top": weights[:4]} if seed else {})})


@pytest.fixture
def report(figures):
    """Sections by title, with what is drawn as `figures` holds it."""
    runs = [record(path, correlations) for path, correlations in HISTORIES.items()]
    groups = group_runs(runs)
    backbones = {"a1": kernels(0), "b0": kernels(0), "b1": kernels(1)}
    assert report_title(groups) == "Report: simsiam, float against simsiam, ssql"
    sections = report_sections(groups, backbones, Embeddings(notes=("No features.",)))
    return {section.title: section.blocks for section in sections}


def tables(blocks):
    return [list(map(tuple, block.rows)) for block in blocks if isinstance(block, Table)]


def test_runs_are_told_with_their_state(report):
    (rows,) = tables(report["Runs"])
    both = "linear, qat_lsq"
    assert rows == [
        ("a0", "simsiam, float", "0", "3", "not ended", both),
        ("a1", "simsiam, float", "1", "3", "ended", both),
        ("b0", "simsiam, ssql", "0", "3", "ended", both),
        ("b1", "simsiam, ssql", "1", "–", "ended", both),
    ]
    (missing,) = (block.items for block in report["Runs"] if isinstance(block, Items))
    assert missing == ["a0: The run has not ended."]
    assert not any("same seed" in b.text for b in report["Runs"] if isinstance(b, Text))


def test_runs_of_one_seed_twice_are_told(figures):
    run = record("b0", [])
    twice = group_runs([run, dataclasses.replace(run, path="b0-again")])
    blocks = report_sections(twice, {}, Embeddings())[0].blocks
    assert any("same seed (0, 0)" in block.text for block in blocks if isinstance(block, Text))


def test_features_of_other_images_are_in_pictures_of_their_own(monkeypatch, figures):
    rows = []
    monkeypatch.setattr(sections, "draw_embeddings", lambda drawn: rows.append(drawn) or b"")
    images = [("a", "digits", 5), ("b", "mnist", 5), ("c", "digits", 5), ("d", "digits", 4)]
    drawn = tuple(
        Embedding(name, {"fp": np.zeros((count, 2))}, np.zeros(count, int), ("0", "1"), dataset)
        for name, dataset, count in images
    )
    groups = group_runs([record("b0", [])])
    features = report_sections(groups, {"b0": kernels(0)}, Embeddings(drawn))[2]
    assert [[one.name for one in row] for row in rows] == [["a", "c"], ["b"], ["d"]]
    told = [b.caption for b in features.blocks if isinstance(b, Picture)]
    assert [text.split(" under")[0] for text in told] == [
        f"Features of {images}" for images in
        ("5 test images of digits", "5 test images of mnist", "4 test images of digits")
    ]  # fmt: skip


def test_weights_are_means_over_the_runs_of_a_group(report):
    (rows,) = tables(report["Weights"])
    narrow, wide = (kernels(seed).kernels["conv"] for seed in (0, 1))
    ratio, wider = 4 / narrow.std(), 7 / wide.std()
    outliers = [100 * np.mean(np.abs(k - k.mean()) > 3 * k.std()) for k in (narrow, wide)]
    assert rows[0] == (
        "conv", "101", "4.000", f"{ratio:.1f}", f"{outliers[0]:.2f}",
        "5.500", f"{(ratio + wider) / 2:.1f}", f"{np.mean(outliers):.2f}",
    )  # fmt: skip
    assert rows[1] == ("top", "4", "–", "–", "–", "0.000", "0.0", "0.00")


def test_correlations_are_those_of_all_runs_of_a_group(report):
    (rows,) = tables(report["Quantization against contrastive error"])
    assert rows == [
        ("simsiam, float", "+0.200", "-0.250", "+0.750"),
        ("simsiam, ssql", "+0.500", "+0.500", "+0.500"),
    ]


def test_last_epoch_is_told_and_every_epoch_drawn(report, figures):
    (items,) = (block.items for block in report["Training"] if isinstance(block, Items))
    expected = [f"{p}: epoch 3, loss 7, error_correlation {c[-1]:.4g}"
                for p, c in HISTORIES.items() if c]  # fmt: skip
    assert items == expected
    (drawn,) = (f for f in figures if [axes.get_title() for axes in f.axes] == ["loss"])
    found = [list(line.get_ydata()) for line in drawn.axes[0].lines]
    assert found == [[9, 8, 7], [8, 8, 7], [9, 8, 7]]


def test_pictures_show_mean_and_sample_deviation_of_each_group(report, figures):
    (linear,) = (f for f in figures if [axes.get_title() for axes in f.axes] == ["linear"])
    bars = [
        (
            container[0].get_ydata().tolist(),
            [np.ptp(s[:, 1]) / 2 for s in container[2][0].get_segments()],
        )
        for container in linear.axes[0].containers
    ]
    # Of two figures the sample deviation is their distance over the root of two.
    assert bars[0][0] == pytest.approx([92, 81]) and bars[1][0] == pytest.approx([92, 88])
    assert bars[0][1] == pytest.approx([4 / math.sqrt(2), 2 / math.sqrt(2)])
    assert bars[1][1] == pytest.approx([2 / math.sqrt(2), 0], abs=1e-9)


def test_learning_curves_are_top1_in_percent_over_their_epochs(report, figures):
    names = [b.name for b in report["Learning curves of evaluations"] if isinstance(b, Picture)]
    assert names == ["learning_curve_2_qat_lsq"]
    (drawn,) = (f for f in figures if [axes.get_title() for axes in f.axes] == ["4w4a"])
    found = [tuple(map(list, line.get_data())) for line in drawn.axes[0].lines]
    lows = [EVALUATED[path][1] for path in ("a0", "a1", "b0", "b1")]
    assert found == [([1, 2], [50 * low, 100 * low]) for low in lows]


def test_detections_are_told_run_by_run_at_every_bit_width(report, figures):
    blocks = report["Detection"]
    assert [b.text for b in blocks if isinstance(b, Heading)] == [
        "yolov4, finetune", "yolov4, qat_lsq",
    ]  # fmt: skip
    first, second = (block for block in blocks if isinstance(block, Table))
    assert first.header == ("run", "figure", "fp", "4w4a", "2w4a")
    rows = {row[:2]: row[2:] for row in first.rows}
    assert rows["a1", "COCO AP"] == ("40.0", "20.0", "–")
    assert rows["b0", "COCO AP50"] == ("51.0", "–", "6.0")
    assert rows["b1", "VOC07 AP75"] == ("49.0", "29.0", "–")
    assert "b0: voc, yolov4, finetune, 9 test images of 20 classes" in first.caption
    assert second.rows[0] == ("b0", "COCO AP", "30.0")
    drawn = [f for f in figures if f.axes[0].get_ylabel() == "average precision (%)"]
    lines = [np.array(c[0].get_ydata(), float) for c in drawn[0].axes[0].containers]
    np.testing.assert_allclose(lines, [[40, 20, np.nan], [50, np.nan, 5], [40, 20, np.nan]])
    names = [block.name for block in blocks if isinstance(block, Picture)]
    assert names == [
        "detection_1", "detection_1_boxes_1", "detection_1_boxes_3", "detection_2",
    ]  # fmt: skip


def test_detections_of_a_run_are_named_by_detector_and_protocol(tmp_path, figures):
    for place, name in (("yolov4", "finetune"), ("yolov4/qat_lsq", "qat")):
        (tmp_path / place).mkdir(parents=True)
        (tmp_path / place / f"{name}.json").write_text(json.dumps(detected({"fp": 1.0})))
    (tmp_path / "yolov4" / "finetune_fp_4w4a.png").write_bytes(b"boxes")
    for other in ("finetune_fp", "finetune_calibration=mse_fp_4w4a", "finetune_precision"):
        (tmp_path / "yolov4" / f"{other}.png").write_bytes(b"other")
    found = read_detections(tmp_path)
    assert {name: one.boxes for name, one in found.items()} == {
        "yolov4, finetune": b"boxes", "yolov4, qat_lsq, qat": None,
    }  # fmt: skip
    assert read_detections(tmp_path / "none") == {}
    (tmp_path / "run" / "evaluation").mkdir(parents=True)
    (tmp_path / "run" / "evaluation" / "finetune.json").write_text(json.dumps(evaluation({})))
    told = re.escape(f"tells of no detector; allowed: folders of runs, such as {tmp_path}/run,")
    with pytest.raises(UserError, match=told):
        read_detector(tmp_path / "run" / "evaluation")
    table = detection_table(detected({"fp": 1.0, "4w4a": 2.0}))
    assert "| VOC07 AP50 | 12.0 | 13.0 |" in table
    plot_precisions(tmp_path / "p.png", detected({"fp": 1.0, "4w4a": 2.0}))
    drawn = figures[-1]
    assert [text.get_text() for text in drawn.legends[0].get_texts()] == ["AP", "AP50", "AP75"]
    assert [axes.get_title() for axes in drawn.axes] == ["COCO", "VOC07"]
    assert [line.get_ydata().tolist() for line in drawn.axes[1].lines][1] == [12, 13]
    # A detector that finds nothing is at the foot of a scale, not in its middle.
    plot_precisions(tmp_path / "p.png", NOTHING_FOUND)
    assert figures[-1].axes[0].get_ylim() == (0, 1)


def test_classes_and_int8_files_of_a_detector_are_told(tmp_path, figures):
    record = detected({"fp": 30.0, "4w4a": 20.0})
    for entry in record["results"][:1]:
        entry["by_class"] = {"cat": {"coco": {"AP": 31.25}}, "dog": {"coco": {"AP": None}}}
    (tmp_path / "int8").mkdir()
    (tmp_path / "finetune.json").write_text(json.dumps(record))
    gate = {"bytes": 12345, "simulation_equal_steps": 0.5, "passed": True}
    (tmp_path / "int8" / "gate_8w8a.json").write_text(json.dumps({"trunk_64x64": gate}))
    sections = report_sections((), {}, Embeddings(), {"OUT": read_detector(tmp_path)})
    assert [section.title for section in sections] == ["Detection"]
    figures_of_all, by_class, int8 = tables(sections[0].blocks)
    assert figures_of_all[0] == ("OUT", "COCO AP", "30.0", "20.0")
    assert by_class == [("cat", "31.2", "-"), ("dog", "-", "-")]
    assert int8 == [("trunk_64x64_8w8a.tflite", "12,345", "50.0", "passed")]
    assert report_title((), ["OUT"]) == "Report: OUT"
    # Nothing is found: no scale reaches below 0.
    report_sections((), {}, Embeddings(), {"OUT": {"a": DetectionRecord(NOTHING_FOUND, None)}})
    assert figures[-1].axes[0].get_ylim() == (0, 1)


def test_model_card_is_that_of_its_group(report):
    blocks = report["Model card: simsiam, ssql"]
    facts, changed, linear, trained, exported = tables(blocks)
    assert ("runs", "b0 (seed 0), b1 (seed 1)") in facts
    assert ("input", "images of 8 x 8 x 1, float, pixels from 0 to 1") in facts
    assert ("weights in kernels", "101 in 1 layers") in facts
    assert changed == [("recipe", "ssql")]
    assert linear == [("top-1 %", "92.0 ± 1.4", "88.0 ± 0.0")]
    assert trained == [("top-1 %", "88.0 ± 0.0")]
    assert exported == [
        ("b1", "policy", "as trained"),
        ("b1", "test images", "unknown"),
        ("b1", "top-1 agreement with the 8w8a simulation, %", "99.0"),
        ("b1", "top-1 of int8, %", "93.0"),
    ]
    # Of a group whose first run has not ended, the next one tells what its backbone is.
    facts = tables(report["Model card: simsiam, float"])[0]
    assert ("weights in kernels", "101 in 1 layers") in facts


def test_history_has_no_figure_where_a_row_has_none(tmp_path):
    (tmp_path / "history.csv").write_text("epoch,loss,cosine\n1,0.5,\n2,,0.25\n")
    found = read_history(tmp_path / "history.csv")
    expected = {"epoch": [1, 2], "loss": [0.5, math.nan], "cosine": [math.nan, 0.25]}
    assert list(found) == list(expected)
    for name, values in expected.items():
        np.testing.assert_array_equal(found[name], values)
    (tmp_path / "history.csv").write_text("epoch,loss\n")
    assert read_history(tmp_path / "history.csv") == read_history(tmp_path / "no.csv") == {}
