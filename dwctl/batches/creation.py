"""How a batch is made: everything that refuses, the room at its models, and its row, in one transaction. Routes and sources come here."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any
from uuid import UUID

import orjson
import psycopg
from psycopg.rows import class_row

from dwctl import sql
from dwctl.ai.idempotency import KeyReused
from dwctl.batches import capacity, metadata
from dwctl.batches.capacity import Demand
from dwctl.clock import uuid7
from dwctl.config import Batches, Settings, window_seconds
from dwctl.errors import DwctlError, Forbidden, Invalid, NotFound
from dwctl.queue import identifiers

_QUERIES = sql.load("dwctl.batches")


@dataclass(frozen=True, slots=True)
class Order:
    """A batch that somebody wants.

    file_id: as the client wrote it. reach: the owners whose files may be run; None for everybody's. any_window: the windows of the settings
    and of the models do not bind them. repeat_key: their Idempotency-Key. batch_id: an id that was written down before; where there is a
    batch with it already, nothing is made again.
    """

    file_id: str
    endpoint: str
    window: str
    metadata: Mapping[str, str]
    owner_id: UUID
    api_key_id: UUID | None
    reach: Collection[str] | None
    any_window: bool = False
    repeat_key: str | None = None
    batch_id: UUID | None = None


@dataclass(frozen=True, slots=True)
class _File:
    purpose: str | None
    uploaded_by: str | None
    is_expired: bool
    is_broken: bool


@dataclass(frozen=True, slots=True)
class _Model:
    id: UUID
    alias: str
    throughput: float | None
    allowed_batch_completion_windows: list[str] | None


class BalanceTooLow(DwctlError):
    """Account balance too low. Please add credits to continue."""

    code = "insufficient_credits"
    status = 402


def create(connection: psycopg.Connection[Any], settings: Settings, order: Order) -> UUID:
    """Make the batch; the caller commits. Its requests are there when a worker has put them there, which begins at the commit.

    Raises what refuses it: Invalid, BalanceTooLow, NotFound, Forbidden, KeyReused, capacity.AtCapacity; psycopg.OperationalError where others
    that make batches for the same models do not come to an end.
    """
    id = order.batch_id or uuid7()
    connection.execute(_QUERIES["be_patient"])
    earlier = _made_before(connection, order, id, settings)
    if earlier is not None:
        return earlier
    rules = settings.batches
    check_terms(rules, order.endpoint, order.window, any_window=order.any_window)
    file_id = identifiers.parse("file", order.file_id, "input_file_id")
    _check_balance(connection, order.owner_id)
    _check_file(connection, order, file_id)
    demands = _demands(connection, order, _lines(connection, order, file_id))
    capacity.admit(connection, rules, order.window, demands)
    values = {
        "id": id,
        "file_id": file_id,
        "endpoint": order.endpoint,
        "window": order.window,
        "window_s": window_seconds(order.window),
        "owner": str(order.owner_id),
        "api_key_id": order.api_key_id,
        "metadata": orjson.dumps(dict(order.metadata)).decode(),
        "output_file_id": uuid7(),
        "error_file_id": uuid7(),
    }
    connection.execute(_QUERIES["create_batch"], values)
    return id


def check_terms(rules: Batches, endpoint: str, window: str, *, any_window: bool = False) -> None:
    """Raises Invalid for a window or an endpoint that batches cannot have."""
    if not _is_offered(rules, window, any_window=any_window):
        allowed = ", ".join(rules.allowed_completion_windows)
        raise Invalid(
            f"Unsupported completion_window. Allowed values: {allowed}", param="completion_window"
        )
    if endpoint not in rules.allowed_url_paths:
        supported = ", ".join(rules.allowed_url_paths)
        raise Invalid(
            f"Unsupported endpoint '{endpoint}'. Supported: {supported}", param="endpoint"
        )


def _is_offered(rules: Batches, window: str, *, any_window: bool) -> bool:
    if window in rules.allowed_completion_windows:
        return True
    try:
        window_seconds(window)
    except ValueError:
        return False
    return any_window


def _made_before(
    connection: psycopg.Connection[Any], order: Order, id: UUID, settings: Settings
) -> UUID | None:
    """The batch that this order has made already."""
    if order.batch_id is not None:
        made = connection.execute(_QUERIES["is_made"], {"id": id}).fetchone()
        return id if made else None
    if order.repeat_key is None:
        return None
    values = {
        "owner_id": order.owner_id,
        "key": order.repeat_key,
        "fingerprint": _fingerprint(order),
        "batch_id": id,
        "keep_s": settings.idempotency.keep,
    }
    if connection.execute(_QUERIES["claim_key"], values).fetchone():
        return None
    # A twin that runs at the same time has been waited for: it has the key only if it has made its batch.
    found = connection.execute(_QUERIES["find_key"], values).fetchone()
    if found is None or found[1] != values["fingerprint"]:
        raise KeyReused
    earlier: UUID = found[0]
    return earlier


def _fingerprint(order: Order) -> bytes:
    told = [order.file_id, order.endpoint, order.window, metadata.shown(order.metadata)]
    return hashlib.sha256(orjson.dumps(told, option=orjson.OPT_SORT_KEYS)).digest()


def _check_balance(connection: psycopg.Connection[Any], owner_id: UUID) -> None:
    row = connection.execute(_QUERIES["balance"], {"owner_id": owner_id}).fetchone()
    if row and row[0] < Decimal(0):
        raise BalanceTooLow


def _check_file(connection: psycopg.Connection[Any], order: Order, file_id: UUID) -> None:
    cursor = connection.cursor(row_factory=class_row(_File))
    file = cursor.execute(_QUERIES["input_file"], {"file_id": file_id}).fetchone()
    if file is None:
        raise NotFound(f"File with ID {file_id} not found", param="input_file_id")
    if order.reach is not None and file.uploaded_by not in order.reach:
        raise Forbidden("Insufficient permissions to Read Files", param="input_file_id")
    _check_its_owner(connection, order, file.uploaded_by)
    if (file.purpose or "batch") != "batch":
        raise _unusable(f"has the purpose '{file.purpose}', not 'batch'", file_id)
    if file.is_expired:
        raise _unusable("has expired", file_id)
    if file.is_broken:
        raise _unusable("was not read to its end", file_id)


def _check_its_owner(connection: psycopg.Connection[Any], order: Order, owner: str | None) -> None:
    """Whoever runs another's file does not run that of a debtor."""
    try:
        owner_id = UUID(owner or "")
    except ValueError:
        return
    if owner_id == order.owner_id:
        return
    debtor = connection.execute(_QUERIES["debtor"], {"owner_id": owner_id}).fetchone()
    if debtor:
        raise BalanceTooLow(
            f"File owner ({debtor[0]}) does not have enough balance. Please add credits to their account or upload a new file."
        )


