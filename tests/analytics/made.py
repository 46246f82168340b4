"""Records as the gateway would have made them, and what the database has of them."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any
from uuid import UUID, uuid4

import psycopg

from dwctl.analytics.records import Opening, Record, file_of, text_of, timestamp
from dwctl.clock import uuid7

ALICE, BOB = UUID(int=1, version=4), UUID(int=2, version=4)
BODY = '{"model":"m"}'


@dataclass
class Made:
    """A call of which records are made."""

    daemon_id: UUID
    owner: UUID = ALICE
    price: Decimal = Decimal("0.001")
    created_at: float = field(default_factory=time.time)
    id: UUID = field(default_factory=uuid7)
    track: bool = True
    opened: bool = False
    queued: bool = False
    tier: str = "priority"
    model: str = "m"


def opening(call: Made, state: str = "processing", **more: Any) -> Opening:
    """The call's rows are to be made; from now on its record is of an opened call."""
    call.opened = True
    owner = str(call.owner)
    members = {
        "id": call.id,
        "at": timestamp(call.created_at),
        "file_id": file_of(owner, call.created_at),
        "owner": owner,
        "path": "/v1/chat/completions",
        "model": call.model,
        "request_body": BODY,
        "request_size": len(BODY),
        "tier": call.tier,
        "sla": "1h",
        "expires_at": timestamp(call.created_at + 3600),
        "state": state,
        "daemon_id": call.daemon_id,
    }
    return Opening(**{**members, **more})


def final(call: Made, body: bytes = b'{"answer":1}', tokens: int = 1, **more: Any) -> Record:
    """The call is over, with an answer of so many tokens."""
    owner = str(call.owner)
    members: dict[str, Any] = {
        "id": call.id,
        "at": timestamp(call.created_at),
        "ended_at": timestamp(call.created_at + 1),
        "track": call.track,
        "opened": call.opened,
        "queued": call.queued,
        "notify": call.queued,
        "method": "POST",
        "uri": "/chat/completions",
        "status_code": 200,
        "duration_ms": 1000,
        "prompt_tokens": tokens,
        "completion_tokens": 0,
        "reasoning_tokens": 0,
        "cached_tokens": 0,
        "total_tokens": tokens,
        "usage_source": "reported",
        "response_type": "chat_completion",
        "access_source": "api_key",
        "origin": "api",
        "sla": "1h",
        "user_id": call.owner,
        "model": call.model,
        "input_price": call.price,
        "output_price": Decimal(0),
        "cost": call.price * tokens,
    }
    if call.track:
        stored = text_of(body)
        members |= {
            "file_id": file_of(owner, call.created_at),
            "owner": owner,
            "path": "/v1/chat/completions",
            "request_body": BODY,
            "request_size": len(BODY),
            "tier": call.tier,
            "expires_at": timestamp(call.created_at + 3600),
            "daemon_id": call.daemon_id,
            "state": "completed",
            "response_status": 200,
            "response_body": stored,
            "response_size": len(stored),
            "routed_model": call.model,
        }
    return Record(**{**members, **more})


@dataclass
class Calls:
    """Makes calls, and reads what the database has of them."""

    sql: psycopg.Connection[Any]
    daemon: UUID = field(default_factory=uuid4)

    def make(
        self, owner: UUID = ALICE, *, price: str = "0.001", ago_s: float = 0.0, **more: Any
    ) -> Made:
        created_at = time.time() - ago_s
        return Made(self.daemon, owner, Decimal(price), created_at, **more)

    def state(self, call: Made) -> str | None:
        row = self.one("SELECT state FROM fusillade.requests WHERE id = %s", call.id)
        return None if row is None else str(row[0])

    def counts(self, call: Made) -> tuple[int, int]:
        """Log rows and charges."""
        row = self.one(
            "SELECT (SELECT count(*) FROM http_analytics WHERE request_id = %(id)s), "
            "(SELECT count(*) FROM credits_transactions WHERE source_id = %(id)s::text)",
            {"id": call.id},
        )
        assert row
        return row[0], row[1]

    def balance(self, owner: UUID) -> Decimal:
        row = self.one("SELECT balance FROM user_balance_checkpoints WHERE user_id = %s", owner)
        return Decimal(0) if row is None else row[0]

    def one(self, statement: str, values: Any) -> Any:
        given = values if isinstance(values, dict) else (values,)
        return self.sql.execute(statement, given).fetchone()  # type: ignore[call-overload]
