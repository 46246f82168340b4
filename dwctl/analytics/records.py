"""What is written down of a call, as the JSON line that the statements in `queries.sql` and the spool both take.

`Opening` is what `fusillade.open_calls` takes, `Record` what `record_calls` takes: the same members by the same names (a test compares
them). A member that is None is left out of the line, which is NULL to the statements; so a line of an older version can still be read.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from enum import StrEnum
from functools import lru_cache
from operator import attrgetter
from typing import Any
from uuid import UUID

import msgspec

from dwctl.printable import MARK, printable

# Where a text may become part of an index entry, which has at most 2,704 bytes: four bytes a character, and room for the other columns.
_MOST_IN_INDEX = 512
# PostgreSQL takes a text of at most 1 GB, quoted as JSON and not. A body beyond this is not kept; its call is recorded all the same.
MOST_BYTES = 192 * 1024 * 1024
_NUL = rb"\u0000"
_encode = msgspec.json.Encoder().encode
_FILES = UUID("6a1d7f3e-4c0b-5f0e-9d0a-3f1f5f0c2b11")
_BOUNDS = {
    "model": _MOST_IN_INDEX,
    "owner": _MOST_IN_INDEX,
    "routed_model": _MOST_IN_INDEX,
}
# What is only ever looked at: callers and upstreams choose it, and it lands on terminals.
_SHOWN = {
    "uri": 2048,
    "custom_id": 1024,
    "served_by": 256,
    "error_code": 256,
    "finish_reason": 64,
    "user_agent": 256,
    "trace_id": 64,
}
_SHORTEST_BOUND = min(*_BOUNDS.values(), *_SHOWN.values())
"""A printable text that is no longer is within each."""
_bounded_of_record = attrgetter(*_BOUNDS, *_SHOWN)
_DETAILS = ("request_headers", "response_headers", "logged_request", "logged_response")
_details_of: Callable[[Record], tuple[str | None, ...]] = attrgetter(*_DETAILS)
_NO_DETAILS = (None,) * len(_DETAILS)
_TOO_LARGE = (
    '{"error":{"message":"The answer was too large to be kept.","type":"server_error",'
    '"param":null,"code":"answer_not_kept"}}'
)


class Kept(StrEnum):
    """What became of a record."""

    COMMITTED = "committed"
    """It is in the database."""
    SPOOLED = "spooled"
    """It is in an fsynced file, and will be in the database when that is back."""
    SET_ASIDE = "set_aside"
    """The database refuses this record for good: it is in a file for a person to read, and its request has ended without it."""
    REFUSED = "refused"
    """Nobody has it. Calls hear of it as an exception, so that no answer leaves by mistake."""


class Tried(msgspec.Struct, frozen=True, omit_defaults=True):
    """One attempt of a call at one target: `model` is its name there. `failure`: what was wrong; `next`: why another target was tried."""

    endpoint: str
    model: str
    ms: int
    status: int | None = None
    failure: str | None = None
    next: str | None = None


class Record(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A call that is over: tracking row, log row, roll-up, charge.

    track: it has a row in `fusillade.requests` (then owner, path, tier, state, response_* are there). opened: that row was made before.
    queued: a worker runs it. notify: somebody may wait for it. request_body None: the row is known to be committed, with its body.
    at: arrival, minted once; log row and id belong to it. sla: the completion window. cost None: nothing is charged.
    attempts: the story of a call to a composite model.

    Prices are USD per token, those of the tariff `tariff_id`; `cost` is what they come to, and `provider_cost` what the operator pays.
    bodies: why the request log shows none (None: it does). logged_request, logged_response: bodies of a call that is not tracked, for the log
    alone; those of a tracked one stand on its row. Headers are JSON objects of texts, redacted.
    unlogged: it is not in the log, so it makes no roll-ups either, and nothing is charged.
    reserved: part of the balance, or of what its key may spend, is held for it, and is to be let go.
    """

    id: UUID
    at: datetime
    ended_at: datetime
    track: bool
    opened: bool
    queued: bool
    notify: bool
    method: str
    uri: str
    status_code: int
    duration_ms: int
    prompt_tokens: int
    completion_tokens: int
    reasoning_tokens: int
    cached_tokens: int
    total_tokens: int
    usage_source: str
    response_type: str
    access_source: str
    origin: str
    sla: str
    batch_id: UUID | None = None
    file_id: UUID | None = None
    owner: str | None = None
    user_id: UUID | None = None
    api_key_id: UUID | None = None
    path: str | None = None
    model: str | None = None
    request_body: str | None = None
    request_size: int | None = None
    tier: str | None = None
    expires_at: datetime | None = None
    daemon_id: UUID | None = None
    metadata: str | None = None
    state: str | None = None
    response_status: int | None = None
    response_body: str | None = None
    response_size: int | None = None
    routed_model: str | None = None
    error: str | None = None
    ttfb_ms: int | None = None
    input_price: Decimal | None = None
    output_price: Decimal | None = None
    cost: Decimal | None = None
    outer_request_id: UUID | None = None
    custom_id: str | None = None
    request_source: str | None = None
    served_by: str | None = None
    error_code: str | None = None
    attempts: tuple[Tried, ...] | None = None
    cached_input_price: Decimal | None = None
    reasoning_price: Decimal | None = None
    tariff_id: UUID | None = None
    provider_cost: Decimal | None = None
    finish_reason: str | None = None
    user_agent: str | None = None
    trace_id: str | None = None
    bodies: str | None = None
    request_headers: str | None = None
    response_headers: str | None = None
    logged_request: str | None = None
    logged_response: str | None = None
    unlogged: bool | None = None
    reserved: bool | None = None


