"""What accounts hold of this process at one moment, and no more than that: calls in flight, background calls, bytes of bodies.

Counted in memory, by process: with N web processes an account may hold N times as much. Queued requests are counted in the database,
over all processes, at most once a second for an account that queues; what this process has queued since is added.
A refusal says what to do and when (429, or 503 where the process as a whole is full).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from enum import StrEnum
from math import inf
from uuid import UUID

from dwctl.config import AccountLimits, ProcessLimits
from dwctl.errors import DwctlError, Unavailable

_RETRY_AFTER_S = 5
_RECOUNT_S = 1.0
_COUNTS_KEPT = 10_000


_REALTIME = "{} of your calls run here already, which is the limit. Wait for some to end."
_BACKGROUND = (
    "{} of your background calls run here already, which is the limit."
    ' Wait for some to end, or use service_tier "flex".'
)
_BYTES = (
    "The bodies of your calls that run here may have {} bytes together."
    " Wait for some to end, or send smaller ones."
)


class TooMany(DwctlError):
    """Too many of your calls run at once. Wait for some to end, then try again."""

    code = "too_many_concurrent_requests"
    status = 429
    retryable = True


class Full(Unavailable):
    """This process works on as much as it can hold. Try again shortly."""

    code = "gateway_overloaded"


class Kind(StrEnum):
    """What is counted apart."""

    REALTIME = "realtime"
    BACKGROUND = "background"
    BYTES = "bytes"


class Count:
    """What accounts hold of one kind, and all of them together. `refusal` is told the limit of an account."""

    __slots__ = ("_most", "_most_of_account", "_of_account", "_refusal", "total")

    def __init__(self, refusal: str, most_of_account: int, most: int) -> None:
        self._refusal = refusal
        self._most_of_account = most_of_account or inf
        self._most = most or inf
        self._of_account: dict[int, int] = {}
        self.total = 0

    def check(self, owner: int, amount: int) -> None:
        """Raises TooMany where the account may not hold so much more, Full where the process may not."""
        if self._of_account.get(owner, 0) + amount > self._most_of_account:
            text = self._refusal.format(self._most_of_account)
            raise TooMany(text, retry_after_s=_RETRY_AFTER_S)
        if self.total + amount > self._most:
            raise Full(retry_after_s=_RETRY_AFTER_S)

    def take(self, owner: int, amount: int) -> None:
        """Raises TooMany or Full, and then nothing was taken. `owner`: an account's id as a number, which is found sooner."""
        held, total = self._of_account.get(owner, 0) + amount, self.total + amount
        if held > self._most_of_account or total > self._most:
            self.check(owner, amount)
        self._of_account[owner], self.total = held, total

    def give_back(self, owner: int, amount: int) -> None:
        """The opposite of `take`."""
        self.total -= amount
        if left := self._of_account.get(owner, 0) - amount:
            self._of_account[owner] = left
        else:
            self._of_account.pop(owner, None)


class Holdings:
    """The counts of this process. 0 in a setting switches its limit off."""

    def __init__(
        self,
        account: AccountLimits,
        process: ProcessLimits,
        count_queued: Callable[[UUID], int],
    ) -> None:
        """`count_queued` asks the database for an account's waiting single requests; it may raise DatabaseAway."""
        self._most_queued = account.queued
        self._count_queued = count_queued
        self.counts = {
            Kind.REALTIME: Count(_REALTIME, account.realtime, process.realtime),
            Kind.BACKGROUND: Count(_BACKGROUND, account.background, process.background),
            Kind.BYTES: Count(_BYTES, account.buffered_bytes, process.buffered_bytes),
        }
        self._queued: dict[UUID, tuple[float, int]] = {}

    def begin(self, owner: UUID) -> Hold:
        """What one call holds: nothing yet. `Hold.release` must follow."""
        return Hold(self, owner)

    def check_queued(self, owner: UUID) -> None:
        """One more request of the account is going to be queued. Raises TooMany, or DatabaseAway."""
        if not self._most_queued:
            return
        now = time.monotonic()
        since, count = self._queued.get(owner, (-_RECOUNT_S, 0))
        if now - since >= _RECOUNT_S:
            counted = self._count_queued(owner)
            # Meanwhile another call may have counted, and let itself in: what it left is newer than what was found here.
            since, count = self._queued.get(owner, (-_RECOUNT_S, 0))
            if now - since >= _RECOUNT_S:
                since, count = now, counted
            if len(self._queued) >= _COUNTS_KEPT:
                self._queued.clear()
        if count >= self._most_queued:
            raise TooMany(
                f"{count} of your requests wait for a worker; the limit is {self._most_queued}."
                " Wait for some to end.",
                code="too_many_queued_requests",
                retry_after_s=_RETRY_AFTER_S,
            )
        self._queued[owner] = (since, count + 1)


class Hold:
    """What one call holds, given back in one piece."""

    __slots__ = ("_holdings", "_owner", "_taken")

    def __init__(self, holdings: Holdings, owner: UUID) -> None:
        self._holdings = holdings
        self._owner = owner.int
        self._taken: list[tuple[Count, int]] = []

    def check(self, kind: Kind, amount: int) -> None:
        """Whether that much more could be held now. Raises what `take` raises."""
        self._holdings.counts[kind].check(self._owner, amount)

    def take(self, kind: Kind, amount: int = 1) -> None:
        """Hold that much more. Raises TooMany (429) or Full (503)."""
        count = self._holdings.counts[kind]
        count.take(self._owner, amount)
        if self._taken and self._taken[-1][0] is count:
            amount += self._taken.pop()[1]
        self._taken.append((count, amount))

    def release(self) -> None:
        """Give all of it back; a second time does nothing."""
        taken, self._taken = self._taken, []
        for count, amount in taken:
            count.give_back(self._owner, amount)
