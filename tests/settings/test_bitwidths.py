"""Bit-widths as text."""

import pytest

from tfcq.errors import UserError
from tfcq.quantization.precision import Precision
from tfcq.settings.bitwidths import (
    FLOAT,
    BitWidth,
    parse_bit_choices,
    parse_bit_width,
    parse_bit_widths,
)


def error_of(parse, text) -> str:
    with pytest.raises(UserError) as caught:
        parse(text)
    message = str(caught.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize("weights", range(2, 17))
@pytest.mark.parametrize("activations", [2, 9, 16])
def test_bit_width_round_trips(weights, activations):
    parsed = parse_bit_width(f"{weights}w{activations}a")
    assert parsed == BitWidth(weights, activations)
    assert str(parsed) == f"{weights}w{activations}a"
    assert not parsed.is_float


def test_float_and_one_sided_bit_widths_print_what_they_are():
    assert parse_bit_width(" fp ") is FLOAT
    assert str(FLOAT) == "fp"
    assert FLOAT.is_float
    assert str(BitWidth(4, None)) == "4w"
    assert str(BitWidth(None, 8)) == "8a"
    assert not BitWidth(4, None).is_float


@pytest.mark.parametrize(
    ("text", "nearest"),
    [("0w9a", "2w9a"), ("17w99a", "16w16a"), ("1w4a", "2w4a"), ("4w1a", "4w2a"),
     ("04w8a", "4w8a"), ("4a8w", "8w4a"), ("w4a4", "4w4a"), ("4w6", "4w6a"), ("", "8w8a"),
     ("float", "8w8a"), ("4w", "8w8a"), ("-4w8a", "4w8a"), ("4.5w8a", "8w8a")],
)  # fmt: skip
def test_bad_bit_width_names_the_nearest(text, nearest):
    message = error_of(parse_bit_width, text)
    assert message == (
        f"Unknown bit-width {text!r}; allowed: 'fp', or NwMa with N and M from 2 to 16. "
        f"Did you mean {nearest!r}?"
    )


def test_list_keeps_its_order():
    assert parse_bit_widths("2w4a, fp,8w8a") == (BitWidth(2, 4), FLOAT, BitWidth(8, 8))


def test_bad_lists_are_refused():
    assert error_of(parse_bit_widths, " , ") == (
        "No bit-width in ' , '; allowed: a list such as 'fp,8w8a,4w4a'."
    )
    assert error_of(parse_bit_widths, "fp,8w8a,fp") == (
        "Bit-width 'fp' stands twice in 'fp,8w8a,fp'; name it once."
    )
    assert "Did you mean '2w9a'?" in error_of(parse_bit_widths, "fp,0w9a")


@pytest.mark.parametrize(
    ("text", "choices"),
    [("2-8", (2, 3, 4, 5, 6, 7, 8)), ("4-4", (4,)), ("16", (16,)), ("8,2,4", (8, 2, 4)), (4, (4,)),
     (" 4-5 ", (4, 5))],
)  # fmt: skip
def test_choices_of_a_draw(text, choices):
    assert parse_bit_choices(text) == choices


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("8-2", "Bits '8-2' descend; did you mean '2-8'?"),
        ("1-4", "Bits 1 in '1-4' cannot be used; allowed: 2 to 16. The nearest is 2."),
        ("4,17", "Bits 17 in '4,17' cannot be used; allowed: 2 to 16. The nearest is 16."),
        (
            "2-999999999",
            "Bits 999999999 in '2-999999999' cannot be used; allowed: 2 to 16. The nearest is 16.",
        ),
        ("0", "Bits 0 in '0' cannot be used; allowed: 2 to 16. The nearest is 2."),
        ("", "Unknown bits ''; allowed: a range '2-8', a number '4' or a list '2,4,8'."),
        ("2..8", "Unknown bits '2..8'; allowed: a range '2-8', a number '4' or a list '2,4,8'."),
        ("4,", "Unknown bits '4,'; allowed: a range '2-8', a number '4' or a list '2,4,8'."),
    ],
)
def test_bad_choices_name_the_nearest(text, message):
    assert error_of(parse_bit_choices, text) == message


def test_unknown_source_of_ranges_names_the_nearest():
    assert "Did you mean 'recorded'?" in error_of(lambda r: Precision(4, 8, ranges=r), "record")


def test_shared_values_are_computed_once_for_each_owner():
    computed = []

    def compute(value):
        computed.append(value)
        return value

    owner, other = object(), object()
    one, two = Precision(4, 8, shared={}), Precision(4, 8)
    values = [one.once(owner, lambda: compute(1)), one.once(owner, lambda: compute(2))]
    values += [one.once(other, lambda: compute(3)), two.once(owner, lambda: compute(4))]
    values += [two.once(owner, lambda: compute(5))]
    assert values == [1, 1, 3, 4, 5]
    assert computed == [1, 3, 4, 5]


def test_ranges_stand_for_each_of_their_bits():
    def texts(text):
        return [str(bits) for bits in parse_bit_widths(text)]

    assert texts("fp, 2-4w4a,8w8a") == ["fp", "2w4a", "3w4a", "4w4a", "8w8a"]
    assert texts("2-3w4-5a") == ["2w4a", "2w5a", "3w4a", "3w5a"]
    assert texts("8w7-8a") == ["8w7a", "8w8a"]
    for text, message in (
        ("4-2w8a", "descend"), ("1-4w8a", "nearest is 2"), ("2-4w", "Unknown bit-width"),
        ("2-4w4a,3w4a", "'3w4a' stands twice"),
    ):  # fmt: skip
        with pytest.raises(UserError, match=message):
            parse_bit_widths(text)
