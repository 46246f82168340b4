"""An account's statement: its entries newest first, on request with the usage of a batch folded into one entry, and the running balance."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

from sqlalchemy import (
    CTE,
    ColumnElement,
    FromClause,
    Select,
    Subquery,
    Text,
    and_,
    case,
    cast,
    func,
    literal,
    null,
    or_,
    select,
    true,
    union_all,
)
from sqlalchemy.orm import Session
from sqlalchemy.types import BigInteger, Uuid

from dwctl import sql
from dwctl.billing.ledger import CREDITING
from dwctl.billing.tables import Balance, Transaction
from dwctl.queue.tables import Batch, File

_QUERIES = sql.load("dwctl.billing")
_COLUMNS = (
    "id",
    "user_id",
    "transaction_type",
    "batch_id",
    "amount",
    "source_id",
    "description",
    "created_at",
    "calls",
)
# A call may last, and its request id was minted when it began.
_LONGEST_CALL = timedelta(days=2)


@dataclass(frozen=True, slots=True)
class Filters:
    """Which entries. `user_id` None: everybody's. `search` is a LIKE pattern. `types` None: all of them. Times are inclusive."""

    user_id: UUID | None
    search: str | None = None
    types: frozenset[str] | None = None
    start: datetime | None = None
    end: datetime | None = None
    fold_batches: bool = False


@dataclass(frozen=True, slots=True)
class Place:
    """Where a page ends. newest: what came into the ledger later is left out of the pages behind it, so that a batch that goes on stays where it
    was; last: the entry that was shown last. Both are numbers of entries (`seq`).
    """

    newest: int
    last: int


@dataclass(frozen=True, slots=True)
class Entry:
    """A ledger entry, or all usage of one batch (`batch_id` is set, `calls` counts it)."""

    id: UUID
    user_id: UUID
    transaction_type: str
    batch_id: UUID | None
    amount: Decimal
    source_id: str
    description: str | None
    created_at: datetime
    calls: int | None = None
    request_origin: str | None = None
    batch_sla: str | None = None
    input_file_name: str | None = None

    @property
    def batch_request_count(self) -> int | None:
        """How many calls were folded, where there was more than one."""
        return self.calls if self.calls and self.calls > 1 else None


@dataclass(frozen=True, slots=True)
class Statement:
    """One page. `start_balance` is the account's balance right after the page's newest entry; 0 for everybody's. `next` is None on the last page."""

    entries: tuple[Entry, ...]
    total: int
    start_balance: Decimal
    next: Place | None = None


def read(
    session: Session, filters: Filters, *, skip: int, limit: int, after: Place | None = None
) -> Statement:
    """A page, its total and its balance, as of one moment (one statement). With `after`, `skip` counts from that place.

    The balance follows time only: search and types do not change it. A batch is folded from its entries within the dates.
    """
    dated = _dated(filters, after.newest if after else None)
    entries: FromClause = _folded(dated) if filters.fold_batches else dated
    matching = select(entries).where(*_matching(entries, filters)).subquery()
    later = matching.c.seq < after.last if after else true()
    ordered = select(matching).where(later).order_by(matching.c.seq.desc())
    page = ordered.offset(skip).limit(limit + 1).subquery()
    newest = select(func.max(dated.c.seq)).scalar_subquery()
    totals = select(
        select(func.count()).select_from(matching).scalar_subquery().label("total"),
        (literal(after.newest, BigInteger()) if after else newest).label("newest"),
        _start_balance(entries, filters, skip, after).label("start_balance"),
    ).subquery()
    rows = session.execute(
        select(totals, page).select_from(totals.outerjoin(page, true())).order_by(page.c.seq.desc())
    ).all()
    found = tuple(_entry(row) for row in rows[:limit] if row.id is not None)
    if filters.fold_batches:
        found = tuple(_with_origins(session, found))
    next = Place(rows[0].newest, rows[limit - 1].seq) if len(rows) > limit else None
    return Statement(found, rows[0].total, rows[0].start_balance, next)


def _signed(amount: Any, kind: Any) -> ColumnElement[Decimal]:
    return case((kind.in_(CREDITING), amount), else_=-amount)


def _dated(filters: Filters, newest: int | None) -> Subquery:
    t = Transaction
    query = select(
        t.seq,
        t.id,
        t.user_id,
        t.transaction_type,
        cast(null(), Uuid()).label("batch_id"),
        t.amount,
        t.source_id,
        t.description,
        t.created_at,
        cast(null(), BigInteger()).label("calls"),
        t.fusillade_batch_id,
    )
    if filters.user_id is not None:
        query = query.where(t.user_id == filters.user_id)
    if filters.start is not None:
        query = query.where(t.created_at >= filters.start)
    if filters.end is not None:
        query = query.where(t.created_at <= filters.end)
    if newest is not None:
        query = query.where(t.seq <= newest)
    return query.subquery("entries")


