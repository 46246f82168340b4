"""What a text from outside may do to a line: nothing."""

from __future__ import annotations

import unicodedata

import pytest

from dwctl.printable import printable


@pytest.mark.parametrize(
    "text",
    [
        "gpt-4o",
        "Grüße",
        "模型",
        "नमस्ते",
        "می‌خواهم",
        "👩‍👩‍👧",
        "a b",
        'quote " and \\',
        "",
        "e\u0301",
    ],
)
def test_what_people_write_stays(text: str) -> None:
    assert printable(text) == text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\nb", r"a\nb"),
        ("a\r\tb\0", r"a\r\tb\x00"),
        ("\x1b[2J\x1b]0;title\x07", r"\x1b[2J\x1b]0;title\x07"),
        ("\x9b31m\x7f", r"\x9b31m\x7f"),
        ("a\u2028b\u2029c\x85d", r"a\u2028b\u2029c\x85d"),
        ("\u202eevil\u202c\u2066x\u2069\u200f", r"\u202eevil\u202c\u2066x\u2069\u200f"),
        ("\ud800", r"\ud800"),
        ("zero\u200bwidth\ufeff", r"zero\u200bwidth\ufeff"),
        ("\U000e0041", r"\U000e0041"),
    ],
    ids=ascii,
)
def test_what_would_do_something_is_escaped(text: str, shown: str) -> None:
    assert printable(text) == shown


def test_no_character_ends_a_line_or_turns_its_direction() -> None:
    every = printable("".join(map(chr, range(0x110000))))
    assert len(every.splitlines()) == 1
    kinds = {unicodedata.category(character) for character in set(every)}
    assert not kinds & {"Cc", "Cs", "Zl", "Zp"}
    turning = {"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"}
    assert not {unicodedata.bidirectional(character) for character in set(every)} & turning
    every.encode()


@pytest.mark.parametrize(("text", "most"), [("x" * 8000, 255), ("\x1b" * 8000, 255), ("é\n" * 9, 5)])  # fmt: skip
def test_a_long_text_is_cut_with_a_mark(text: str, most: int) -> None:
    shown = printable(text, most)
    assert len(shown) == most
    assert shown.endswith("…")
    assert printable("x" * most, most) == "x" * most
