"""Spans on their way to the collector: a bounded queue, and one greenlet that sends what waits. Calls never wait for any of it.

The library's own batch processor is made of threads and locks, encodes 512 spans at once and waits at the end for as long as it likes; here
the loop is shared with calls, so groups are small, and the end has a deadline. What finds the queue full, or meets a collector that does not take it,
is dropped and counted.
"""

from __future__ import annotations

import logging
import time
from collections import Counter, deque
from itertools import islice

import gevent
from gevent.event import Event
from opentelemetry.context import Context
from opentelemetry.sdk.trace import ReadableSpan, Span, SpanProcessor
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

from dwctl.sampling import Sample

log = logging.getLogger(__name__)

_GROUP = 64
_GATHER_S = 0.5
_WARNINGS_PER_MINUTE = 1


class Exporting(SpanProcessor):
    """That of this process. `sent` counts spans that the collector took, `dropped` the others, by why."""

    def __init__(self, exporter: SpanExporter, queue_size: int) -> None:
        self.sent = 0
        self.dropped: Counter[str] = Counter()
        self._exporter = exporter
        self._queue_size = queue_size
        self._queue: deque[ReadableSpan] = deque()
        self._arrived = Event()
        self._sending = 0
        self._stopping = False
        self._warnings = Sample(_WARNINGS_PER_MINUTE)
        self._greenlet: gevent.Greenlet | None = None

    @property
    def depth(self) -> int:
        """How many spans wait."""
        return len(self._queue) + self._sending

    def start(self) -> None:
        """Begin to send. After forking."""
        self._greenlet = gevent.spawn(self._run)

    def stop(self, deadline: float) -> None:
        """Send what waits until `deadline` (monotonic); the rest is dropped."""
        self._stopping = True
        self._arrived.set()
        if self._greenlet is not None:
            self._greenlet.join(timeout=max(0.0, deadline - time.monotonic()))
            self._greenlet.kill()
        if self.depth:
            self.dropped["shutdown"] += self.depth
            log.warning("spans not exported", extra={"reason": "shutdown", "spans": self.depth})

    # --- what the library calls

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        """Nothing to do."""

    def on_end(self, span: ReadableSpan) -> None:
        """Never waits."""
        if not span.context or not span.context.trace_flags.sampled:
            return
        if len(self._queue) >= self._queue_size:
            self.dropped["queue_full"] += 1
            return
        self._queue.append(span)
        if len(self._queue) == 1 or len(self._queue) >= _GROUP:
            self._arrived.set()

    def shutdown(self) -> None:
        """See `stop`."""

    def force_flush(self, timeout_millis: int = 30000) -> bool:
        """See `stop`."""
        return True

    # --- the greenlet

    def _run(self) -> None:
        while True:
            self._arrived.wait()
            self._arrived.clear()
            if not self._stopping and len(self._queue) < _GROUP:
                # A moment for the rest of a trace.
                self._arrived.wait(_GATHER_S)
            while self._queue:
                self._send([self._queue.popleft() for _ in islice(range(_GROUP), len(self._queue))])
            if self._stopping:
                return

    def _send(self, group: list[ReadableSpan]) -> None:
        self._sending = len(group)
        try:
            taken = self._exporter.export(group) is SpanExportResult.SUCCESS
        except Exception:
            log.exception("spans not exported")
            taken = False
        self._sending = 0
        if taken:
            self.sent += len(group)
            return
        self.dropped["not_taken"] += len(group)
        left_out = self._warnings.take()
        if left_out is not None:
            log.warning("spans not exported", extra={"reason": "not_taken", "spans": len(group), "left_out": left_out})  # fmt: skip
