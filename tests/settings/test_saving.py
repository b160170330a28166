"""How often a run is saved, as text."""

import pytest

from tfcq.errors import UserError
from tfcq.settings.saving import SaveEvery, parse_save_every


def test_every_unit_is_read():
    assert parse_save_every("1epochs") == parse_save_every("1 epoch") == SaveEvery()
    assert parse_save_every("500steps") == SaveEvery(500, "steps")
    assert parse_save_every("10min") == SaveEvery(10, "min")


@pytest.mark.parametrize(
    ("text", "nearest"),
    [("10", "10steps"), ("0steps", "1steps"), ("5minutes", "5min"), ("3ep", "3epochs"), ("", "1")],
)
def test_other_texts_are_told_with_the_nearest(text, nearest):
    with pytest.raises(UserError, match=rf"^--save_every={text} cannot .* mean {nearest}\w*\?$"):
        parse_save_every(text)