def _unusable(why: str, file_id: UUID) -> Invalid:
    return Invalid(
        f"File with ID {file_id} {why}", code="invalid_input_file", param="input_file_id"
    )


def _lines(connection: psycopg.Connection[Any], order: Order, file_id: UUID) -> Mapping[str, int]:
    """The lines of the file for each model, all of them for the batch's endpoint."""
    connection.execute(_QUERIES["count_file"], {"file_id": file_id})
    lines: Counter[str] = Counter()
    for model, path, requests in connection.execute(_QUERIES["lines_of"], {"file_id": file_id}):
        if path not in ("", order.endpoint):
            raise Invalid(
                f"The file has lines for '{path}', the batch is for '{order.endpoint}'",
                code="endpoint_mismatch",
                param="endpoint",
            )
        lines[model] += requests
    if not lines:
        raise _unusable("contains no valid request templates", file_id)
    return lines


def _demands(
    connection: psycopg.Connection[Any], order: Order, lines: Mapping[str, int]
) -> Sequence[Demand]:
    cursor = connection.cursor(row_factory=class_row(_Model))
    models = cursor.execute(_QUERIES["models_by_alias"], {"aliases": list(lines)}).fetchall()
    if not order.any_window:
        for model in sorted(models, key=lambda model: model.alias):
            _check_window(model.alias, model.allowed_batch_completion_windows, order.window)
    gone = lines.keys() - {model.alias for model in models}
    if gone:
        raise Invalid(
            f"The following model(s) are no longer available: {', '.join(sorted(gone))}",
            code="model_not_found",
        )
    return [Demand(m.id, m.alias, m.throughput, lines[m.alias]) for m in models]


def _check_window(alias: str, allowed: Collection[str] | None, window: str) -> None:
    if allowed is None or window in allowed:
        return
    if not allowed:
        raise Invalid(f"Model '{alias}' does not support batch processing.")
    raise Invalid(
        f"Model '{alias}' does not support completion window '{window}'. Allowed: {', '.join(allowed)}",
        param="completion_window",
    )
