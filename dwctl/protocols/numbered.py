"""The events of a stream as numbered pieces of text: what is kept of a stream, and asked for from behind a number on. Pure.

An event has the number that it says (`sequence_number`), else the one after its predecessor's: so has all of a chat stream, and `[DONE]`.
Comments are no events.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

DONE = b"data: [DONE]\n\n"

_END = b"\n\n"
# Inside of a string its quotes would be escaped, so this is a member.
_NUMBER = re.compile(rb'"sequence_number":\s*(\d{1,9})\b')
_MEMBER = b'"sequence_number":'


def numbered(text: bytes, before: int) -> Iterator[tuple[int, bytes]]:
    """The events of a text, each with its number; `before` is that of the event before them (-1 at the beginning).

    Numbers only grow: one that does not is taken for none.
    """
    for event in text.split(_END):
        if not event or event.startswith(b":"):
            continue
        said = _NUMBER.match(event, at) if (at := event.rfind(_MEMBER)) >= 0 else None
        number = int(said[1]) if said else before + 1
        before = max(number, before + 1)
        yield before, event + _END


def later(text: bytes, *, before: int, after: int) -> bytes:
    """The events of a text whose number is above `after`; `before` is that of the event before the text."""
    return b"".join(event for number, event in numbered(text, before) if number > after)
