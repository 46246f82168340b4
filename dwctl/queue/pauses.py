"""Pauses: nothing of an account's queue, or of a model, is claimed for a while, by any worker.

Nothing fails because of a pause: what waits goes on when it ends, and ends at its deadline at the latest. The later end wins. A pause whose
reason is that its account has no credit also ends within seconds of a grant (`end_those_of_the_funded`, a duty).
"""

from __future__ import annotations

from decimal import Decimal
from enum import StrEnum
from typing import Any

import psycopg

from dwctl import sql

_QUERIES = sql.load("dwctl.queue")


class PauseReason(StrEnum):
    """Why nothing is claimed."""

    NO_CREDIT = "no_credit"
    """The account cannot pay."""
    UPSTREAM_PRESSURE = "upstream_pressure"
    """Its upstream asked for a rest."""


def pause_for_credit(
    connection: psycopg.Connection[Any],
    model: str,
    owner: str,
    wait_s: float,
    needs: Decimal | None = None,
) -> None:
    """Let nobody claim what `owner` (as in `batches.created_by`) has waiting for a model: for so long, or until the account has `needs` USD that
    nothing else holds (None: until it has any).
    """
    values = {"model": model, "owner": owner, "wait_s": wait_s, "needs": needs}
    connection.execute(_QUERIES["pause_for_credit"], values)


def pause_model(
    connection: psycopg.Connection[Any], model: str, wait_s: float, reason: str
) -> None:
    """Let nobody claim anything of a model, for so long. `reason` is a `PauseReason`."""
    values = {"model": model, "wait_s": wait_s, "reason": PauseReason(reason)}
    connection.execute(_QUERIES["pause_model"], values)


def end_those_of_the_funded(connection: psycopg.Connection[Any]) -> int:
    """End the pauses for want of credit of accounts that have some now, whatever way it came; gives how many."""
    row = connection.execute(_QUERIES["end_pauses_of_the_funded"]).fetchone()
    return row[0] if row else 0


def next_end_s(connection: psycopg.Connection[Any]) -> float | None:
    """In how many seconds the next pause ends; None where none does within the hour."""
    row = connection.execute(_QUERIES["next_pause_end"]).fetchone()
    return None if row is None or row[0] is None else max(0.0, float(row[0]))
