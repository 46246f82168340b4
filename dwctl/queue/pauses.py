"""Pauses: for a time nothing of a queue (an account's line at a model), or of a model, is claimed by anybody."""

from __future__ import annotations

from typing import Any

import psycopg


def pause_queue(
    connection: psycopg.Connection[Any], model: str, owner: str, wait_s: float, reason: str
) -> None:
    """None of an account's requests of a model is claimed for so long, unless the reason passes before. The longer pause holds."""
    connection.execute(
        "UPDATE fusillade.queues SET paused_until = greatest(paused_until, now() + %s * interval '1 second'), pause_reason = %s "
        "WHERE model = %s AND created_by = %s",
        (wait_s, reason, model, owner),
    )


def pause_model(
    connection: psycopg.Connection[Any], model: str, wait_s: float, reason: str
) -> None:
    """None of a model is claimed for so long, by anybody. The longer pause holds."""
    connection.execute(
        "UPDATE fusillade.model_slots SET paused_until = greatest(paused_until, now() + %s * interval '1 second'), pause_reason = %s "
        "WHERE model = %s",
        (wait_s, reason, model),
    )
