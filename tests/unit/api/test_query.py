"""Numbers in queries: decimal digits and nothing else."""

from __future__ import annotations

import pytest
from litestar.exceptions import ValidationException

from tailrace.api.query import MAX_LIMIT, decimal, page_limit, whole

NOT_DECIMAL = {
    "empty": "",
    "not a number": "nan",
    "infinite": "inf",
    "infinite, signed": "-inf",
    "infinite, spelled out": "Infinity",
    "exponent": "1e308",
    "exponent beyond a float": "1e400",
    "exponent, in range": "1e3",
    "negative": "-1",
    "signed": "+1",
    "beyond any date": "1" + "0" * 18,
    "400 digits": "9" * 400,
    "hexadecimal": "0x10",
    "underscore": "1_000",
    "Arabic-Indic digits": "١٢٣",
    "full-width digits": "１２３",
    "superscript": "1²",
    "space before": " 1",
    "space behind": "1 ",
    "tab": "1\t",
    "newline behind": "1\n",
    "NUL": "1\0",
    "point alone": ".",
    "point before": ".5",
    "point behind": "5.",
    "two points": "1.2.3",
    "comma": "1,5",
    "ten decimals": "1.0123456789",
}


@pytest.mark.parametrize("text", NOT_DECIMAL.values(), ids=NOT_DECIMAL.keys())
def test_what_is_not_plain_decimal_is_refused(text: str) -> None:
    with pytest.raises(ValidationException) as refused:
        decimal(text)
    assert refused.value.status_code == 400
    assert refused.value.extra[0]["key"] == "since_timestamp"  # type: ignore[index]


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("0", 0.0),
        ("1763800000", 1763800000.0),
        ("1763800000.123456", 1763800000.123456),
        ("999999999999", 1e12 - 1),
    ],
)
def test_plain_decimals_are_read(text: str, number: float) -> None:
    assert decimal(text) == number


def test_a_timestamp_that_a_page_shows_as_next_can_be_passed_back() -> None:
    shown = 1763800000.1234567
    assert decimal(repr(shown)) == shown


@pytest.mark.parametrize("text", [*NOT_DECIMAL.values(), "0", "11", "1.0", "01"])
def test_whole_numbers_out_of_range_or_form_are_refused(text: str) -> None:
    with pytest.raises(ValidationException):
        whole(text, 1, 10)


def test_whole_numbers_include_their_bounds() -> None:
    assert [whole("1", 1, 10), whole("10", 1, 10), whole("0", 0, 0)] == [1, 10, 0]


def test_a_page_has_a_default_size_and_a_largest() -> None:
    assert (page_limit(None), page_limit(str(MAX_LIMIT))) == (100, 1000)
    with pytest.raises(ValidationException):
        page_limit(str(MAX_LIMIT + 1))
