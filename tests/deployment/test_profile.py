"""Every operation of a file is timed alone."""

from tests.integer.lite_files import chain, constant, levels
from tfcq.deployment import profile
from tfcq.deployment.profile import operation_seconds
from tfcq.integer.form import deployable
from tfcq.integer.writing import written
from tfcq.nn.calibration import calibrate
from tfcq.settings.bitwidths import BitWidth


def test_every_operation_of_a_network_runs_alone(network, images, monkeypatch):
    form = deployable(network)
    calibrate(form, images)
    file = written(form, BitWidth(8, 8)).file
    ran = []

    def seconds(calls, repeats, warm_up):
        ran.extend(call() for call in calls.values())
        return dict.fromkeys(calls, 0.5)

    monkeypatch.setattr(profile, "median_seconds", seconds)
    found = operation_seconds(file)
    assert len(ran) == len(file.operations)
    assert found == [
        {"name": file.tensors[one.outputs[0]].name, "kind": one.kind, "seconds": 0.5}
        for one in file.operations
    ]


def test_what_the_runtime_does_not_run_alone_has_no_time():
    source, inner = levels((1, 4), 0.1), levels((1, 4), 0.2, name="inner")
    file = chain(
        source,
        ("RSQRT", [source], [inner], {}, 9),
        ("ADD", [inner, constant([[1] * 4], 0.1)], [levels((1, 4), 0.3, name="sum")], {}, 2),
    )
    found = operation_seconds(file, repeats=2)
    assert [one["name"] for one in found if one["seconds"] is None] == ["inner", "sum"]
