"""How pages write numbers, money, lengths of time and moments. Pure, but for the reader's zone."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from typing import Any

import orjson

from dwctl.dashboard import browsers
from dwctl.dashboard.zones import zone
from dwctl.identity import api_keys

NOTHING = "–"
"""What stands where there is no value."""

RATE_UNITS = {"second": 1, "minute": 60, "hour": 3600, "day": 86_400}
"""Seconds in each."""

_THIN = "\u202f"
_SPACES = r"\s+"
_SYNTAX = re.compile(r"[\\^$.*+?()\[\]{}|/]")


def moment(value: Any) -> datetime | None:
    """A moment out of the API's text, a datetime, or seconds since 1970; None for none."""
    if value is None or value == "":
        return None
    if isinstance(value, datetime):
        return value if value.tzinfo else value.replace(tzinfo=UTC)
    if isinstance(value, (int, float)):
        return datetime.fromtimestamp(value, UTC)
    return datetime.fromisoformat(str(value))


def iso(value: Any) -> str:
    """RFC 3339 in UTC, for `<time datetime>`."""
    found = moment(value)
    return f"{found.astimezone(UTC).isoformat(timespec='microseconds')[:-6]}Z" if found else ""


@dataclass(frozen=True, slots=True)
class Stamp:
    """A moment as a row of a list has it: in UTC by RFC 3339, and in the reader's zone as "27 Nov" and "12:04:31.208"."""

    iso: str
    day: str
    clock: str


def stamps() -> Callable[[datetime | str], Stamp]:
    """How moments are stamped for the reader, whose zone is found once."""
    at = zone()
    days: dict[tuple[int, int], str] = {}

    def stamp(time: datetime | str) -> Stamp:
        found = datetime.fromisoformat(time) if isinstance(time, str) else time
        local = found.astimezone(at)
        date = (local.month, local.day)
        if date not in days:
            days[date] = f"{local:%d %b}"
        clock = (
            f"{local.hour:02}:{local.minute:02}:{local.second:02}.{local.microsecond // 1000:03}"
        )
        utc = found.astimezone(UTC).isoformat(timespec="microseconds")
        return Stamp(f"{utc[:-6]}Z", days[date], clock)

    return stamp


def clock_time(value: Any) -> str:
    """12:04:31.208 in the reader's zone."""
    found = moment(value)
    return f"{found.astimezone(zone()):%H:%M:%S.%f}"[:-3] if found else NOTHING


def day_time(value: Any) -> str:
    """27 Nov 2026 12:04:31 in the reader's zone."""
    found = moment(value)
    return f"{found.astimezone(zone()):%d %b %Y %H:%M:%S}" if found else NOTHING


def short_time(value: Any) -> str:
    """27 Nov 12:04 in the reader's zone; with the year where it is another one."""
    found = moment(value)
    return NOTHING if found is None else short_times()(found)


def short_times() -> Callable[[datetime], str]:
    """The same for many moments: what the reader's zone and the year are is found once."""
    at = zone()
    this_year = datetime.now(at).year
    days: dict[tuple[int, int, int], str] = {}

    def written(moment: datetime) -> str:
        local = moment.astimezone(at)
        date = (local.year, local.month, local.day)
        if date not in days:
            days[date] = f"{local:%d %b}" if local.year == this_year else f"{local:%d %b %Y}"
        return f"{days[date]} {local.hour:02}:{local.minute:02}"

    return written


def number(value: Any) -> str:
    """1,234,567."""
    return NOTHING if value is None else f"{value:,}"


def counted(value: int, thing: str) -> str:
    """1 call, 1,234 calls: of a thing that an s makes several."""
    return f"{number(value)} {thing}{'' if value == 1 else 's'}"


def compact(value: Any) -> str:
    """1.2 k, 34 M: for tiles, beside which the exact number stands in a title."""
    if value is None:
        return NOTHING
    size = float(value)
    for step, unit in ((1e9, "B"), (1e6, "M"), (1e4, "k")):
        if abs(size) >= step:
            shown = size / (1e3 if unit == "k" else step)
            return f"{shown:,.1f}".rstrip("0").rstrip(".") + _THIN + unit
    return f"{size:,.0f}"


