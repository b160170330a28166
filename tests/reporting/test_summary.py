"""Runs that differ in seed only are averaged; evaluations that differ in more are not."""

import math

import pytest

from tests.reporting.run_folders import evaluation
from tfcq.reporting.accuracy import accuracy_blocks, cell, detail_blocks, difference_cell
from tfcq.reporting.page import Table, Text
from tfcq.reporting.run_record import RunRecord
from tfcq.reporting.summary import Statistic, compare, condition_differences, group_runs, summarize
from tfcq.settings.fields import flat
from tfcq.settings.training import config_from_flat


def run(path, evaluations=None, **settings):
    values = flat(config_from_flat(settings))
    return RunRecord(path, values, settings, "", evaluations or {}, {}, None, None, ())


def linear(*records):
    return {"linear": list(records)}


def two_seeds_each():
    return [
        run("a0", linear(evaluation({"fp": 0.90, "4w4a": 0.80})), recipe="float"),
        run("b0", linear(evaluation({"fp": 0.91, "4w4a": 0.88})), recipe="ssql"),
        run("a1", linear(evaluation({"fp": 0.94, "4w4a": 0.82})), recipe="float", seed=1),
        run("b1", linear(evaluation({"fp": 0.93, "4w4a": 0.88})), recipe="ssql", seed=1),
    ]


def test_mean_and_sample_standard_deviation():
    assert summarize([]) is None
    found = summarize([0.8, 0.9, 1.0])
    assert (found.mean, found.spread, found.count) == pytest.approx((0.9, 0.1, 3))
    assert math.isnan(summarize([0.8]).spread)


def test_difference_has_the_standard_error_of_both_means():
    difference, error = Statistic(0.9, 0.03, 9).minus(Statistic(0.8, 0.04, 16))
    assert (difference, error) == pytest.approx((0.1, math.sqrt(0.0001 + 0.0001)))


def test_cells_say_how_many_runs_lack_a_figure():
    assert cell(Statistic(0.9, 0.02, 2), 2) == "90.0 ± 2.0"
    assert cell(Statistic(0.9, math.nan, 1), 3) == "90.0 (1 of 3)"
    assert cell(None, 3) == "–"
    assert difference_cell(Statistic(0.9, math.nan, 1), Statistic(0.95, 0.1, 2)) == "-5.0"


def test_runs_that_differ_in_seed_only_are_a_group():
    groups = group_runs(two_seeds_each())
    assert [group.name for group in groups] == ["simsiam, float", "simsiam, ssql"]
    assert [[run.path for run in group.runs] for group in groups] == [["a0", "a1"], ["b0", "b1"]]


def test_how_often_runs_are_saved_and_where_tells_them_apart_in_nothing():
    here = {"dataset": "cifar10", "save_every": "1epochs", "download": True}
    there = {"dataset": "cifar10", "save_every": "2steps", "keep": 9, "data_dir": "d"}
    (group,) = group_runs([run("a", **here), run("b", **there, tracker="wandb")])
    assert (group.name, len(group.runs)) == ("simsiam, ssql", 2)


def test_figures_belong_to_their_bit_width_whatever_the_order_of_the_evaluation():
    runs = [
        run("a0", linear(evaluation({"fp": 0.9, "4w4a": 0.5}))),
        run("a1", linear(evaluation({"4w4a": 0.4, "2w4a": 0.3, "fp": 0.8})), seed=1),
    ]
    (comparison,) = compare(group_runs(runs))
    assert comparison.bits == ("fp", "4w4a", "2w4a")
    values = {bits: comparison.values(0, bits) for bits in comparison.bits}
    assert values == {"fp": [0.9, 0.8], "4w4a": [0.5, 0.4], "2w4a": [0.3]}


