"""The streams of calls that somebody else runs, or has run: what is said in each protocol before, between and behind the events that are kept.

`begin`, then the kept events (or KEEP_ALIVE as often as needed), then one of the others. Numbers are those of the events
(`numbered`): `after` is that of the last one which was sent, -1 where there is none. None of these raises.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from dwctl.errors import DwctlError
from dwctl.protocols.asked import Asked
from dwctl.protocols.disclosure import neutral
from dwctl.protocols.errors import BadUpstreamBody
from dwctl.protocols.forms import Form
from dwctl.protocols.numbered import DONE
from dwctl.protocols.openresponses import resource
from dwctl.protocols.openresponses.events import Events
from dwctl.protocols.openresponses.from_row import from_row
from dwctl.protocols.openresponses.replay import replay
from dwctl.protocols.openresponses.resource import Response
from dwctl.protocols.rows import Shown, StoredRow
from dwctl.protocols.treatments import replay_of_chat
from dwctl.web.envelope import openai_error, wrap

KEEP_ALIVE = b": waiting\n\n"
"""What a held stream sends while nothing happens: a comment, which every reader of events skips."""


class HeldStream(Protocol):
    """One protocol's; see above. `begun`: the number of the last event of `begin`."""

    begun: int

    def begin(self) -> bytes:
        """What is sent while nothing is known yet."""
        ...

    def end(self, row: StoredRow, after: int) -> bytes:
        """All that is behind `after`, made of a request that is over, where none of its events were kept."""
        ...

    def break_off(self, row: StoredRow, after: int) -> bytes:
        """How a request ended whose kept events stop at `after`."""
        ...

    def pause(self, row: StoredRow, after: int) -> bytes:
        """The request goes on, but nobody waits for it here."""
        ...

    def gone(self, after: int) -> bytes:
        """The request was deleted."""
        ...

    def fail(self, error: DwctlError, after: int) -> bytes:
        """What became of the request cannot be read."""
        ...


class HeldChat:
    """Comments while it waits; the end is `[DONE]`, or an error frame."""

    begun = -1

    def __init__(self, answer: Callable[[StoredRow], Shown], asked: Asked, form: Form) -> None:
        """`answer`: how the surface answers a row (raises StillRunning)."""
        self._answer = answer
        self._asked = asked
        self._form = form

    def begin(self) -> bytes:
        return KEEP_ALIVE

    def end(self, row: StoredRow, after: int) -> bytes:
        try:
            shown = self._answer(row)
        except DwctlError as error:
            return self.fail(error, after)
        if shown.status >= 300:
            return _error_frame(shown.body)
        try:
            return replay_of_chat(self._asked, self._form, shown.body)
        except BadUpstreamBody:
            return _error_frame(wrap(neutral(502)))

    def break_off(self, row: StoredRow, after: int) -> bytes:
        if row.state != "completed":
            return self.end(row, after)
        message = f"The rest of this stream was not kept. Fetch the whole answer as {row.response_id}."  # fmt: skip
        return _error_frame(openai_error(message, "stream_not_kept", 503))

    def pause(self, row: StoredRow, after: int) -> bytes:
        return self.end(row, after)

    def gone(self, after: int) -> bytes:
        return _error_frame(openai_error("The request was deleted.", "cancelled", 499))

    def fail(self, error: DwctlError, after: int) -> bytes:
        return _error_frame(openai_error(error.message, error.code, error.status, error.param))


class HeldResponse:
    """The events of a Response: where it waits for a worker, those that say so; the end is the event that holds the object."""

    def __init__(self, skeleton: Response, *, queued: bool) -> None:
        """skeleton: the object while nothing is known of its outcome. queued: it waited, or waits, for a worker."""
        self._skeleton = skeleton
        self._queued = queued
        self.begun = 1 if queued else -1

    def begin(self) -> bytes:
        return Events().began_queued(self._skeleton) if self._queued else b""

    def end(self, row: StoredRow, after: int) -> bytes:
        return replay(from_row(row), queued=self._queued, after=after)

    def break_off(self, row: StoredRow, after: int) -> bytes:
        return Events(after + 1).ended(from_row(row))

    def pause(self, row: StoredRow, after: int) -> bytes:
        """The object as it stands. It repeats the last number: who resumes behind that gets all that follows."""
        return Events(max(after, 0)).standing(from_row(row)) + DONE

    def gone(self, after: int) -> bytes:
        return Events(after + 1).ended(resource.cancelled(self._skeleton))

    def fail(self, error: DwctlError, after: int) -> bytes:
        failed = resource.failed(self._skeleton, code=error.code, message=error.message)
        return Events(after + 1).ended(failed)


def resumed(row: StoredRow) -> HeldResponse:
    """The stream of a stored response, whatever protocol it was asked for in."""
    skeleton = resource.in_progress(from_row(row), "queued")
    return HeldResponse(skeleton, queued=row.service_tier == "flex")


def _error_frame(body: bytes) -> bytes:
    return b"data: " + body.replace(b"\n", b"\ndata: ") + b"\n\n" + DONE
