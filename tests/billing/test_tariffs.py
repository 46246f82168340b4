from datetime import UTC, datetime, timedelta
from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dwctl.billing import money
from dwctl.billing.tariffs import CurrentTariff, TariffPrice, is_free, pick, price

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
LONG_AGO = NOW - timedelta(days=100)


def tariff(
    purpose: str | None,
    window: str | None,
    cost: str,
    since: datetime = LONG_AGO,
    until: datetime | None = None,
) -> CurrentTariff:
    return CurrentTariff(Decimal(cost), Decimal(cost) * 2, purpose, window, since, until)


REALTIME = tariff("realtime", None, "10")
DAY = tariff("batch", "24h", "5")
HOUR = tariff("batch", "1h", "7")
PLAYGROUND = tariff("playground", None, "3")
INFORMS = tariff(None, None, "99")


@pytest.mark.parametrize(
    ("tariffs", "purpose", "window", "input_price"),
    [
        pytest.param([REALTIME, DAY], "realtime", None, "10", id="realtime"),
        pytest.param([REALTIME, DAY], "batch", "24h", "5", id="batch by its window"),
        pytest.param([REALTIME, DAY, HOUR], "batch", "1h", "7", id="flex by its window"),
        pytest.param([REALTIME, DAY], "batch", "1h", "10", id="no such window: realtime"),
        pytest.param([DAY], "batch", "1h", None, id="no such window, no realtime"),
        pytest.param([REALTIME, DAY], "batch", None, "10", id="batch without a window"),
        pytest.param([REALTIME, PLAYGROUND], "playground", None, "3", id="playground"),
        pytest.param([REALTIME], "playground", None, "10", id="playground falls back"),
        pytest.param([REALTIME], "platform", None, "10", id="platform falls back"),
        pytest.param([PLAYGROUND, DAY], "realtime", None, None, id="realtime never falls back"),
        pytest.param([PLAYGROUND], "batch", "24h", None, id="batch never uses playground"),
        pytest.param([INFORMS], "realtime", None, None, id="no purpose: only informs"),
        pytest.param([], "realtime", None, None, id="none at all"),
    ],
)
def test_the_most_specific_tariff_prices_a_call(
    tariffs: list[CurrentTariff], purpose: str, window: str | None, input_price: str | None
) -> None:
    picked = pick(tariffs, purpose=purpose, window=window, at=NOW)
    assert (picked and picked.input) == (input_price and Decimal(input_price))


@pytest.mark.parametrize(
    ("at", "input_price"),
    [
        pytest.param(NOW - timedelta(microseconds=1), "1", id="just before the change: the old"),
        pytest.param(NOW, "2", id="at the change: the new"),
        pytest.param(LONG_AGO, "1", id="at its first moment"),
        pytest.param(LONG_AGO - timedelta(seconds=1), None, id="before there was one"),
    ],
)
def test_the_tariff_in_force_when_the_call_began_counts(
    at: datetime, input_price: str | None
) -> None:
    old = tariff("realtime", None, "1", until=NOW)
    new = tariff("realtime", None, "2", since=NOW)
    picked = pick([new, old], purpose="realtime", window=None, at=at)
    assert (picked and picked.input) == (input_price and Decimal(input_price))


def test_of_two_rows_written_by_hand_the_newer_counts() -> None:
    both = [tariff("realtime", None, "1"), tariff("realtime", None, "2", since=NOW)]
    picked = pick(both, purpose="realtime", window=None, at=NOW)
    assert picked == TariffPrice(Decimal(2), Decimal(4))


