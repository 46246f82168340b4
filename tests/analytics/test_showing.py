"""What of a call's texts the log shows: which calls, and how much."""

from __future__ import annotations

from uuid import UUID, uuid4

import pytest

from dwctl.analytics.showing import Withheld, cut, is_among, withheld
from dwctl.clock import uuid7

IDS = [uuid7(1_700_000_000 + number / 7) for number in range(4000)] + [uuid4() for _ in range(4000)]


@pytest.mark.parametrize("share", [0.01, 0.1, 0.5, 0.99])
def test_a_share_is_about_that_share_of_all_ids(share: float) -> None:
    # Five standard deviations.
    allowed = 5 * (len(IDS) * share * (1 - share)) ** 0.5
    assert abs(sum(is_among(id, share) for id in IDS) - share * len(IDS)) < allowed


def test_whoever_is_among_a_share_is_among_every_larger_one() -> None:
    assert all(is_among(id, 0.7) for id in IDS if is_among(id, 0.2))
    assert all(is_among(id, 1.0) and not is_among(id, 0.0) for id in IDS)


@pytest.mark.parametrize(
    ("id", "among"),
    [
        ("0199a8f1-7c5e-7d3a-8000-000000000000", True),
        ("0199a8f1-7c5e-7d3a-9fff-ffffffffffff", True),
        ("0199a8f1-7c5e-7d3a-a000-000000000000", False),
        ("0199a8f1-7c5e-7d3a-bfff-ffffffffffff", False),
    ],
)
def test_it_is_the_random_end_of_an_id_that_decides(id: str, among: bool) -> None:
    """Every version of ours, and every process, must say the same."""
    assert is_among(UUID(id), 0.5) == among


@pytest.mark.parametrize(
    ("zero", "shows", "share", "reason"),
    [
        (True, False, 0.0, Withheld.ZERO_RETENTION),
        (False, False, 1.0, Withheld.OFF),
        (False, True, 0.0, Withheld.NOT_SAMPLED),
        (False, True, 1.0, None),
    ],
)
def test_reasons(zero: bool, shows: bool, share: float, reason: Withheld | None) -> None:
    found = withheld(IDS[0], zero_retention=zero, shows_bodies=shows, share=share)
    assert found == reason


@pytest.mark.parametrize(
    ("body", "most", "shown"),
    {
        "all": (b"hello", 0, "hello"),
        "just": (b"hello", 5, "hello"),
        "cut": (b"hello", 4, "hell… [cut: 5 bytes in all]"),
        "within a character": ("aäb".encode(), 2, "a… [cut: 4 bytes in all]"),
        "no text": (b"\xff\x00a", 5, "\ufffd\ufffda"),
        "no text, cut": (b"\xff\x00a", 2, "\ufffd… [cut: 3 bytes in all]"),
    }.values(),
)
def test_cuts(body: bytes, most: int, shown: str) -> None:
    assert cut(body, most) == shown
