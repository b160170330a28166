"""JSON and CSV that are refused where they are not what their readers take."""

import pytest

from tfcq.errors import UserError
from tfcq.files import read_text
from tfcq.parsing import check_form, parse_json, read_rows

BEYOND = {
    "integer of 5,000 digits": b"9" * 5000,
    "nested without end": b"[" * 100_000,
    "nested and closed": b"[" * 5_000 + b"]" * 5_000,
    "not UTF-8": b'"\xff"',
    "NUL": b"\0",
    "nothing": b"",
}


@pytest.mark.parametrize("content", BEYOND.values(), ids=BEYOND)
def test_json_beyond_what_is_read_is_told_in_one_line(content, tmp_path):
    path = tmp_path / "a.json"
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"a\.json") as caught:
        parse_json(read_text(path), str(path))
    assert "\n" not in str(caught.value)


def test_rows_are_read_by_the_names_of_the_first_line(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("epoch,loss\n1,0.5\n2,\n")
    assert read_rows(path) == [{"epoch": "1", "loss": "0.5"}, {"epoch": "2", "loss": ""}]
    for content in ("epoch,loss\n1\n", "epoch\n1,2\n", 'epoch\n"1', f"epoch\n{'9' * 200_000}\n"):
        path.write_text(content)
        with pytest.raises(UserError, match=r"a\.csv"):
            read_rows(path)


@pytest.mark.parametrize(
    ("found", "place"),
    [({"a": 1.0, "b": [{"c": 3, "x": "y"}], "d": {"e": "f"}}, None), ({}, None),
     ({"a": True}, "it, 'a'"), ({"a": float("nan")}, "it, 'a'"), ({"a": 10**400}, "it, 'a'"),
     ({"b": [{"c": 1}, {"c": None}]}, "it, 'b', 2, 'c'"), ({"b": {}}, "it, 'b'"),
     ({"d": {"e": 1}}, "it, 'd', 'e'"), ([], "it")],
)  # fmt: skip
def test_form_of_json_is_checked_where_it_is_named(found, place):
    form = {"a": float, "b": [{"c": float}], "d": {"*": str}}
    if place is None:
        check_form(found, form, "it")
        return
    with pytest.raises(UserError) as caught:
        check_form(found, form, "it")
    assert str(caught.value).startswith(f"{place} is ")
