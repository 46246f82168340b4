"""Entries of changes to what is no table of administration: what somebody does to a batch of somebody else, say."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import psycopg
from psycopg.types.json import Jsonb

from dwctl import sql
from dwctl.audit import actors

_QUERIES = sql.load("dwctl.audit")


def note(
    connection: psycopg.Connection[Any],
    resource: str,
    verb: str,
    id: str,
    *,
    related: str | None,
    after: Mapping[str, Any] | None = None,
) -> None:
    """Write down what was just done, in its own transaction. Nothing is written where nobody acts.

    related: the other side, an account's id where it is that account's.
    """
    actor = actors.current()
    if actor is not None:
        values = {"resource": resource, "verb": verb, "id": id, "related": related}
        shown = None if after is None else Jsonb(dict(after))
        connection.execute(_QUERIES["note"], {**values, "after": shown, "actor": actor.as_setting()})  # fmt: skip
