"""Idempotency keys: whoever sends one may send the same call again, and it is run, and charged, once.

A key belongs to an account and a path, and stands for `idempotency.keep`. It is claimed in the statement that opens the call's tracking row,
so there is never the one without the other: what became of the call is read there, its answer is kept there and nowhere else, and where its
process dies the row ends "interrupted" as any other does. (docs/decisions/0023-idempotency-keys.md)
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, NamedTuple
from uuid import UUID

import msgspec
import orjson
import psycopg
from psycopg.rows import class_row

from dwctl import sql
from dwctl.ai.admission import Admitted
from dwctl.ai.calls import Incoming, Once, Request
from dwctl.ai.in_progress import Flight
from dwctl.analytics.recorder import InDoubt
from dwctl.analytics.records import Opening, line
from dwctl.db import DatabaseAway
from dwctl.errors import DwctlError, Invalid
from dwctl.protocols.failures import FailureKind
from dwctl.protocols.modes import unsupported
from dwctl.queue.tables import State

if TYPE_CHECKING:
    from dwctl.ai.gateway import Gateway

log = logging.getLogger(__name__)

HEADER = "idempotency-key"
NEVER_AGAIN = ("x-should-retry", "false")
"""Tells the SDKs of OpenAI that the next answer would be the same: they send a 409 and a 5xx again by themselves."""

_QUERIES = sql.load("dwctl.ai")
_LONGEST = 255
_UNANSWERED = frozenset(
    [FailureKind.CLIENT_DISCONNECTED, FailureKind.TASK_TERMINATED, FailureKind.INTERRUPTED]
)
"""How a call ends whose caller was told nothing, or only that its process goes."""


class KeyReused(DwctlError):
    """This Idempotency-Key was used for another request on this path. Use a new key for each request, and the same only to repeat it."""

    code = "idempotency_key_reused"
    status = 409
    headers = (NEVER_AGAIN,)


class Taken(Exception):
    """Somebody else has claimed the key meanwhile. Nothing of this call was written."""


class Earlier(NamedTuple):
    """The request that a key stands for, as it is now. `asked_at` and `state` are None where its row is gone."""

    request_id: UUID
    fingerprint: bytes
    is_old: bool
    asked_at: datetime | None
    state: str | None
    response_status: int | None
    error: str | None
    was_withdrawn: bool
    is_charged: bool
    in_doubt: bool

    @property
    def is_over(self) -> bool:
        """Whether the request has come to its end."""
        return self.state in (State.COMPLETED, State.FAILED, State.CANCELED)

    @property
    def makes_way(self) -> bool:
        """Whether the key is free for another attempt: it has run out; or nothing was charged, and what came of the first is no judgement of
        the request itself, so that another may come out better.
        """
        if self.is_old:
            return True
        if self.is_charged or self.in_doubt:
            return False
        return self.state == State.CANCELED or (self.state == State.FAILED and not self._is_judged)

    @property
    def was_unanswered(self) -> bool:
        """Whether it makes way also for a call that waited for it: its own caller was never answered."""
        return self.makes_way and (
            self.was_withdrawn or (self.state == State.FAILED and self._kind in _UNANSWERED)
        )

    @property
    def _is_judged(self) -> bool:
        return self._kind == FailureKind.FINAL_STATUS and (self.response_status or 500) < 500

    @property
    def _kind(self) -> str | None:
        try:
            found = orjson.loads(self.error or "")
        except ValueError:
            return None
        kind = found.get("type") if isinstance(found, dict) else None
        return kind if isinstance(kind, str) else None


def asked_once(incoming: Incoming, request: Request, owner_id: UUID) -> Once | None:
    """The key of a call that has one. Raises Invalid for a key that is none, and for a call whose answer could not be given again."""
    if HEADER not in incoming.first:
        return None
    key = key_of([value for name, value in incoming.headers if name == HEADER])
    if key is None:
        return None
    if not request.tracked:
        raise Invalid(
            "The answer to this call is not kept here (its route is only handed on, or it is tracked elsewhere by its"
            " X-Fusillade-Request-Id), so it cannot be given again: leave out the Idempotency-Key.",
            code="idempotency_not_supported",
        )
    if not request.is_kept:
        raise unsupported(
            "store",
            "What is not stored (`store: false`, or by what is set for this account, key or gateway) cannot be given again:"
            " leave out the Idempotency-Key.",
        )
    return Once(owner_id, request.path, key, _fingerprint(request))


def key_of(given: Sequence[str]) -> str | None:
    """The key among a request's headers; None where there is none. Raises Invalid for one that is none."""
    if not given:
        return None
    if len(given) > 1 or not 0 < len(given[0]) <= _LONGEST or not given[0].isprintable():
        raise Invalid(
            f"An Idempotency-Key has 1 to {_LONGEST} printable characters, and there is one of them.",
            code="invalid_idempotency_key",
        )
    return given[0]


