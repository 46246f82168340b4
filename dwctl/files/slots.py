"""How many files one process takes in at once, and how many uploads wait for their turn. First come, first served."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from gevent.lock import BoundedSemaphore

from dwctl.config import FileLimits
from dwctl.errors import DwctlError

RETRY_AFTER_S = 30


class TooManyUploads(DwctlError):
    """Too many file uploads in progress. Please retry later."""

    code = "too_many_requests"
    status = 429
    retryable = True

    def __init__(self, message: str | None = None) -> None:
        super().__init__(
            message,
            retry_after_s=RETRY_AFTER_S,
            members={"retry_after_seconds": RETRY_AFTER_S},
        )


class Slots:
    """Those of one process."""

    def __init__(self, limits: FileLimits) -> None:
        self._limits = limits
        self._free = BoundedSemaphore(limits.max_concurrent_uploads or 1)
        self._waiting = 0

    @contextmanager
    def one(self) -> Iterator[None]:
        """A slot for an upload. Raises TooManyUploads."""
        if not self._limits.max_concurrent_uploads:
            yield
            return
        self._take()
        try:
            yield
        finally:
            self._free.release()

    def _take(self) -> None:
        if not self._waiting and self._free.acquire(blocking=False):
            return
        limits = self._limits
        too_many = limits.max_waiting_uploads and self._waiting >= limits.max_waiting_uploads
        if too_many or not limits.max_upload_wait_secs:
            raise TooManyUploads
        self._waiting += 1
        try:
            if not self._free.acquire(timeout=limits.max_upload_wait_secs):
                raise TooManyUploads("Timed out waiting for upload slot. Please retry later.")
        finally:
            self._waiting -= 1
