"""A stream that an upstream has begun: its bytes, what the caller gets of them, and what it came to."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator

import gevent

from dwctl.ai.calls import EVENT_STREAM
from dwctl.ai.in_progress import Flight, Stopped
from dwctl.ai.outcomes import Reason
from dwctl.protocols.treatments import StreamTreatment
from dwctl.upstream.client import UpstreamResponse
from dwctl.upstream.errors import UpstreamError

log = logging.getLogger(__name__)

_NOT_KEPT_BACK = EVENT_STREAM[1:]
_COMMENTS_HELD_S = 10.0
"""How long comments before the first event are kept back: what was shown cannot be tried elsewhere."""


class Live:
    """One such stream. `frames`, then `stream.finish`; or `go_on_alone`, once nobody reads it any more."""

    def __init__(
        self,
        response: UpstreamResponse,
        stream: StreamTreatment,
        flight: Flight,
        grace_s: float,
        status: int,
        label: tuple[str, str],
    ) -> None:
        """`grace_s`: how long the usage is waited for, where the model has ended and the caller is gone. `status`, `label`: what the caller
        is told, the label is the content type.
        """
        self.status = status
        self.labels = [label, *_NOT_KEPT_BACK]
        self.response = response
        self.stream = stream
        self._flight = flight
        self._grace_s = grace_s
        self._pieces = response.chunks()
        self._kept_back = b""

    def begin(self) -> None:
        """Read up to the first event that a caller gets to see, or to what came instead. Raises UpstreamError, Stopped."""
        held_until = time.monotonic() + _COMMENTS_HELD_S
        while not self.stream.done and (piece := self._next()) is not None:
            frames = self._fed(piece)
            self._kept_back += frames
            if self.stream.error is not None or _shows_something(frames):
                return
            if self._kept_back and time.monotonic() > held_until:
                return
        self._kept_back += self.stream.finish() or b""

    def frames(self) -> Iterator[bytes]:
        """What the caller gets while the upstream goes on, none of it empty. Raises UpstreamError, Stopped."""
        if kept_back := self._kept_back:
            self._kept_back = b""
            yield kept_back
        while not self.stream.done and (piece := self._next()) is not None:
            if frame := self._fed(piece):
                yield frame

    def farewell(self, reason: Reason) -> bytes | None:
        """The last frames of a call that is stopped."""
        if reason is Reason.CANCELLED:
            return self.stream.cancel()
        return b"" if reason is Reason.LEFT else self.stream.fail("interrupted", reason.text)

    def fail_inside(self) -> bytes | None:
        """The last frames where a bug of ours was met."""
        log.exception("stream failed inside", extra={"request_id": str(self._flight.id)})
        return self.stream.fail("internal_error", "Internal error. Please try again later.")

    def go_on_alone(self, *, to_the_end: bool) -> Reason | None:
        """Read what is left where the caller has left: all of it, or, where the model has ended, the usage that may still come.

        Says how the call ended then.
        """
        self._flight.go_on_alone()
        if not (to_the_end or self.stream.ended):
            return Reason.LEFT
        try:
            with gevent.Timeout(None if to_the_end else self._grace_s, False):
                for _ in self.frames():
                    pass
                self.stream.finish()
                return None
        except UpstreamError as error:
            self.stream.fail(error.code, error.message)
        except Stopped as stop:
            self.farewell(stop.reason)
            return stop.reason
        except Exception:
            self.fail_inside()
        return Reason.LEFT

    def close(self) -> None:
        """Give up what has not arrived."""
        self.response.close()

    def _next(self) -> bytes | None:
        with self._flight.waiting():
            return next(self._pieces, None)

    def _fed(self, piece: bytes) -> bytes:
        frame = self.stream.feed(piece)
        # The usage comes after the end: who hangs up in between does not go without paying.
        self._flight.linger_s = self._grace_s if self.stream.ended else 0.0
        return frame


def _shows_something(data: bytes) -> bool:
    """Whether there is anything but comments in it. By lines: an event may begin with a comment, and end its lines as it likes."""
    return any(line and not line.startswith(b":") for line in data.splitlines())
