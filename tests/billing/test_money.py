from decimal import Decimal

import pytest

from dwctl.billing import money


@pytest.mark.parametrize(
    ("value", "fits"),
    [
        ("0.000000000000001", True),
        ("999999999.999999999999999", True),
        ("1E+3", True),
        ("1.0000000000000000000", True),
        ("0.0000000000000001", False),
        ("1000000000", False),
        ("1e400", False),
        ("1e-400", False),
        ("NaN", False),
        ("Infinity", False),
    ],
)
def test_only_what_a_column_holds_exactly_fits(value: str, fits: bool) -> None:
    assert money.fits(Decimal(value)) is fits


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("12.5", "12.500000000000000"),
        ("-0.25", "-0.250000000000000"),
        ("0", "0"),
        ("0E-15", "0"),
        ("1E+3", "1000.000000000000000"),
    ],
)
def test_amounts_show_the_scale_of_the_ledger(value: str, text: str) -> None:
    assert money.amount_text(Decimal(value)) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("0.001", "0.00100000"),
        ("0", "0.00000000"),
        ("0.00000000025", "0.00000000025"),
        ("0.000000003000000", "0.000000003"),
        ("12", "12.00000000"),
    ],
)
def test_prices_show_eight_decimals_and_more_where_they_matter(value: str, text: str) -> None:
    assert money.price_text(Decimal(value)) == text


def test_rounding_is_half_up_at_the_fifteenth_decimal() -> None:
    assert money.rounded(Decimal("0.0000000000000025")) == Decimal("0.000000000000003")


@pytest.mark.parametrize(
    ("value", "text"),
    [("0", "0"), ("0E-15", "0"), ("1.500", "1.5"), ("100", "100"), ("1E+2", "100"), ("1E-9", "0.000000001")],
)  # fmt: skip
def test_short_text_has_no_exponent_and_no_zeros_at_its_end(value: str, text: str) -> None:
    assert money.short_text(Decimal(value)) == text


@pytest.mark.parametrize(
    ("value", "count"),
    [("0", 0), ("0.000000000000001", 1), ("1", 10**15), ("0.0000000000000001", 1), ("1.0000000000000001", 10**15 + 1), (str(money.LARGEST), 10**24 - 1)],
)  # fmt: skip
def test_units_are_whole_and_never_less_than_the_value(value: str, count: int) -> None:
    assert money.units(Decimal(value)) == count
