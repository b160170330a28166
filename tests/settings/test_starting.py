"""What a start of the command does beside the run."""

import pytest

from tfcq.errors import UserError
from tfcq.settings.profiling import parse_profile
from tfcq.settings.starting import StartSettings


def test_flags_that_would_change_nothing_are_refused():
    with pytest.raises(UserError, match="--devices=8xA100 has no effect here.*--dry_run"):
        StartSettings(devices="8xA100")
    with pytest.raises(UserError, match="--preview with --dry_run"):
        StartSettings(preview=True, dry_run=True)
    with pytest.raises(UserError, match="--profile=1-2 has no effect here: no step is made"):
        StartSettings(dry_run=True, profile="1-2")


def test_steps_to_profile_are_read():
    assert parse_profile("20-30") == (20, 30)
    assert parse_profile("7") == (7, 7)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("all", "steps of the run, counted from 1, such as 20-30"),
        ("0-3", "counted from 1"),
        ("30-20", "Did you mean 20-30"),
        ("1-101", "allowed: 1 to 100 steps.*Did you mean 1-100"),
    ],
)
def test_steps_that_cannot_be_profiled_are_refused(text, told):
    with pytest.raises(UserError, match=told):
        StartSettings(profile=text)