class Opening(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A call that is not over: a realtime call that lasts (state `processing`) or a request for a worker (`pending`).

    repeatable: a worker may start it once more if this process dies. last_words: what is recorded if this process dies, an
    interrupted Record of the same id and time (`Recorder.keep_progress` replaces it); None: a record without usage.
    """

    id: UUID
    at: datetime
    file_id: UUID
    owner: str
    path: str
    model: str
    request_body: str
    request_size: int
    tier: str
    sla: str
    expires_at: datetime
    state: str
    api_key_id: UUID | None = None
    daemon_id: UUID | None = None
    metadata: str | None = None
    repeatable: bool | None = None
    last_words: Record | None = None


def timestamp(at: float) -> datetime:
    """A Unix time as records have it."""
    return datetime.fromtimestamp(at, UTC)


@lru_cache(4096)
def owner_of(account_id: UUID) -> str:
    """An account as rows in the queue's tables name it."""
    return str(account_id)


def file_of(owner: str, at: float) -> UUID:
    """The `files` row that an owner's single requests of that day share."""
    return _file(owner, int(at) // 86400)


@lru_cache(4096)
def _file(owner: str, day: int) -> UUID:
    return uuid.uuid5(_FILES, f"{owner} {day}")


def has_details(record: Record) -> bool:
    """Whether it has something that only the log shows."""
    return _details_of(record) != _NO_DETAILS


def details_size(record: Record) -> int:
    """How many characters that has."""
    details = _details_of(record)
    return 0 if details == _NO_DETAILS else sum(len(part) for part in details if part is not None)


def without_details(record: Record) -> Record:
    """The same call without that; where bodies were among it, the log says so."""
    had_bodies = record.logged_request is not None or record.logged_response is not None
    return msgspec.structs.replace(
        record, **dict.fromkeys(_DETAILS), bodies="shed" if had_bodies else record.bodies
    )


def text_of(body: bytes) -> str:
    """A body as PostgreSQL can store it: what is no UTF-8 is replaced, and so is NUL, which JSON texts cannot contain anyway."""
    text = body.decode("utf-8", "replace")
    return text.replace("\x00", "\ufffd") if "\x00" in text else text


def line(record: Record | Opening) -> bytes:
    """A record as one line of JSON that PostgreSQL can take.

    What it cannot store (NUL, lone surrogates) is replaced; texts that reach an index are cut, with a mark; bodies that are too large
    for it are left out.
    """
    record = _bounded(record)
    try:
        found = _encode(record)
    except UnicodeEncodeError:
        found = _NUL
    # Bodies are clean; but any other text may come from an upstream, too. A body that merely spells it out is found here as well.
    if _NUL in found:
        found = _encode(_storable(record))
    return found if len(found) <= MOST_BYTES else line(_without_bodies(record))


def _bounded(record: Record | Opening) -> Record | Opening:
    texts = (
        _bounded_of_record(record) if isinstance(record, Record) else (record.owner, record.model)
    )
    for text in texts:
        if text is not None and (len(text) > _SHORTEST_BOUND or not text.isprintable()):
            return _cut(record)
    return record


def _cut(record: Record | Opening) -> Record | Opening:
    cut = {}
    for name, most in _BOUNDS.items():
        text = getattr(record, name, None)
        if text is not None and len(text) > most:
            cut[name] = text[: most - len(MARK)] + MARK
    for name, most in _SHOWN.items():
        text = getattr(record, name, None)
        if text is not None and (len(text) > most or not text.isprintable()):
            cut[name] = printable(text, most)
    return msgspec.structs.replace(record, **cut) if cut else record


def _storable(record: Record | Opening) -> Record | Opening:
    cleaned: dict[str, Any] = {}
    for name, value in msgspec.structs.asdict(record).items():
        if isinstance(value, str):
            cleaned[name] = value.encode("utf-8", "replace").decode().replace("\x00", "\ufffd")
        elif isinstance(value, Record):
            cleaned[name] = _storable(_bounded(value))
    return msgspec.structs.replace(record, **cleaned)


def _without_bodies(record: Record | Opening) -> Record | Opening:
    cut: dict[str, Any] = {}
    if record.request_body is not None:
        cut["request_body"] = ""
    if isinstance(record, Opening):
        cut["last_words"] = None
    else:
        record = without_details(record) if has_details(record) else record
        if record.response_body is not None:
            cut["response_body"] = _TOO_LARGE
    return msgspec.structs.replace(record, **cut)
