"""The database: SQLAlchemy for the control plane, plain psycopg for paths that every call takes.

Two ways in, on one pool: `db.session` (ORM, inside a request) and `Connections` (named statements from a `queries.sql`).
Connections that belong to one purpose for the life of a process (recorder, LISTEN) are opened with `connect`.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from decimal import Decimal
from typing import Annotated, Any
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit
from uuid import UUID

import psycopg
from flask_sqlalchemy import SQLAlchemy
from psycopg import IsolationLevel
from sqlalchemy import (
    ARRAY,
    ColumnElement,
    DateTime,
    Engine,
    MetaData,
    Numeric,
    any_,
    literal,
    text,
)
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.orm import DeclarativeBase, mapped_column, registry
from sqlalchemy.pool import PoolProxiedConnection
from sqlalchemy.types import Uuid

from dwctl import waits
from dwctl.config import ConfigError, Settings
from dwctl.errors import Unavailable
from dwctl.pool import Pool

waits.install()

NAMING = {
    "ix": "%(table_name)s_%(column_0_N_name)s_idx",
    "uq": "%(table_name)s_%(column_0_N_name)s_unique",
    "ck": "%(table_name)s_%(constraint_name)s_check",
    "fk": "%(table_name)s_%(column_0_N_name)s_fkey",
    "pk": "%(table_name)s_pkey",
}


class Base(DeclarativeBase):
    """Every mapped class; times are aware, ids are UUIDs."""

    registry = registry(
        metadata=MetaData(naming_convention=NAMING),
        type_annotation_map={
            datetime: DateTime(timezone=True),
            UUID: Uuid(),
            Decimal: Numeric(24, 15),
        },
    )


db = SQLAlchemy(model_class=Base)

Id = Annotated[UUID, mapped_column(primary_key=True, server_default=text("gen_random_uuid()"))]
Sum = Annotated[Decimal, mapped_column(Numeric(30, 15))]
"""Of amounts, each of which has 9 digits before the point: a million of the largest fit."""
CreatedAt = Annotated[datetime, mapped_column(server_default=text("now()"))]


class DatabaseAway(Unavailable):
    """The database cannot be reached right now. Try again shortly."""

    code = "database_unavailable"


class PoolExhausted(DatabaseAway):
    """Every connection to the database is in use. Try again shortly."""

    code = "pool_exhausted"

    def __init__(self) -> None:
        super().__init__(retry_after_s=30)


# SQLAlchemy names a pool's log after its class, and ours would tell of every connection.
logging.getLogger(f"{Pool.__module__}.{Pool.__name__}").setLevel(logging.WARNING)


def psycopg_url(url: str) -> str:
    """The URL as psycopg wants it (`postgres://` and SQLAlchemy's driver suffix are rewritten)."""
    scheme, _, rest = url.partition("://")
    if scheme.split("+")[0] not in ("postgres", "postgresql"):
        raise ConfigError("DATABASE_URL must begin with postgresql://")
    return f"postgresql://{rest}"


def sqlalchemy_url(url: str) -> str:
    """The URL as SQLAlchemy wants it, with psycopg 3 as its driver."""
    return "postgresql+psycopg://" + psycopg_url(url).partition("://")[2]


def engine_options(settings: Settings) -> dict[str, Any]:
    """What Flask-SQLAlchemy passes to create_engine."""
    database = settings.database
    return {
        "poolclass": Pool,
        "pool_size": database.pool_size,
        "max_overflow": database.pool_overflow,
        "pool_timeout": database.pool_timeout,
        "pool_use_lifo": True,
        "pool_recycle": 1800,
        # What is bound to a statement is people's names, keys and mail addresses: no error may quote it.
        "hide_parameters": True,
        "connect_args": _connect_arguments(settings),
    }


def among(column: Any, values: Collection[Any]) -> ColumnElement[bool]:
    """`column = ANY (array)`: unlike IN, one text and one plan whatever the number of values, and one parameter to bind."""
    kind = ARRAY(column.type)
    found: ColumnElement[bool] = column == any_(literal(list(values), kind))
    return found


def connect(
    settings: Settings,
    *,
    direct: bool = False,
    options: Mapping[str, str] = {},
    is_timed: bool = False,
) -> psycopg.Connection[Any]:
    """A connection of its own in autocommit mode; `direct` prefers database.direct_url (LISTEN cannot pass a transaction pooler).

    `options` are server settings of the session, such as plan_cache_mode. `is_timed`: a `Patience` bounds it, which does not count stalls
    of this process, as psycopg's own time-out does. Raises psycopg.OperationalError.
    """
    database = settings.database
    url = (database.direct_url if direct else None) or database.url
    if not url:
        raise ConfigError("DATABASE_URL is not set")
    arguments = _connect_arguments(settings)
    if is_timed:
        arguments["connect_timeout"] = 0
    if database.prepared_statements:
        arguments["options"] += "".join(f" -c {name}={value}" for name, value in options.items())
    return psycopg.connect(psycopg_url(url), autocommit=True, **arguments)


def _connect_arguments(settings: Settings) -> dict[str, Any]:
    database = settings.database
    arguments: dict[str, Any] = {
        "connect_timeout": max(1, round(database.connect_timeout)),
        "application_name": "dwctl",
        "prepare_threshold": 5 if database.prepared_statements else None,
        "keepalives_idle": 30,
        "keepalives_interval": 10,
        "keepalives_count": 3,
        "tcp_user_timeout": 30_000,
        "options": "",
    }
    if database.prepared_statements:
        # A transaction pooler refuses options at the start. Behind one, which prepared_statements: false says, the server's own
        # settings hold, and the triggers for rows written by hand run for our rows too, which changes nothing.
        arguments["options"] = (
            f"-c statement_timeout={round(database.statement_timeout * 1000)}"
            " -c idle_in_transaction_session_timeout=60000 -c timezone=UTC -c jit=off"
            # Our own changes of queue rows bring their entries in ready and inflight with them (migration 0002).
            " -c dwctl.queue=own"
        )
    return arguments


class Connections:
    """Borrowed psycopg connections from the engine's pool."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    @contextmanager
    def transaction(self) -> Iterator[psycopg.Connection[Any]]:
        """One transaction: committed at the end, rolled back on an error. Raises DatabaseAway when there is no connection to be had."""
        with self._borrowed() as connection:
            yield connection
            connection.commit()

    @contextmanager
    def moment(self) -> Iterator[psycopg.Connection[Any]]:
        """A transaction that only reads, in which every statement sees the same moment. Raises DatabaseAway."""
        with self._borrowed() as connection:
            # Its BEGIN says so: no statement of its own.
            connection.isolation_level, connection.read_only = IsolationLevel.REPEATABLE_READ, True
            yield connection
            connection.commit()

    @contextmanager
    def _borrowed(self) -> Iterator[psycopg.Connection[Any]]:
        handled = sys.exception()
        try:
            borrowed = self._engine.raw_connection()
        except PoolTimeout as error:
            _raise_kill(error, handled)
            raise PoolExhausted from error
        except Exception as error:
            _raise_kill(error, handled)
            raise DatabaseAway from error
        connection = borrowed.driver_connection
        assert isinstance(connection, psycopg.Connection)
        try:
            yield connection
        except (psycopg.OperationalError, psycopg.errors.ReadOnlySqlTransaction) as error:
            # Read-only is the server that a fail-over leaves behind: the next connection may find the one that is not.
            borrowed.invalidate()
            _raise_kill(error, handled)
            raise DatabaseAway from error
        except Exception:
            _roll_back(borrowed, connection)
            raise
        except BaseException:
            # Killed: a rollback would wait for the server once more.
            borrowed.invalidate()
            raise
        finally:
            _give_back(borrowed, connection)


def _roll_back(borrowed: PoolProxiedConnection, connection: psycopg.Connection[Any]) -> None:
    """Where even that fails the server has done it, or will: what matters is why it was to be done."""
    try:
        connection.rollback()
    except psycopg.Error:
        borrowed.invalidate()


def _give_back(borrowed: PoolProxiedConnection, connection: psycopg.Connection[Any]) -> None:
    if not connection.closed:
        if connection.isolation_level is not None:
            connection.isolation_level = connection.read_only = None
    elif borrowed.is_valid:
        # Killed in the rollback (`waits`).
        borrowed.invalidate()
    borrowed.close()


def _raise_kill(error: BaseException, before: BaseException | None) -> None:
    """Raise the kill or time-out of which `error` is only the consequence (the pool's cleaning up fails on a connection that was
    interrupted), if there is one. `before` was being handled already.
    """
    cause = error.__context__
    while cause is not None and cause is not before:
        if not isinstance(cause, Exception):
            raise cause
        cause = cause.__context__


def identity_of(url: str) -> str:
    """What tells two databases apart in a URL (host, port, name), without any secret."""
    parts = urlsplit(psycopg_url(url))
    query = urlencode(
        [(k, v) for k, v in parse_qsl(parts.query) if k in ("host", "port", "dbname")]
    )
    return urlunsplit(("", f"{parts.hostname or ''}:{parts.port or ''}", parts.path, query, ""))