@pytest.mark.parametrize(
    ("tariffs", "purpose", "window", "free"),
    [
        pytest.param([], "realtime", None, True, id="no tariff"),
        pytest.param([DAY], "realtime", None, True, id="priced only for batch"),
        pytest.param([DAY], "batch", "24h", False, id="priced for this batch"),
        pytest.param([INFORMS], "realtime", None, True, id="a price that only informs"),
        pytest.param([REALTIME], "batch", "1h", False, id="pays the realtime price"),
        pytest.param(
            [REALTIME, tariff("batch", "1h", "0")], "batch", "1h", True, id="free for batch"
        ),
    ],
)
def test_free_is_judged_by_the_tariff_that_would_price_the_call(
    tariffs: list[CurrentTariff], purpose: str, window: str | None, free: bool
) -> None:
    assert is_free(tariffs, purpose=purpose, window=window, at=NOW) is free


@pytest.mark.parametrize(
    ("input_price", "output_price", "prompt", "completion", "cost"),
    [
        ("0.001", "0.002", 9, 3, "0.015"),
        ("0.000000000000001", "0", 1, 5, "0.000000000000001"),
        ("123456789.123456789012345", "0.1", 9_007_199_254_740_993, 7, None),
        ("0", "0", 1000, 1000, "0"),
    ],
)
def test_a_price_is_exact_to_the_last_digit(
    input_price: str, output_price: str, prompt: int, completion: int, cost: str | None
) -> None:
    found = price(TariffPrice(Decimal(input_price), Decimal(output_price)), prompt, completion)
    if cost is None:
        # What Decimal's usual 28 digits would round, whole numbers do not.
        units = 123456789123456789012345 * prompt + 10**14 * completion
        cost = f"{units // 10**15}.{units % 10**15:015d}"
    assert found == Decimal(cost)


@pytest.mark.parametrize(
    ("cached", "reasoning", "cost"),
    [
        pytest.param(None, None, "1300", id="no prices of their own"),
        pytest.param("1", None, "940", id="cached input"),
        pytest.param(None, "50", "1450", id="reasoning"),
        pytest.param("0", "0", "800", id="zero is a price, too"),
        pytest.param("20", "50", "1850", id="dearer than the others"),
    ],
)
def test_parts_with_prices_of_their_own_are_priced_apart(
    cached: str | None, reasoning: str | None, cost: str
) -> None:
    tariff = TariffPrice(
        Decimal(10), Decimal(20), cached and Decimal(cached), reasoning and Decimal(reasoning)
    )
    found = price(tariff, 100, 15, cached_tokens=40, reasoning_tokens=5)
    assert found == Decimal(cost)


@pytest.mark.parametrize(
    ("cached", "reasoning", "cost"),
    [
        pytest.param(1000, 0, "400", id="more cached than there are: all are"),
        pytest.param(0, 1000, "1750", id="more reasoning than there is: all is"),
    ],
)
def test_counts_that_do_not_fit_are_bounded(cached: int, reasoning: int, cost: str) -> None:
    tariff = TariffPrice(Decimal(10), Decimal(20), Decimal(1), Decimal(50))
    found = price(tariff, 100, 15, cached_tokens=cached, reasoning_tokens=reasoning)
    assert found == Decimal(cost)


_COUNTS = st.integers(0, 2**31 - 1)
_PRICES = st.decimals(0, money.LARGEST, places=money.SCALE)


@given(_PRICES, _PRICES, st.none() | _PRICES, st.none() | _PRICES, _COUNTS, _COUNTS, _COUNTS, _COUNTS)  # fmt: skip
def test_a_usage_costs_what_its_parts_cost_to_the_last_digit(
    input: Decimal,
    output: Decimal,
    cached_input: Decimal | None,
    reasoning: Decimal | None,
    prompt: int,
    completion: int,
    cached: int,
    reasoned: int,
) -> None:
    tariff = TariffPrice(input, output, cached_input, reasoning)
    found = price(tariff, prompt, completion, cached_tokens=cached, reasoning_tokens=reasoned)
    cached, reasoned = min(cached, prompt), min(reasoned, completion)
    parts = [
        (prompt - cached, input),
        (cached, input if cached_input is None else cached_input),
        (completion - reasoned, output),
        (reasoned, output if reasoning is None else reasoning),
    ]
    assert Fraction(found) == sum(Fraction(each) * count for count, each in parts)
    assert found >= 0
