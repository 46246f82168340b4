"""Transactions on the wire."""

from __future__ import annotations

from typing import Any, ClassVar

from marshmallow import fields, validate

from dwctl.billing.money import amount_text
from dwctl.web.pagination import PageQuery, PageSchema, envelope
from dwctl.web.schemas import ApiSchema, Instant, Money, Name, Text, TrueOrFalse, Words


class TransactionSchema(ApiSchema):
    """A ledger entry, or the folded usage of a batch. `batch_id` is null unless folded."""

    example: ClassVar[dict[str, Any]] = {
        "id": "0199a8f2-0b7e-7c11-8f3d-6c1d2e3f4a5b",
        "user_id": "0199a8f1-7c5e-7d3a-9b64-5e1f0c2d8a47",
        "transaction_type": "admin_grant",
        "batch_id": None,
        "amount": "25.00",
        "source_id": "invoice-2026-01",
        "description": "January",
        "created_at": "2026-01-31T10:20:30.123456Z",
    }

    # What is about a call or a batch, where it is known.
    absent_where_null = frozenset(
        {"request_origin", "batch_sla", "batch_request_count", "input_file_name"}
    )

    id = fields.UUID()
    user_id = fields.UUID()
    transaction_type = fields.String()
    batch_id = fields.UUID(dump_default=None, allow_none=True)
    amount = Money(metadata={"description": "Always positive; the type gives the sign."})
    source_id = fields.String()
    description = fields.String(allow_none=True)
    created_at = Instant()
    request_origin = fields.String()
    batch_sla = fields.String()
    batch_request_count = fields.Integer()
    input_file_name = fields.String(metadata={"description": "Of a folded batch."})


class TransactionCreate(ApiSchema):
    """A grant or a removal. `source_id` is the caller's own; each can be used once."""

    example: ClassVar[dict[str, Any]] = {
        "user_id": "0199a8f1-7c5e-7d3a-9b64-5e1f0c2d8a47",
        "transaction_type": "admin_grant",
        "amount": "25.00",
        "source_id": "invoice-2026-01",
        "description": "January",
    }

    user_id = fields.UUID(required=True)
    transaction_type = fields.String(
        required=True, validate=validate.OneOf(("admin_grant", "admin_removal"))
    )
    amount = Money(required=True)
    source_id = Name(required=True, longest=500)
    description = Text(load_default=None, allow_none=True)


class TransactionQuery(PageQuery):
    """Whose entries (by default one's own), which of them, and whether batches are folded."""

    user_id = fields.UUID(load_default=None)
    all = TrueOrFalse(load_default=False)
    group_batches = TrueOrFalse(load_default=False)
    search = Name(load_default=None)
    transaction_types = Words(
        load_default=None, metadata={"description": "Comma-separated; unknown names are ignored."}
    )
    start_date = Instant(load_default=None)
    end_date = Instant(load_default=None)


class TransactionPage(PageSchema):
    """A page of entries. `page_start_balance` is the balance right after its newest entry."""

    example: ClassVar[dict[str, Any]] = {
        **envelope([TransactionSchema.example], 1, skip=0, limit=10),
        "page_start_balance": "25.00",
    }

    data = fields.List(fields.Nested(TransactionSchema))
    page_start_balance = fields.Function(
        lambda page: amount_text(page["page_start_balance"]), metadata={"type": "string"}
    )
