"""Charts: one value for the picture and for the table; a colour of its own for each line."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import orjson
import pytest

from dwctl.dashboard import charts
from dwctl.dashboard.charts import Chart, Series
from dwctl.dashboard.formatting import between, duration, money_in_full, percent, short_time

TIMES = [datetime(2026, 3, 1, tzinfo=UTC) + timedelta(hours=hour) for hour in range(3)]


def test_a_name_has_the_same_colour_wherever_it_stands_alone() -> None:
    assert charts.color("gpt-oss") == charts.color("gpt-oss") == charts.colors(["gpt-oss"])["gpt-oss"]  # fmt: skip
    assert {charts.color(f"m{number}") for number in range(100)} == set(charts.COLORS)


@pytest.mark.parametrize("count", range(1, 7))
def test_no_two_lines_of_a_chart_have_the_same_colour(count: int) -> None:
    names = [f"model {number}" for number in range(count)]
    assert len(set(charts.colors(names).values())) == count
    assert charts.colors(names) == charts.colors(reversed(names))


def test_what_is_more_than_the_colours_is_grey() -> None:
    assert list(charts.colors(map(str, range(7))).values()).count(charts.OTHER) == 1


def test_picture_and_table_say_the_same() -> None:
    chart = Chart(TIMES, [Series("a", [1, 0, 2]), Series("b", [0, 0, 1.5])], 60, errors=[0, 0, 1])
    drawn = orjson.loads(chart.points)
    assert drawn["times"] == [int(time.timestamp()) for time in TIMES]
    assert [one["values"] for one in drawn["series"]] == [[1, 0, 2], [0, 0, 1.5]]
    assert list(chart.rows()) == [
        (short_time(TIMES[0]), ["1", "0", "0"]),
        (short_time(TIMES[2]), ["2", "1.5", "1"]),
    ]
    assert chart.heads == ["a", "b", "Errors"]


def test_names_stay_text_within_the_attribute() -> None:
    name = """<b>'"&amp;"""
    attribute = Chart(TIMES[:1], [Series(name, [1])], 60).attribute
    assert not set("<>'") & set(attribute)
    assert orjson.loads(attribute.unescape())["series"][0]["name"] == name


@pytest.mark.parametrize(
    ("unit", "written"), [("money", "$0.00125"), ("ms", "0.0\u202fms"), ("tokens", "0.00125")]
)
def test_values_are_written_in_their_unit(unit: str, written: str) -> None:
    chart = Chart(TIMES[:1], [Series("a", [0.00125])], 60, unit=unit)
    assert list(chart.rows()) == [(short_time(TIMES[0]), [written])]


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(820e-3, "820 ms"), (7500, "2 h 5 min"), (86400 * 9 + 4 * 3600, "9 d 4 h"), (86400 * 120.4, "120 d"), (86400 * 365 * 99, "99 years"), (86400 * 537_214.8, "over 100 years")],
)  # fmt: skip
def test_a_length_of_time_says_no_more_than_anybody_asks(seconds: float, shown: str) -> None:
    assert duration(seconds * 1000).replace("\u202f", " ") == shown


@pytest.mark.parametrize(
    ("amount", "shown"),
    [("99.998699000000000", "$99.998699"), ("100", "$100.00"), ("-1234.5", "−$1,234.50"), (None, "–")],
)  # fmt: skip
def test_a_balance_shows_what_small_sums_have_taken(amount: str | None, shown: str) -> None:
    assert money_in_full(amount) == shown


def test_a_time_between_whole_seconds_is_never_none_at_all() -> None:
    assert [between(100, ended).replace("\u202f", " ") for ended in (100, 103, 99)] == [
        "under 1 s",
        "3.00 s",
        "under 1 s",
    ]


def test_shares_of_one_column_have_the_same_digits() -> None:
    column = [percent(part, 300, even=True) for part in (0, 45, 78.6, 300)]
    assert column == ["0.0\u202f%", "15.0\u202f%", "26.2\u202f%", "100.0\u202f%"]
    assert percent(45, 300) == "15\u202f%"