def test_figures_of_files_and_of_networks_stand_in_tables_of_their_own():
    def of_file(kernels):
        made = evaluation(kernels, policy="the file's own")
        del made["calibration"]
        for entry in made["results"]:
            entry["kernels"] = entry.pop("bits")
        return made

    runs = [
        run("a0", linear(evaluation({"fp": 0.9}), of_file({"xnnpack": 0.8, "reference": 0.7}))),
        run("a1", linear(of_file({"reference": 0.5, "xnnpack": 0.6})), seed=1),
    ]
    groups = group_runs(runs)
    of_bits, of_kernels = compare(groups)
    assert (of_bits.heading, of_bits.bits) == ("bits", ("fp",))
    assert (of_kernels.heading, of_kernels.bits) == ("kernels", ("xnnpack", "reference"))
    assert of_kernels.values(0, "reference") == [0.7, 0.5]
    blocks = accuracy_blocks([of_bits, of_kernels], [groups[0].name])
    tables = [block for block in blocks if isinstance(block, Table)]
    assert [table.header for table in tables] == [
        ("bits", "fp"), ("kernels", "xnnpack", "reference")
    ]  # fmt: skip
    details = [block for block in detail_blocks([of_kernels]) if isinstance(block, Table)]
    assert [row[1] for row in details[0].rows] == ["top-1 %", "top-5 %"] * 2
    for pairs in of_kernels.records:
        for _, record in pairs:
            record["classes"] = 5
    details = [block for block in detail_blocks([of_kernels]) if isinstance(block, Table)]
    assert [row[1] for row in details[0].rows] == ["top-1 %"] * 2


def test_groups_are_named_by_what_tells_them_apart():
    groups = group_runs([run("a", epochs=5), run("b", epochs=9), run("c", recipe="float")])
    names = ["simsiam, ssql, epochs=5", "simsiam, ssql, epochs=9", "simsiam, float"]
    assert [group.name for group in groups] == names


def test_group_whose_settings_make_no_short_name_is_called_by_its_folder():
    many = {"brightness": 0.1, "contrast": 0.2, "saturation": 0.3, "epochs": 7}
    groups = group_runs([run("runs/a"), run("runs/b", **many)])
    assert [group.name for group in groups] == ["runs/a", "runs/b"]


def test_table_has_mean_spread_and_difference_to_the_first_group():
    groups = group_runs(two_seeds_each())
    blocks = accuracy_blocks(compare(groups), [group.name for group in groups])
    accuracy, difference = (block for block in blocks if isinstance(block, Table))
    assert accuracy.header == ("bits", "fp", "4w4a")
    assert accuracy.rows == [
        ("simsiam, float (2 runs)", "92.0 ± 2.8", "81.0 ± 1.4"),
        ("simsiam, ssql (2 runs)", "92.0 ± 1.4", "88.0 ± 0.0"),
    ]
    assert difference.rows == [("simsiam, ssql", "+0.0 ± 2.2", "+7.0 ± 1.0")]
    assert difference.caption.startswith("Difference to simsiam, float in points")


@pytest.mark.parametrize(
    ("changed", "told"),
    [({"settings": {"epochs": 100}}, "settings.epochs: 60 -> 100"),
     ({"data_fingerprint": "f"}, "data_fingerprint: 0123456789abcdef -> f"),
     ({"policy": "int8"}, "policy: as trained -> int8"),
     ({"new_key": 1}, "new_key: not recorded -> 1")],
)  # fmt: skip
def test_evaluations_under_other_conditions_are_not_averaged_and_this_is_said(changed, told):
    runs = [
        run("a0", linear(evaluation({"fp": 0.9}))),
        run("a1", linear(evaluation({"fp": 0.5}, **changed)), seed=1),
    ]
    groups = group_runs(runs)
    assert len(groups) == 1
    blocks = accuracy_blocks(compare(groups), ["simsiam, ssql"])
    tables = [block.rows for block in blocks if isinstance(block, Table)]
    assert tables == [[("simsiam, ssql (1 run)", "90.0")], [("simsiam, ssql (1 run)", "50.0")]]
    (text,) = (block.text for block in blocks if isinstance(block, Text))
    assert f"({told}), so neither averaged with it nor compared to it" in text


def test_other_seed_or_versions_may_be_averaged_and_versions_are_told():
    runs = [
        run("a0", linear(evaluation({"fp": 0.9}))),
        run("a1", linear(evaluation({"fp": 0.8}, seed=3, versions={"keras": "3"})), seed=1),
    ]
    (comparison,) = compare(group_runs(runs))
    assert comparison.statistic(0, "fp").count == 2
    blocks = accuracy_blocks([comparison], ["simsiam, ssql"])
    assert any("different versions" in b.text for b in blocks if isinstance(b, Text))


def test_records_of_before_something_was_kept_meet_equal_ones_of_now():
    now = {"input_range": "0-1", "classes": 10, "majority_share": 0.1}
    runs = [
        run("a0", linear(evaluation({"fp": 0.9}))),
        run("a1", linear(evaluation({"fp": 0.8}, **now)), seed=1),
        run("a2", linear(evaluation({"fp": 0.1}, **now | {"input_range": "0-255"})), seed=2),
    ]
    alike, other = compare(group_runs(runs))
    assert (alike.values(0, "fp"), other.values(0, "fp")) == ([0.9, 0.8], [0.1])
    told = condition_differences(alike.conditions, other.conditions)
    assert told == ["input_range: 0-1 -> 0-255"]