def find(gateway: Gateway, once: Once) -> Earlier | None:
    """What the key stands for. Raises DatabaseAway: without the database nobody knows."""
    if gateway.recorder.away_since is not None:
        raise DatabaseAway
    values = _scope(once) | {"keep_s": gateway.settings.idempotency.keep}
    with gateway.connections.transaction() as connection:
        cursor = connection.cursor(row_factory=class_row(Earlier))
        return cursor.execute(_QUERIES["find_key"], values).fetchone()


def open_row(gateway: Gateway, admitted: Admitted, flight: Flight, opening: Opening) -> None:
    """Commit the row of a call before it runs; with its key, where it has one.

    Raises DatabaseAway or Invalid (there is no row, or it is withdrawn), Taken (there is somebody else's).
    """
    once = admitted.request.once
    if once is None:
        _enqueue(gateway, opening, flight)
    else:
        _claim(gateway, once, opening, flight)
    flight.opened = flight.row_is_there = True


def _enqueue(gateway: Gateway, opening: Opening, flight: Flight) -> None:
    try:
        gateway.recorder.enqueue(opening)
    except InDoubt:
        # Where a worker has begun it, the record is the worker's to write: a refusal in the log under its id would stand in the way.
        flight.opened = True
        raise


def _claim(gateway: Gateway, once: Once, opening: Opening, flight: Flight) -> None:
    values = _scope(once) | {
        "fingerprint": once.fingerprint,
        "instead_of": once.instead_of,
        "seen": once.seen,
        "request_id": opening.id,
        "files": orjson.dumps([{"id": opening.file_id, "owner": opening.owner}]).decode(),
        "opening": f"[{line(opening).decode()}]",
    }
    try:
        with gateway.connections.transaction() as connection:
            claimed = connection.execute(_QUERIES["claim_key"], values).fetchone()
    except psycopg.DataError:
        raise Invalid("The request cannot be stored.", code="request_not_storable") from None
    except BaseException as error:
        # It may have been committed all the same; then it must neither run nor seem to. As to the log, see `_enqueue`.
        flight.opened = True
        _withdraw(gateway, values, now=isinstance(error, DatabaseAway))
        raise
    if claimed is None:
        raise Taken


def _withdraw(gateway: Gateway, values: dict[str, Any], *, now: bool) -> None:
    """At once where that can be, so that the next attempt does not meet it; else as soon as the database is there."""
    try:
        if now:
            with gateway.connections.transaction() as connection:
                connection.execute("SET LOCAL lock_timeout = '2s'")
                for statement in ("wait_for_claim", "withdraw", "give_back_key"):
                    connection.execute(_QUERIES[statement], values)
            return
    except (DatabaseAway, psycopg.Error):
        log.warning("claim in doubt", extra={"request_id": str(values["request_id"])})
    gateway.recorder.withdraw(values["request_id"])


def _scope(once: Once) -> dict[str, Any]:
    return {"owner_id": once.owner_id, "path": once.path, "key": once.key}


def _fingerprint(request: Request) -> bytes:
    """Of what was asked, not of its bytes: a client may write the same JSON with its members in another order."""
    asked = request.asked
    hashed = hashlib.sha256(msgspec.json.encode([asked.alias, asked.query]))
    hashed.update(orjson.dumps(asked.content, option=orjson.OPT_SORT_KEYS))
    return hashed.digest()