def money(value: Any, *, places: int | None = None) -> str:
    """$1,234.56; small sums with as many digits as they have, at most nine: money that is there is never shown as 0.00."""
    if value is None or value == "":
        return NOTHING
    try:
        amount = value if isinstance(value, Decimal) else Decimal(str(value))
    except InvalidOperation:
        return NOTHING
    sign, size = ("−" if amount < 0 else ""), abs(amount)
    if places is not None:
        return f"{sign}${size:,.{places}f}"
    if size == 0 or size >= 1:
        return f"{sign}${size:,.2f}"
    # Three digits that count.
    digits = min(9, max(2, 2 - size.adjusted()))
    text = f"{size:.{digits}f}"
    while text.endswith("0") and len(text.partition(".")[2]) > 2:
        text = text[:-1]
    return f"{sign}${text}" if Decimal(text) else f"{sign}<$0.000000001"


def exact_money(value: Any) -> str:
    """All digits that the ledger has."""
    return NOTHING if value is None else f"${Decimal(str(value)):,f}"


def money_in_full(value: Any) -> str:
    """Every digit that counts, and two at least: a balance beside the small sums that make it."""
    if value is None:
        return NOTHING
    amount = Decimal(str(value))
    text = f"{abs(amount):,.15f}".rstrip("0")
    return f"{'−' if amount < 0 else ''}${text}{'0' * (2 - len(text.partition('.')[2]))}"


def per_million(value: Any) -> str:
    """A price per token as people compare it: for a million tokens."""
    return NOTHING if value is None or value == "" else money(Decimal(str(value)) * 1_000_000)


def of_a_million(value: Any) -> str:
    """The same as a field of a form has it: "0.15"."""
    if value is None or value == "":
        return ""
    return f"{(Decimal(str(value)) * 1_000_000).normalize():f}"


_LONG_DAYS, _YEAR_DAYS, _MOST_YEARS = 60, 365, 100
"""From the first on nobody asks for hours, from two of the second for days."""


def duration(ms: Any) -> str:
    """820 ms, 4.21 s, 3 min 12 s, 2 h 5 min, 9 d 4 h, 120 d, 12 years; nobody plans for more than a hundred of these."""
    if ms is None:
        return NOTHING
    value = float(ms)
    if value < 1000:
        return f"{value:,.0f}{_THIN}ms" if value >= 10 or value == int(value) else f"{value:.1f}{_THIN}ms"  # fmt: skip
    seconds = value / 1000
    if seconds < 60:
        return f"{seconds:.2f}{_THIN}s" if seconds < 10 else f"{seconds:.1f}{_THIN}s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes}{_THIN}min {rest}{_THIN}s" if rest else f"{minutes}{_THIN}min"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours}{_THIN}h {minutes}{_THIN}min" if minutes else f"{hours}{_THIN}h"
    days, hours = divmod(hours, 24)
    if days >= _MOST_YEARS * _YEAR_DAYS:
        return f"over {_MOST_YEARS} years"
    if days >= 2 * _YEAR_DAYS:
        return f"{days // _YEAR_DAYS} years"
    if days >= _LONG_DAYS:
        return f"{days}{_THIN}d"
    return f"{days}{_THIN}d {hours}{_THIN}h" if hours else f"{days}{_THIN}d"


def seconds(value: Any) -> str:
    """The same of seconds."""
    return NOTHING if value is None else duration(float(value) * 1000)


def between(began: float, ended: float) -> str:
    """The time between two moments of which only the second is known (Unix time)."""
    return duration((ended - began) * 1000) if ended > began else f"under 1{_THIN}s"


