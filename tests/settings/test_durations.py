"""Durations: text to amounts and units, to steps, and back."""

import subprocess
import sys

import pytest

from tfcq.errors import UserError
from tfcq.settings.durations import Duration, parse_duration


@pytest.mark.parametrize(
    ("text", "amount", "unit", "canonical"),
    [
        ("100epochs", 100, "epochs", "100epochs"),
        ("100", 100, "epochs", "100epochs"),
        ("0.5epochs", 0.5, "epochs", "0.5epochs"),
        ("1epoch", 1, "epochs", "1epoch"),
        ("0epochs", 0, "epochs", "0epochs"),
        ("5000steps", 5000, "steps", "5000steps"),
        ("1step", 1, "steps", "1step"),
        (" 5000 steps ", 5000, "steps", "5000steps"),
        ("1e6examples", 1_000_000, "examples", "1000000examples"),
        ("1.5e+3examples", 1500, "examples", "1500examples"),
        ("1e-7epochs", 1e-7, "epochs", "1e-07epochs"),
        (200, 200, "epochs", "200epochs"),
    ],
)
def test_text_is_read_and_comes_back(text, amount, unit, canonical):
    duration = parse_duration(text)
    assert duration == Duration(amount, unit)
    assert str(duration) == canonical
    assert parse_duration(canonical) == duration


@pytest.mark.parametrize(
    ("text", "steps"),
    [
        ("10epochs", 390),
        ("0.5epochs", 20),  # 19.5: to the even number
        ("1.5epochs", 58),  # 58.5: to the even number
        ("0.29epochs", 11),  # 11.31
        ("7steps", 7),
        ("1e6examples", 7812),  # 7812.5: to the even number
        ("1000001examples", 7813),
        ("63examples", 0),
        ("65examples", 1),
        ("0", 0),
    ],
)
def test_steps_are_the_nearest(text, steps):
    assert parse_duration(text).steps(steps_per_epoch=39, batch_size=128) == steps


def test_too_few_steps_are_refused_where_asked():
    assert Duration(64, "examples").steps(39, 64, at_least=1) == 1
    with pytest.raises(UserError) as error:
        Duration(0.01).steps(39, 128, at_least=1)
    assert str(error.value) == (
        "Duration '0.01epochs' is 0 steps (39 an epoch, batches of 128); allowed: 1step and above."
    )


@pytest.mark.parametrize(
    ("text", "nearest"),
    [
        ("100epoches", "100epochs"),
        ("100 Epochs", "100epochs"),
        ("5ep", "5epochs"),
        ("5,000step", "5000steps"),
        ("1e6 images", "1000000examples"),
        ("10sample", "10examples"),
        ("-5epochs", "5epochs"),
        ("-0.5steps", "1step"),
        ("0.5steps", "1step"),
        ("2.5examples", "3examples"),
        ("epochs", "100epochs"),
        ("", "100epochs"),
        ("nan", "100epochs"),
        ("inf steps", "100epochs"),
        ("1e999", "100epochs"),
    ],
)
def test_another_form_names_the_nearest(text, nearest):
    with pytest.raises(UserError, match=f"Did you mean '{nearest}'") as error:
        parse_duration(text)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("amount", [-1, float("nan"), float("inf")])
def test_amount_that_is_no_length_is_refused(amount):
    with pytest.raises(UserError, match="allowed: 0 to 1e.15"):
        Duration(amount, "steps")


def test_unknown_unit_names_the_nearest():
    with pytest.raises(UserError, match="Did you mean 'epochs'"):
        Duration(1, "epoch")


def test_tensorflow_is_not_loaded():
    code = "import sys, tfcq.settings.durations; sys.exit('tensorflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
