"""Deltas into sums, and sums that are past their time."""

from __future__ import annotations

from typing import Any

import psycopg

from dwctl.usage.reading import QUERIES


def fold(connection: psycopg.Connection[Any], most: int) -> int:
    """Add up to `most` deltas to the sums, in the caller's transaction; says how many.

    What others hold at the moment is left for the next time. One transaction at a time folds; a second waits.
    """
    connection.execute(QUERIES["lock_folding"])
    return _count(connection, "fold", most=most)


def adopt(connection: psycopg.Connection[Any], most: int) -> None:
    """Make deltas of up to `most` sums that processes of the release before have left."""
    connection.execute(QUERIES["adopt"], {"most": most})


def adopt_latencies(connection: psycopg.Connection[Any], most: int) -> int:
    """Carry up to `most` rows by slot that were kept before over to histograms, in the caller's transaction; says how many.

    Nobody folds meanwhile: both write to the same histograms, each in an order of its own.
    """
    connection.execute(QUERIES["lock_folding"])
    return _count(connection, "adopt_latencies", most=most)


def backlog(connection: psycopg.Connection[Any]) -> tuple[int, float]:
    """How many deltas wait to be folded, and for how many seconds the oldest has."""
    row = connection.execute(QUERIES["backlog"]).fetchone()
    assert row is not None
    return int(row[0]), max(0.0, float(row[1] or 0.0))


def purge(connection: psycopg.Connection[Any], grain: int, days: int, most: int) -> int:
    """Keep a grain for so many days from now on, and delete up to `most` older sums of each kind; says how many of one kind at most."""
    connection.execute(QUERIES["keep"], {"grain": grain, "days": days})
    return _count(connection, "purge", grain=grain, most=most)


def _count(connection: psycopg.Connection[Any], query: str, **values: int) -> int:
    row = connection.execute(QUERIES[query], values).fetchone()
    assert row is not None
    return int(row[0])