def minutes(value: Any) -> str:
    """The same of minutes, for the length of a chart's points: 5 min, 1 h, 1 d."""
    return {60: f"1{_THIN}h", 360: f"6{_THIN}h", 1440: f"1{_THIN}d"}.get(
        value, f"{value}{_THIN}min"
    )


def rate(per_second: Any) -> str:
    """5 requests a second, 30 requests a minute: in the smallest unit of time in which there is at least one."""
    if per_second is None:
        return NOTHING
    unit, count = rate_in_units(float(per_second))
    shown = f"{float(f'{count:.4g}'):,.12g}"
    return f"{shown} request{'s' if shown != '1' else ''} {'an' if unit == 'hour' else 'a'} {unit}"


def rate_in_units(per_second: float) -> tuple[str, float]:
    """The unit of time in which people would write it, and how many it has."""
    for unit, seconds in RATE_UNITS.items():
        # (A seventh of a minute, times sixty, is a hair less than it was.)
        if per_second * seconds >= 0.9999:
            return unit, per_second * seconds
    return unit, per_second * seconds


def pattern(text: str) -> str:
    """A regular expression, as HTML's `pattern` has them, of this very text as pages show it: several spaces are as good as one, those at its ends as none."""
    words = (_SYNTAX.sub(r"\\\g<0>", word) for word in text.split())
    return rf"\s*{_SPACES.join(words)}\s*"


def size(bytes: Any) -> str:
    """12 B, 3.4 KiB, 1.2 GiB."""
    if bytes is None:
        return NOTHING
    value = float(bytes)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < 1024 or unit == "GiB":
            return f"{value:,.0f}{_THIN}{unit}" if unit == "B" else f"{value:,.1f}{_THIN}{unit}"
        value /= 1024
    raise AssertionError


_UNSEEN_KEYS = {"batch": "Batches", "playground": "Playground"}


def key_name(name: str | None) -> str:
    """What an API key is called; of one that nobody made and nobody can use, what goes by it."""
    return _UNSEEN_KEYS.get(api_keys.hidden_purpose(name) or "", name) if name else ""


def percent(part: Any, whole: Any = None, *, even: bool = False) -> str:
    """12.3 %; with a whole, of it; never 0 % or 100 % of what is not. even: 12.0 % rather than 12 %, for a column."""
    if part is None:
        return NOTHING
    if whole is not None:
        if not whole:
            return NOTHING
        part = 100 * float(part) / float(whole)
    # (What is all of it comes out as a little less.)
    value = round(float(part), 9)
    if 0 < value < 0.1:
        return f"<0.1{_THIN}%"
    if 99.9 < value < 100:
        return f">99.9{_THIN}%"
    text = f"{value:.1f}"
    return (text if even else text.removesuffix(".0")) + f"{_THIN}%"


def change(now: Any, before: Any) -> str | None:
    """+12 %, −3 %: against what was before; None where there is nothing to compare with."""
    if now is None or not before:
        return None
    by = 100 * (float(now) / float(before) - 1)
    sign = "+" if by > 0 else "−" if by < 0 else "±"
    return f"{sign}{abs(by):,.0f}{_THIN}%" if abs(by) < 1000 else f"{sign}{float(now) / float(before):,.0f}×"  # fmt: skip


def written(value: Any) -> str:
    """As JSON has it. (Jinja's `tojson` is for scripts, and escapes what a reader wants to see.)"""
    return orjson.dumps(value, default=str).decode()


FILTERS = {
    "moment": moment,
    "iso": iso,
    "clock_time": clock_time,
    "day_time": day_time,
    "short_time": short_time,
    "number": number,
    "counted": counted,
    "compact": compact,
    "money": money,
    "exact_money": exact_money,
    "money_in_full": money_in_full,
    "per_million": per_million,
    "of_a_million": of_a_million,
    "duration": duration,
    "seconds": seconds,
    "between": between,
    "minutes": minutes,
    "rate": rate,
    "pattern": pattern,
    "size": size,
    "percent": percent,
    "written": written,
    "key_name": key_name,
    "browser": browsers.name_of,
}