def test_runs_are_compared_though_they_have_names_and_weights_of_their_own():
    records = [
        evaluation({"fp": top1}, subject=f"simsiam, {recipe}", weights=recipe)
        for recipe, top1 in (("float", 0.9), ("ssql", 0.8))
    ]
    runs = [run("a", linear(records[0]), recipe="float"), run("b", linear(records[1]))]
    (comparison,) = compare(group_runs(runs))
    assert [comparison.values(group, "fp") for group in (0, 1)] == [[0.9], [0.8]]


def test_what_is_not_the_end_of_a_run_stands_apart_from_it_and_meets_its_like():
    def of(top1, **own):
        return evaluation({"fp": top1}, **{"subject": "simsiam, ssql", "weights": "end"} | own)

    records = {
        "a0": [
            of(0.1, subject="simsiam, ssql, epoch 2", weights="early"), of(0.9),
            of(0.7, weights="before"), of(0.6, seed=1),
            of(0.8, subject="a0/export/int8.tflite", weights="file"),
            of(0.5, start_weights="of b"), of(0.4, start_weights="of c"),
        ],
        "a1": [of(0.2, subject="simsiam, ssql, epoch 2"),
               of(0.3, subject="a1/export/int8.tflite")],
    }  # fmt: skip
    runs = [run(path, linear(*records[path]), seed=seed) for seed, path in enumerate(records)]
    found = compare(group_runs(runs))
    told = ("subject", "weights", "start_weights")
    abouts = [tuple(one.conditions.get(name) for name in told) for one in found]
    assert dict(zip(abouts, [one.values(0, "fp") for one in found], strict=True)) == {
        ("epoch 2", None, None): [0.1, 0.2],
        (None, None, None): [0.9],
        (None, "before", None): [0.7],
        ("int8.tflite", None, None): [0.8, 0.3],
        (None, "end", "of b"): [0.5],
        (None, "end", "of c"): [0.4],
    }
    assert [one.left_out for one in found] == [0, 1, 0, 0, 0, 0]


def test_earlier_evaluation_of_one_run_meets_the_newest_of_another():
    old, new = evaluation({"fp": 0.9}), evaluation({"fp": 0.7}, settings={"epochs": 1})
    runs = [run("a0", linear(new, old)), run("a1", linear(evaluation({"fp": 0.8})), seed=1)]
    counts = {c.conditions["settings.epochs"]: c.values(0, "fp") for c in compare(group_runs(runs))}
    assert counts == {1: [0.7], 60: [0.9, 0.8]}


def test_repeated_evaluation_counts_once_and_this_is_said():
    records = linear(evaluation({"fp": 0.9}), evaluation({"fp": 0.1}, seed=1))
    (comparison,) = compare(group_runs([run("a", records)]))
    assert comparison.values(0, "fp") == [0.9]
    blocks = accuracy_blocks([comparison], ["simsiam, ssql"])
    assert any(block.text.startswith("1 earlier") for block in blocks if isinstance(block, Text))


def test_details_keep_figures_and_conditions_that_are_unknown_here():
    record = evaluation({"fp": 0.9}, label_share=0.1)
    record["results"][0]["fairness"] = 3
    figures, conditions = (
        block
        for block in detail_blocks(compare(group_runs([run("a", linear(record))])))
        if isinstance(block, Table)
    )
    assert ("a", "fairness", "3") in figures.rows
    assert ("label_share", "0.1") in conditions.rows
    assert ("settings.epochs", "60") in conditions.rows


def test_mean_per_class_has_tables_of_its_own_where_it_says_something_else():
    def captions(difference):
        record = evaluation({"fp": 0.9})
        record["results"][0]["mean_per_class"] = 0.9 - difference
        runs = [run("a", linear(record), recipe="float"), run("b", linear(record), recipe="ssql")]
        blocks = accuracy_blocks(compare(group_runs(runs)), ["simsiam, float", "simsiam, ssql"])
        return [(b.caption, b.rows[0][1]) for b in blocks if isinstance(b, Table)]

    assert len(captions(0.004)) == 2
    found = captions(0.1)
    assert len(found) == 4
    assert found[2] == ("Accuracy as the mean over classes in percent.", "80.0")