def _folded(dated: Subquery) -> CTE:
    e = dated.c
    in_batch = and_(e.transaction_type == "usage", e.fusillade_batch_id.is_not(None))
    single = select(dated).where(or_(e.transaction_type != "usage", e.fusillade_batch_id.is_(None)))
    batches = (
        select(
            func.max(e.seq).label("seq"),
            e.fusillade_batch_id.label("id"),
            e.user_id,
            literal("usage", Text()).label("transaction_type"),
            e.fusillade_batch_id.label("batch_id"),
            func.sum(e.amount).label("amount"),
            cast(e.fusillade_batch_id, Text()).label("source_id"),
            literal("Batch", Text()).label("description"),
            func.min(e.created_at).label("created_at"),
            func.count().label("calls"),
            e.fusillade_batch_id,
        )
        .where(in_batch)
        # By account too: a stray entry of somebody else must not inflate this one's batch.
        .group_by(e.fusillade_batch_id, e.user_id)
    )
    # A common table: it is read for the page, the total and the balance, but folded once.
    return union_all(single, batches).cte("entries")


def _matching(entries: FromClause, filters: Filters) -> list[ColumnElement[bool]]:
    found: list[ColumnElement[bool]] = []
    if filters.search is not None:
        found.append(entries.c.description.ilike(filters.search, escape="\\"))
    if filters.types is not None:
        found.append(entries.c.transaction_type.in_(sorted(filters.types)))
    return found


def _start_balance(
    entries: FromClause, filters: Filters, skip: int, after: Place | None
) -> ColumnElement[Decimal]:
    if filters.user_id is None:
        return literal(Decimal(0))
    current = (
        select(func.coalesce(func.max(Balance.balance), 0))
        .where(Balance.user_id == filters.user_id)
        .scalar_subquery()
    )
    balance: ColumnElement[Decimal] = current - _later(filters)
    rest = select(_signed_amount(entries)).order_by(entries.c.seq.desc())
    if after:
        shown = select(_signed_amount(entries)).where(entries.c.seq >= after.last)
        balance = balance - _since(filters, after.newest) - _sum(shown)
        rest = rest.where(entries.c.seq < after.last)
    return balance - _sum(rest.limit(skip))


def _signed_amount(entries: FromClause) -> ColumnElement[Decimal]:
    return _signed(entries.c.amount, entries.c.transaction_type).label("signed")


def _sum(amounts: Select[Any]) -> ColumnElement[Decimal]:
    return select(func.coalesce(func.sum(amounts.subquery().c.signed), 0)).scalar_subquery()


def _later(filters: Filters) -> ColumnElement[Decimal]:
    """What the account's balance owes to the time after the dates."""
    if filters.end is None:
        return literal(Decimal(0))
    entries = Transaction.__table__
    own = select(_signed_amount(entries)).where(entries.c.user_id == filters.user_id)
    return _sum(own.where(entries.c.created_at > filters.end))


def _since(filters: Filters, newest: int) -> ColumnElement[Decimal]:
    """What it owes to entries within the dates that came after this one."""
    entries = Transaction.__table__
    own = select(_signed_amount(entries)).where(entries.c.user_id == filters.user_id)
    if filters.end is not None:
        own = own.where(entries.c.created_at <= filters.end)
    return _sum(own.where(entries.c.seq > newest))


def _entry(row: Any) -> Entry:
    return Entry(**{name: getattr(row, name) for name in _COLUMNS})


def _with_origins(session: Session, entries: Sequence[Entry]) -> list[Entry]:
    """Usage entries with where the calls came from and the window that they were promised."""
    batches = _batch_origins(session, [e.batch_id for e in entries if e.batch_id])
    calls = _call_origins(
        session, [e for e in entries if e.transaction_type == "usage" and e.batch_id is None]
    )
    filled = []
    for entry in entries:
        origin, window = calls.get(entry.id, (None, None))
        file = None
        if entry.batch_id is not None:
            origin, window, file = batches.get(entry.batch_id, ("fusillade", "", None))
        filled.append(replace(entry, request_origin=origin, batch_sla=window, input_file_name=file))
    return filled


def _batch_origins(
    session: Session, ids: Sequence[UUID]
) -> dict[UUID, tuple[str, str, str | None]]:
    if not ids:
        return {}
    rows = session.execute(
        select(
            Batch.id,
            Batch.completion_window,
            Batch.metadata_["request_source"].astext.label("by"),
            File.name,
        )
        .outerjoin(File, File.id == Batch.file_id)
        .where(Batch.id.in_(ids))
    )
    return {row.id: (row.by or "fusillade", row.completion_window or "", row.name) for row in rows}


def _call_origins(session: Session, usage: Sequence[Entry]) -> dict[UUID, tuple[str, str]]:
    if not usage:
        return {}
    times = [entry.created_at for entry in usage]
    parameters = {
        "ids": [entry.id for entry in usage],
        "since": min(times) - _LONGEST_CALL,
        "until": max(times) + timedelta(minutes=1),
    }
    rows = session.connection().exec_driver_sql(_QUERIES["call_origins"], parameters)
    return {row.request_id: (row.request_origin, row.batch_sla) for row in rows}
