"""Which trace a caller's request belongs to, by its header."""

import pytest

from dwctl.tracing import traceparent
from dwctl.tracing.traceparent import TraceParent

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
KNOWN = TraceParent(int(TRACE, 16), int(SPAN, 16), sampled=True)


@pytest.mark.parametrize(
    ("header", "parsed"),
    [
        (f"00-{TRACE}-{SPAN}-01", KNOWN),
        (f" 00-{TRACE}-{SPAN}-01 ", KNOWN),
        (f"00-{TRACE}-{SPAN}-00", KNOWN._replace(sampled=False)),
        # Only the lowest bit of the flags is defined.
        (f"00-{TRACE}-{SPAN}-ff", KNOWN),
        # A later version is read as far as it is known.
        (f"cc-{TRACE}-{SPAN}-01-what-the-future-brings", KNOWN),
        (f"00-{TRACE}-{SPAN}-01-more", None),
        (f"ff-{TRACE}-{SPAN}-01", None),
        (f"00-{TRACE.upper()}-{SPAN}-01", None),
        (f"00-{'0' * 32}-{SPAN}-01", None),
        (f"00-{TRACE}-{'0' * 16}-01", None),
        (f"00-{TRACE}-{SPAN}", None),
        (f"00-{TRACE}-{SPAN}-01,00-{TRACE}-{SPAN}-01", None),
        (f"cc-{TRACE}-{SPAN}-01-{'x' * 1000}", None),
        ("", None),
        (None, None),
    ],
    ids=["known", "blanks", "not_sampled", "flags", "later", "longer", "ff", "upper", "no_trace", "no_span", "short", "two", "huge", "empty", "none"],
)  # fmt: skip
def test_a_header_is_read_by_the_rules(header: str | None, parsed: TraceParent | None) -> None:
    assert traceparent.parse(header) == parsed


def test_what_is_written_is_what_was_read() -> None:
    assert traceparent.written(KNOWN) == f"00-{TRACE}-{SPAN}-01"
