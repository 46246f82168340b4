"""What is sealed in the database, and sealing it anew under the newest secret.

Sealed is every mapped column whose name ends in `_sealed`. It is read and written in slices, each a transaction of its own; a row that somebody
changed meanwhile is left as it is, sealed by the newest anyway. So it can be interrupted, and run again, beside a deployment that serves.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Column, Table, bindparam, func, select, text, tuple_, update
from sqlalchemy.orm import Session

from dwctl.config import Settings
from dwctl.db import Base
from dwctl.encryption import Sealer, Undecryptable
from dwctl.sources import sealing

_SUFFIX = "_sealed"
_SAY_WHY = text("SELECT set_config('dwctl.resealing', 'on', true)")
"""To the audit log, for which another sealed text is another credential otherwise."""
_SLICE = 500
_MOST_NAMED = 20


@dataclass(frozen=True, slots=True)
class Place:
    """A column of sealed texts, and what seals them."""

    table: Table
    column: Column[Any]
    sealer: Sealer

    @property
    def name(self) -> str:
        """As it is shown: `inference_endpoints.api_key_sealed`."""
        return f"{self.table.fullname}.{self.column.name}"


@dataclass(frozen=True, slots=True)
class Share:
    """How many texts of a place one key has sealed, and whether that key is at hand."""

    place: str
    key_id: str
    rows: int
    state: str


@dataclass(slots=True)
class Resealed:
    """What became of one place. `unreadable` names the first rows that cannot be opened."""

    place: str
    resealed: int = 0
    failed: int = 0
    unreadable: list[str] = field(default_factory=list)


def places(settings: Settings, sealer: Sealer) -> list[Place]:
    """Every column that is sealed. Credentials of connections may have keys of their own."""
    of_connections = sealing.sealer(settings)
    found = [
        Place(table, column, of_connections if table.name == "connections" else sealer)
        for table in Base.metadata.sorted_tables
        for column in table.columns
        if column.name.endswith(_SUFFIX)
    ]
    return sorted(found, key=lambda place: place.name)


def shares(session: Session, place: Place) -> list[Share]:
    """How many texts of a place each key has sealed."""
    key_id = func.split_part(place.column, ":", 2)
    counted = (
        select(key_id, func.count())
        .where(place.column.is_not(None))
        .group_by(key_id)
        .order_by(key_id)
    )
    rows = session.execute(counted).all()
    session.rollback()
    return [Share(place.name, key, count, _state(place.sealer, key)) for key, count in rows]


def reseal(session: Session, place: Place, *, dry_run: bool) -> Resealed:
    """Seal all of a place under its newest key, committing slice by slice; `dry_run` opens everything and changes nothing."""
    done = Resealed(place.name)
    for rows in _slices(session, place):
        changes = []
        for *key, sealed in rows:
            try:
                text = place.sealer.open(sealed)
            except Undecryptable:
                done.failed += 1
                if len(done.unreadable) < _MOST_NAMED:
                    done.unreadable.append(",".join(map(str, key)))
                continue
            changes.append({"was": sealed, "now": place.sealer.seal(text), **_named(key)})
        done.resealed += len(changes) if dry_run else _write(session, place, changes)
        session.commit()
    return done


def _slices(session: Session, place: Place) -> Iterator[Sequence[Any]]:
    """Rows that are not sealed by the newest key, in the order of their primary key."""
    keys = list(place.table.primary_key.columns)
    old = select(*keys, place.column).where(
        place.column.is_not(None), func.split_part(place.column, ":", 2) != place.sealer.newest
    )
    after: Sequence[Any] | None = None
    while True:
        wanted = old if after is None else old.where(tuple_(*keys) > tuple_(*after))
        rows = session.execute(wanted.order_by(*keys).limit(_SLICE)).all()
        if not rows:
            session.rollback()
            return
        after = rows[-1][:-1]
        yield rows


def _write(session: Session, place: Place, changes: list[dict[str, Any]]) -> int:
    if not changes:
        return 0
    session.execute(_SAY_WHY)
    keys = place.table.primary_key.columns
    same = [key == bindparam(f"key_{n}") for n, key in enumerate(keys)]
    statement = update(place.table).where(*same, place.column == bindparam("was"))
    written = statement.values({place.column: bindparam("now")})
    return sum(session.connection().execute(written, change).rowcount for change in changes)


def _named(key: Sequence[Any]) -> dict[str, Any]:
    return {f"key_{n}": value for n, value in enumerate(key)}


def _state(sealer: Sealer, key_id: str) -> str:
    if key_id == sealer.newest:
        return "newest"
    return "previous" if sealer.has(key_id) else "not configured"
