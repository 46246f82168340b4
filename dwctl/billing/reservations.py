"""Holds part of a balance, or of a key's cap, for calls that are about to run; in groups, on one connection of the process's own.

    hold (before the call) -> the statement that writes the call down settles, and lets go of the rest
                           -> let_go, where nothing is written down: refused after all, put back to its queue

Who calls waits for the group that holds it: what arrives while one is on its way forms the next, so that a hundred calls of one account lock
its balance once. Only accounts with little money and keys with a cap come here (`ai.funds`), and most processes never connect. While the
database is away these are refused (DatabaseAway): nobody else knows what is left. So are those of an account that somebody else has locked for long.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any, NamedTuple
from uuid import UUID

import gevent
import orjson
import psycopg
from gevent.event import AsyncResult, Event
from psycopg.rows import namedtuple_row

from dwctl import clock, sql
from dwctl.billing import caps
from dwctl.billing.money import short_text
from dwctl.config import Settings
from dwctl.db import DatabaseAway, connect
from dwctl.errors import DwctlError
from dwctl.patience import Patience
from dwctl.web.schemas import rfc3339

log = logging.getLogger(__name__)

_QUERIES = sql.load("dwctl.billing")
_MOST_AT_ONCE = 256
_ASK_AGAIN_S = 0.05
_AWAY_S = 0.5
_SOON_S = 1

NO_CREDIT = "insufficient_credits"
TOO_LOW = "Account balance too low. Please add credits to continue."


class NoCredit(DwctlError):
    """The account cannot pay what the call may cost. `needs`: how much that is, in USD; None where nobody knows, and any would do."""

    code = NO_CREDIT
    status = 402

    def __init__(self, wanted: Wanted, balance: Decimal, reserved: Decimal) -> None:
        self.needs = wanted.amount if wanted.is_bounded else None
        self.others_are_in_the_way = balance >= wanted.amount or (
            self.needs is None and balance > 0
        )
        text = f"{TOO_LOW} {_costs(wanted)}; the balance is {short_text(balance)} USD"
        members = {"balance": short_text(balance), **_members(wanted, reserved)}
        if reserved:
            text += f", of which {short_text(reserved)} USD are reserved for calls that run"
        super().__init__(f"{text}.", members=members, retry_after_s=_retry_after_s(self))


class CapReached(DwctlError):
    """The API key may not spend more until its cap begins anew."""

    code = "spend_cap_exceeded"
    status = 402

    def __init__(
        self,
        wanted: Wanted,
        *,
        limit: Decimal,
        spent: Decimal,
        reserved: Decimal,
        resets_at: datetime | None,
    ) -> None:
        least = wanted.amount if wanted.is_bounded else Decimal(0)
        self.others_are_in_the_way = spent < limit and spent + least <= limit
        text = (
            f"The spending limit of this API key is reached: {short_text(spent)} of {short_text(limit)} USD are spent."
            f" {_costs(wanted)}."
        )
        members = {"spend_limit": short_text(limit), "spent": short_text(spent), **_members(wanted, reserved)}  # fmt: skip
        if resets_at is not None:
            members["resets_at"] = rfc3339(resets_at)
            text += f" The limit begins anew at {members['resets_at']}."
        super().__init__(text, members=members, retry_after_s=_retry_after_s(self))


def _costs(wanted: Wanted) -> str:
    return f"This call may cost up to {short_text(wanted.amount)} USD"


def _members(wanted: Wanted, reserved: Decimal) -> dict[str, str]:
    return {"needed": short_text(wanted.amount), "reserved": short_text(reserved)}


def _retry_after_s(refusal: NoCredit | CapReached) -> int | None:
    """Calls that run end soon; credit and the next window do not come by themselves."""
    return _SOON_S if refusal.others_are_in_the_way else None


class Wanted(NamedTuple):
    """What a call may cost, to be held of its account's balance, of what its capped key may spend, or of both.

    is_bounded: it cannot be more by its request. Otherwise the amount is a guess, and whatever is there will do.
    """

    id: UUID
    user_id: UUID
    amount: Decimal
    is_bounded: bool
    of_balance: bool
    api_key_id: UUID | None = None


class _Asked:
    """A call that waits for its reservation at `done`; abandoned: it does not wait any more."""

    __slots__ = ("abandoned", "done", "until", "wanted")

    def __init__(self, wanted: Wanted, until: float) -> None:
        self.wanted = wanted
        self.until = until
        self.done = AsyncResult()
        self.abandoned = False


class Reservations:
    """Those of this process."""

    def __init__(self, settings: Settings, me: UUID) -> None:
        """`me` is this process in `fusillade.daemons`."""
        self._settings = settings
        self._patience_s = settings.recorder.database_wait
        self._me = me
        self.held = self.refused = 0
        """How many calls were, since the process began."""
        self._asked: list[_Asked] = []
        self._waiting: list[_Asked] = []
        self._ask_again_at = 0.0
        self._let_go: set[UUID] = set()
        self._arrived = Event()
        self._away_until = 0.0
        self._locked_until: dict[UUID, float] = {}
        self._connection: psycopg.Connection[Any] | None = None
        self._greenlet: gevent.Greenlet | None = None

    # --- for calls

    def hold(self, wanted: Wanted, *, patience_s: float) -> None:
        """Hold it, all or nothing. Raises NoCredit, CapReached (402), DatabaseAway.

        patience_s: how long to wait where only what is held for other calls is in the way.
        """
        locked_until = self._locked_until.get(wanted.user_id, 0.0)
        if time.monotonic() < max(self._away_until, locked_until):
            raise DatabaseAway
        # It replaces whatever is held for the same request.
        self._let_go.discard(wanted.id)
        asked = _Asked(wanted, time.monotonic() + patience_s)
        self._asked.append(asked)
        self._awake()
        try:
            asked.done.get()
        except (NoCredit, CapReached):
            self.refused += 1
            raise
        except DatabaseAway:
            raise
        except BaseException:
            # Killed while it waited: what it gets, or has got, goes back.
            asked.abandoned = True
            self.let_go(wanted.id)
            raise
        self.held += 1

    def let_go(self, id: UUID) -> None:
        """The call ends without being written down. Never waits; does nothing where nothing is held by this process."""
        self._let_go.add(id)
        self._awake()

    # --- life cycle

    def stop(self, deadline: float) -> None:
        """Let go of what is to be let go until `deadline` (monotonic). What is left then goes when this process is known to be dead."""
        while self._let_go and self._away_until <= time.monotonic() < deadline:
            gevent.sleep(0.01)
        if self._greenlet is not None:
            self._greenlet.kill()
        self._hang_up()

    # --- the one greenlet that asks

    def _awake(self) -> None:
        if self._greenlet is None:
            # Most processes never have such a call.
            self._greenlet = gevent.spawn(self._run)
        self._arrived.set()

    def _run(self) -> None:
        while True:
            self._arrived.wait(_ASK_AGAIN_S if self._waiting else None)
            self._arrived.clear()
            self._ask_again()
            while self._asked or self._let_go:
                self._once()
                self._ask_again()

    def _ask_again(self) -> None:
        """Those that wait for others' calls: these end by themselves, and nobody says so. However many come meanwhile, their turn comes."""
        if self._waiting and time.monotonic() >= self._ask_again_at:
            self._asked, self._waiting = self._waiting + self._asked, []

    def _once(self) -> None:
        """One group. Never raises: the next must have its turn."""
        # Who was killed wants nothing any more, and may be back already under the same id.
        waiting = [one for one in self._asked if not one.abandoned]
        group, self._asked = waiting[:_MOST_AT_ONCE], waiting[_MOST_AT_ONCE:]
        let_go = list(self._let_go)[:_MOST_AT_ONCE]
        try:
            try:
                self._answer(group, let_go)
            except psycopg.errors.LockNotAvailable:
                # Somebody else has one of their accounts for long. The others need not wait for that.
                for account_id, calls in _by_account(group).items():
                    self._answer_for(account_id, calls)
                gevent.sleep(_ASK_AGAIN_S)
        except Exception as error:
            self._failed(error, [one for one in group if not (one.done.ready() or one in self._waiting)])  # fmt: skip
            gevent.sleep(_AWAY_S)

    def _answer(self, group: Sequence[_Asked], let_go: Sequence[UUID]) -> None:
        rows = self._exchange([one.wanted for one in group], let_go)
        self._let_go.difference_update(let_go)
        for asked, row in zip(group, rows, strict=True):
            if not self._told(asked, row):
                if not self._waiting:
                    self._ask_again_at = time.monotonic() + _ASK_AGAIN_S
                self._waiting.append(asked)

    def _answer_for(self, account_id: UUID, calls: Sequence[_Asked]) -> None:
        """The same for calls of one account. Where that is locked they are refused, and more of them for a moment."""
        try:
            self._answer(calls, ())
        except psycopg.errors.LockNotAvailable:
            log.warning("credit not reserved", extra={"reason": "LockNotAvailable", "calls": len(calls)})  # fmt: skip
            now = time.monotonic()
            self._locked_until = {id: until for id, until in self._locked_until.items() if until > now}  # fmt: skip
            self._locked_until[account_id] = now + _AWAY_S
            for asked in calls:
                asked.done.set_exception(DatabaseAway())

    def _exchange(self, wanted: Sequence[Wanted], let_go: Sequence[UUID]) -> list[Any]:
        values = {
            "me": self._me,
            "let_go": list(let_go),
            "wanted": orjson.dumps([_json(one) for one in wanted]).decode(),
            "lasts_s": self._settings.credits.reservation_timeout,
        }
        patience = Patience(self._patience_s)
        was_connected = self._connection is not None
        try:
            with patience:
                try:
                    return self._execute(values)
                except psycopg.OperationalError as error:
                    if not was_connected or isinstance(error, psycopg.errors.LockNotAvailable):
                        raise
                    # Lost while nobody used it: that says nothing about now. What was taken all the same is taken again, not twice.
                    self._hang_up()
                    return self._execute(values)
        except gevent.Timeout as error:
            if error is not patience:
                raise
            raise DatabaseAway from error

    def _execute(self, values: dict[str, Any]) -> list[Any]:
        if self._connection is None:
            options = {
                "plan_cache_mode": "force_generic_plan",
                "lock_timeout": f"{max(1, round(self._patience_s * 400))}ms",
            }
            self._connection = connect(self._settings, options=options, is_timed=True)
        cursor = self._connection.cursor(row_factory=namedtuple_row)
        return cursor.execute(_QUERIES["hold_credit"], values, prepare=True).fetchall()

    def _told(self, asked: _Asked, row: Any) -> bool:
        """Release whoever waits; False where it is to be asked for again."""
        if asked.abandoned:
            return True
        refusal = _refusal(asked.wanted, row)
        if refusal is None:
            asked.done.set()
            return True
        if refusal.others_are_in_the_way and time.monotonic() < asked.until:
            return False
        asked.done.set_exception(refusal)
        return True

    def _failed(self, error: Exception, group: Sequence[_Asked]) -> None:
        log.warning("credit not reserved", extra={"reason": type(error).__name__, "calls": len(group)})  # fmt: skip
        if getattr(error, "sqlstate", None) is None:
            # Otherwise it has answered: a lock was not to be had in time.
            self._away_until = time.monotonic() + _AWAY_S
        self._hang_up()
        for asked in group:
            # It may have been committed.
            self._let_go.add(asked.wanted.id)
            asked.done.set_exception(DatabaseAway())

    def _hang_up(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def _by_account(group: Sequence[_Asked]) -> dict[UUID, list[_Asked]]:
    found: dict[UUID, list[_Asked]] = {}
    for asked in group:
        found.setdefault(asked.wanted.user_id, []).append(asked)
    return found


def _json(wanted: Wanted) -> dict[str, Any]:
    return {**wanted._asdict(), "amount": str(wanted.amount)}


def _refusal(wanted: Wanted, row: Any) -> NoCredit | CapReached | None:
    if row.refused_by is None:
        return None
    if row.refused_by == "credit":
        return NoCredit(wanted, row.balance, row.reserved)
    return CapReached(
        wanted,
        limit=row.spend_limit,
        spent=row.spent,
        reserved=row.spend_reserved,
        resets_at=caps.window_end(row.begins_anew, clock.now()),
    )
