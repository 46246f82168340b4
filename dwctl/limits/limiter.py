"""Takes and gives back for all calls of a process, in groups on one connection of its own.

Whoever wants something waits for the group that holds it: what arrives while one is on its way forms the next, gives before takes, so that
a hundred calls of one key cost one locked row and not a hundred. Each exchange is one statement; the database counts (`functions.sql`).

While the database is away who needs it to be right is refused at once (DatabaseAway); what is to be given back is kept, and offered again
until it is taken. An exchange of which it is not known whether it was committed is answered as one that was not, and what it may have taken
is given back: a place is never lost, a call of a rate may be.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from itertools import count, islice
from typing import Any, NamedTuple
from uuid import UUID

import gevent
import orjson
import psycopg
from gevent.event import AsyncResult, Event

from dwctl import sql
from dwctl.analytics.faults import Fault, judge
from dwctl.config import Settings
from dwctl.db import DatabaseAway, connect
from dwctl.limits.demands import Demand
from dwctl.limits.standing import Headers, Kind, LimitReached, headers_of
from dwctl.patience import Patience

log = logging.getLogger(__name__)

_QUERIES = sql.load("dwctl.limits")
_MOST_AT_ONCE = 256
_AGAIN_S = 0.5
_STATES_KNOWN = 100_000
_MOST_TOKENS = 2**31 - 1


class _Wanted:
    """What a call waits for at `done`; abandoned: it does not wait any more."""

    __slots__ = ("abandoned", "demands", "done", "number", "tokens")

    def __init__(self, number: int, demands: Sequence[Demand], tokens: int) -> None:
        self.number = number
        self.demands = demands
        self.tokens = tokens
        self.done = AsyncResult()
        self.abandoned = False


class _Given(NamedTuple):
    number: int
    demand: Demand
    used: int
    told: Event


class Permit:
    """What one call has been allowed, and holds until it ends."""

    __slots__ = ("_demands", "_limiter", "_number", "given_back", "headers")

    def __init__(
        self, limiter: Limiter, number: int, demands: Sequence[Demand], headers: Headers
    ) -> None:
        self._limiter = limiter
        self._number = number
        self._demands = demands
        self.headers = headers
        """What its caller is told of its limits."""
        self.given_back: Event | None = None
        """Made by `give_back` where there was something to give; set when that is in the database, or waits for it to come back."""

    def give_back(self, used: int = 0) -> None:
        """The call is over, and has used that many LLM tokens. Never waits; a second time does nothing."""
        number, self._number = self._number, 0
        if number:
            self.given_back = self._limiter.give_back(number, self._demands, used)

    def wait_given_back(self, within_s: float) -> None:
        """Until what was given back is in the database: whoever has heard the answer may call again, at any process."""
        if self.given_back is not None:
            self.given_back.wait(within_s)


class Limiter:
    """The one of this process."""

    def __init__(
        self, settings: Settings, me: UUID, dead_after_s: Callable[[], float | None]
    ) -> None:
        """`me` is this process in `fusillade.daemons`. `dead_after_s`: how long others may not have beaten; None while that says nothing."""
        self._settings = settings
        self._patience_s = settings.recorder.database_wait
        self._me = me
        self._dead_after_s = dead_after_s
        self.refused: Counter[tuple[str, str]] = Counter()
        """How many, by whose limit it was and by the code."""
        self._numbers = count(1)
        self._wanted: list[_Wanted] = []
        self._given: dict[tuple[int, str], _Given] = {}
        self._arrived = Event()
        self._is_away = False
        self._known: set[str] = set()
        self._connection: psycopg.Connection[Any] | None = None
        self._greenlet: gevent.Greenlet | None = None

    # --- for calls

    def take(self, demands: Sequence[Demand], tokens: int = 0) -> Permit:
        """All that the call needs, or nothing. Raises LimitReached (429), DatabaseAway. `tokens` is an estimate of what it will use.

        Limits are named in the order of `demands`: first the rates of all, then places, then LLM tokens.
        """
        if self._is_away:
            raise DatabaseAway
        wanted = _Wanted(next(self._numbers), demands, min(tokens, _MOST_TOKENS))
        self._wanted.append(wanted)
        self._awake()
        try:
            permit: Permit = wanted.done.get()
        except LimitReached as refusal:
            self.refused[refusal.whose, refusal.code] += 1
            raise
        except DatabaseAway:
            raise
        except BaseException:
            # Killed while it waited: what it gets, or has got, goes back.
            if wanted.done.ready() and wanted.done.successful():
                wanted.done.get().give_back()
            wanted.abandoned = True
            raise
        return permit

    def give_back(self, number: int, demands: Sequence[Demand], used: int) -> Event | None:
        """See `Permit.give_back`."""
        held = [demand for demand in demands if demand.is_held]
        if not held:
            return None
        told = Event()
        for demand in held:
            self._given[number, demand.subject] = _Given(number, demand, used, told)
        if self._is_away:
            told.set()
        self._awake()
        return told

    # --- life cycle

    def stop(self, deadline: float) -> None:
        """Give back what is to be given back until `deadline` (monotonic). What is left then goes when this process is known to be dead."""
        while (self._given or self._wanted) and not self._is_away and time.monotonic() < deadline:
            gevent.sleep(0.01)
        if self._greenlet is not None:
            self._greenlet.kill()
        self._hang_up()
        if self._given:
            log.warning("limits not given back", extra={"holds": len(self._given)})

    # --- the one greenlet that exchanges

    def _awake(self) -> None:
        if self._greenlet is None:
            # Most processes never have a limited call.
            self._greenlet = gevent.spawn(self._run)
        self._arrived.set()

    def _run(self) -> None:
        while True:
            self._arrived.wait()
            self._arrived.clear()
            while self._wanted or self._given or self._is_away:
                self._once()
                if self._is_away:
                    gevent.sleep(_AGAIN_S)

    def _once(self) -> None:
        """Exchange a group. Never raises: the next group must have its turn."""
        wanted, self._wanted = self._wanted[:_MOST_AT_ONCE], self._wanted[_MOST_AT_ONCE:]
        was_connected = self._connection is not None
        try:
            try:
                self._exchange(wanted)
            except (psycopg.Error, OSError) as error:
                was_waited_for = isinstance(error.__cause__, Patience)
                if not was_connected or was_waited_for or self._judge(error) is not Fault.AWAY:
                    raise
                # The connection was lost while nobody used it: that says nothing about now.
                self._hang_up()
                self._doubt(wanted)
                self._exchange(wanted)
        except Exception as error:
            self._failed(error, wanted)
            return
        if self._is_away:
            log.warning("limits: database back")
            self._is_away = False

    def _exchange(self, wanted: Sequence[_Wanted]) -> None:
        given = list(islice(self._given.values(), _MOST_AT_ONCE))
        limits = {one.demand.subject: one.demand for one in given}
        limits |= {demand.subject: demand for one in wanted for demand in one.demands}
        names = sorted(limits)
        at = {name: place for place, name in enumerate(names, 1)}
        values = {
            "me": self._me,
            "subjects": _json(_limits_of(limits[name]) for name in names),
            "given": _json(
                {"number": one.number, "i": at[one.demand.subject], "used": one.used}
                for one in given
            ),
            "wanted": _json(
                {
                    "number": one.number,
                    "i": [at[d.subject] for d in one.demands],
                    "tokens": one.tokens,
                }
                for one in wanted
            ),
            "dead_after_s": self._dead_after_s(),
        }
        rows = self._rows(names, values)
        for one in given:
            del self._given[one.number, one.demand.subject]
            one.told.set()
        for asked, row in zip(wanted, rows, strict=True):
            self._tell(asked, row)

    def _rows(self, names: list[str], values: dict[str, Any]) -> list[Any]:
        """What the exchange says of each wanted call; with states made first where there are none."""
        patience = Patience(self._patience_s)
        try:
            with patience:
                if not names:
                    self._execute("probe", {})
                    return []
                if not self._known.issuperset(names):
                    self._ensure(names)
                while True:
                    if rows := self._execute("exchange", values).fetchall():
                        return rows[1:]
                    # They have been purged meanwhile, or the database has forgotten them in a crash.
                    self._ensure(names)
        except gevent.Timeout as error:
            self._hang_up()
            if error is not patience:
                raise
            raise psycopg.OperationalError("the database did not answer in time") from error

    def _ensure(self, names: list[str]) -> None:
        self._execute("ensure_states", {"subjects": names})
        if len(self._known) > _STATES_KNOWN:
            self._known.clear()
        self._known.update(names)

    def _tell(self, asked: _Wanted, row: tuple[Any, ...]) -> None:
        """Release whoever waits, with a permit or a refusal."""
        _number, refused_by, wait_s, calls_left, tokens_left = row
        headers = headers_of(asked.demands, calls_left, tokens_left)
        if refused_by:
            place, kind = divmod(refused_by, 10)
            by = asked.demands[place - 1]
            asked.done.set_exception(LimitReached(by, Kind(kind), wait_s, headers))
            return
        permit = Permit(self, asked.number, asked.demands, headers)
        if asked.abandoned:
            permit.give_back()
        asked.done.set(permit)

    # --- the database goes and comes back

    def _failed(self, error: Exception, wanted: Sequence[_Wanted]) -> None:
        fault = self._judge(error)
        if not self._is_away:
            # A statement that the database refuses is an installation that is not whole (a migration is missing): it may be mended.
            level = logging.ERROR if fault is Fault.RECORDS else logging.WARNING
            log.log(level, "limits not exchanged", extra={"reason": type(error).__name__})
        self._is_away = self._is_away or fault is not Fault.BUSY
        self._hang_up()
        self._doubt(wanted)
        for asked in wanted:
            asked.done.set_exception(DatabaseAway())
        for given in self._given.values():
            given.told.set()

    def _doubt(self, wanted: Sequence[_Wanted]) -> None:
        """What they wanted may have been taken: it goes back, and if they want it once more it is under another number."""
        for asked in wanted:
            self.give_back(asked.number, asked.demands, 0)
            asked.number = next(self._numbers)

    def _judge(self, error: Exception) -> Fault:
        connected = self._connection is not None and not self._connection.closed
        if not isinstance(error, psycopg.Error | OSError):
            return Fault.RECORDS
        return judge(getattr(error, "sqlstate", None), connected=connected)

    def _execute(self, name: str, values: dict[str, Any]) -> psycopg.Cursor[Any]:
        if self._connection is None:
            options = {
                "plan_cache_mode": "force_generic_plan",
                "lock_timeout": f"{max(1, round(self._patience_s * 400))}ms",
            }
            self._connection = connect(self._settings, options=options, is_timed=True)
        return self._connection.execute(_QUERIES[name], values, prepare=True)

    def _hang_up(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def _limits_of(demand: Demand) -> dict[str, Any]:
    return {
        "name": demand.subject,
        "rate": demand.rate,
        "burst": demand.burst,
        "capacity": demand.capacity,
        "per_minute": demand.per_minute,
    }


def _json(rows: Iterable[dict[str, Any]]) -> str | None:
    found = list(rows)
    return orjson.dumps(found).decode() if found else None
