"""What a call has cost, told to its caller: in a header, or, at the end of a stream, in a comment, which every reader of events skips.

By settings (`costs`); without them nothing is computed or read. Calls that a worker runs are told by their log row.
"""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from typing import TYPE_CHECKING

from dwctl.ai import logged
from dwctl.ai.admission import Admitted
from dwctl.ai.bookkeeping import cost_of
from dwctl.ai.calls import Headers
from dwctl.ai.logged import Logged
from dwctl.ai.outcomes import Outcome
from dwctl.billing import money
from dwctl.protocols.numbered import DONE

if TYPE_CHECKING:
    from dwctl.ai.gateway import Gateway

COST = "x-dwctl-cost"


def headers(gateway: Gateway, admitted: Admitted, outcome: Outcome) -> Headers:
    """What goes with an answer in one piece."""
    if not gateway.settings.costs.header:
        return []
    return [(COST, _text(cost_of(admitted, outcome)))]


def told(gateway: Gateway, admitted: Admitted, outcome: Outcome, last: bytes) -> bytes:
    """The last bytes of a stream, with the comment where they end it."""
    if not gateway.settings.costs.stream_comment:
        return last
    return _with_comment(last, cost_of(admitted, outcome))


def headers_of_queued(gateway: Gateway, found: Logged | None) -> Headers:
    """`headers` of a call that a worker has run; none where its log row cannot be read."""
    if not gateway.settings.costs.header or found is None:
        return []
    return [(COST, _text(found.cost))]


def told_of_queued(
    gateway: Gateway, admitted: Admitted, pieces: Iterator[bytes]
) -> Iterator[bytes]:
    """A stream whose events a worker has written, with the comment where it ends."""
    if not gateway.settings.costs.stream_comment:
        yield from pieces
        return
    for piece in pieces:
        if piece.endswith(DONE) and (found := logged.read(gateway, admitted)) is not None:
            piece = _with_comment(piece, found.cost)
        yield piece


def _with_comment(last: bytes, cost: Decimal | None) -> bytes:
    if not last.endswith(DONE):
        return last
    return last.removesuffix(DONE) + f": cost {_text(cost)}\n\n".encode() + DONE


def _text(cost: Decimal | None) -> str:
    return money.short_text(cost or Decimal(0))
