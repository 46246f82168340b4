"""How many files one process takes in at once, of one account and altogether, and how many uploads wait for their turn. First come, first served."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from uuid import UUID

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

    def __init__(self, limits: FileLimits, most_of_account: int) -> None:
        """`most_of_account`: uploads of one account, those that wait included; 0: any number."""
        self._limits = limits
        self._most_of_account = most_of_account
        self._of_account: Counter[UUID] = Counter()
        self._free = BoundedSemaphore(limits.max_concurrent_uploads or 1)
        self._waiting = 0

    @contextmanager
    def one(self, account: UUID) -> Iterator[None]:
        """A slot for an upload of an account. Raises TooManyUploads."""
        if self._most_of_account and self._of_account[account] >= self._most_of_account:
            most = self._most_of_account
            raise TooManyUploads(
                f"This account has {most} file uploads in progress, the most that it may have at once. Please retry later."
            )
        self._of_account[account] += 1
        try:
            with self._one_of_process():
                yield
        finally:
            self._of_account[account] -= 1
            if not self._of_account[account]:
                del self._of_account[account]

    @contextmanager
    def _one_of_process(self) -> Iterator[None]:
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
