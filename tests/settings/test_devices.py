"""Accelerators by name and by figures."""

import pytest

from tfcq.errors import UserError
from tfcq.settings.devices import DEVICES, parse_devices


def test_a_name_stands_for_published_figures_and_figures_replace_them():
    found = parse_devices("8xa100")
    assert (found.count, found.name, found.device) == (8, "A100", DEVICES["A100"])
    assert found.share_of_peak("float16") == 0.19
    other = parse_devices("2 x V100, 32GB, 40%")
    assert other.device.memory == 32 and other.device.links == DEVICES["V100"].links
    assert other.share_of_peak("float32") == 0.4
    # The share of another peak is not known.
    assert parse_devices("1xV100,20TFLOPS").share_of_peak("float32") == 0.14


def test_figures_alone_hold_for_every_dtype():
    found = parse_devices("8x312TFLOPS,40GB,300GB/s")
    assert found.device.peak == {"float32": 312, "float16": 312, "bfloat16": 312}
    assert (found.device.memory, found.device.links) == (40, 300)
    assert found.in_words("bfloat16") == (
        "8 x custom: 14% of 312 TFLOP/s in bfloat16, 40 GB, links of 300 GB/s"
    )


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("A100", "--devices=A100 cannot be used; allowed: a number and a kind, such as 8xA100"),
        ("0xA100", "--devices=0xA100 cannot be used"),
        ("8xA1000", "Unknown device 'A1000'; allowed: A10, A100, .* Did you mean 'A100'"),
        ("8xa1000", "Unknown device 'a1000'; allowed: A10, A100, .* Did you mean 'A100'"),
        ("8xA100,fast", "'fast' cannot be used; allowed: TFLOPS, GB"),
        ("8xA100,40GB,80GB", "'80GB' cannot be used"),
        ("8xA100,0GB", "'0GB' cannot be used"),
        ("8xA100,120%", "120% of the peak; allowed: up to 100%"),
        ("8x312TFLOPS,40GB", "lacks GB/s; allowed: 8x312TFLOPS,40GB,300GB/s"),
    ],
)
def test_what_cannot_be_read_is_refused(text, told):
    with pytest.raises(UserError, match=told):
        parse_devices(text)


def test_products_that_a_device_does_not_make_are_refused():
    assert parse_devices("1xT4").dtype("auto") == "float32"
    assert parse_devices("1xH100").dtype("auto") == "bfloat16"
    with pytest.raises(UserError, match="bfloat16 with --devices=1xV100.*: float32, float16"):
        parse_devices("1xV100").dtype("bfloat16")
