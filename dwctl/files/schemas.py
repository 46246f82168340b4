"""What `/files` takes and gives."""

from __future__ import annotations

from typing import Any, ClassVar

from marshmallow import fields

from dwctl.web.pagination import MAX_LIMIT
from dwctl.web.schemas import ApiSchema, Clamped, Name, TrueOrFalse


class FilesQuery(ApiSchema):
    """The query string of the list. `after` is a file's id; what is none is ignored."""

    limit = Clamped(1, MAX_LIMIT, load_default=20)
    after = Name(load_default=None)
    order = Name(load_default="desc")
    purpose = Name(load_default=None)
    search = Name(load_default=None, longest=2000)
    own = TrueOrFalse(load_default=False)
    member_id = fields.UUID(load_default=None)


class FileSchema(ApiSchema):
    """A file. Members that are not known are left out."""

    example: ClassVar[dict[str, Any]] = {
        "id": "file-0199a8f1-7c5e-7d3a-9b64-5e1f0c2d8a47",
        "object": "file",
        "bytes": 2048,
        "created_at": 1780000000,
        "filename": "input.jsonl",
        "purpose": "batch",
        "status": "processed",
        "expires_at": 1780086400,
    }

    id = fields.String()
    object = fields.Constant("file")
    bytes = fields.Integer()
    created_at = fields.Integer()
    filename = fields.String()
    purpose = fields.String()
    status = fields.String()
    status_details = fields.String()
    expires_at = fields.Integer()
    lines = fields.Integer()
    created_by_email = fields.String()
    owner_email = fields.String()
    context_name = fields.String()
    context_type = fields.String()
    source = fields.String()
    source_name = fields.String()


class FilesPage(ApiSchema):
    """A page of the list; no first and last id where it is empty."""

    example: ClassVar[dict[str, Any]] = {
        "object": "list",
        "data": [FileSchema.example],
        "first_id": "file-0199a8f1-7c5e-7d3a-9b64-5e1f0c2d8a47",
        "last_id": "file-0199a8f1-7c5e-7d3a-9b64-5e1f0c2d8a47",
        "has_more": False,
    }

    object = fields.Constant("list")
    data = fields.List(fields.Nested(FileSchema))
    first_id = fields.String()
    last_id = fields.String()
    has_more = fields.Boolean()


class FileDeleted(ApiSchema):
    """What is left of a file."""

    example: ClassVar[dict[str, Any]] = {
        "id": "0199a8f1-7c5e-7d3a-9b64-5e1f0c2d8a47",
        "object": "file",
        "deleted": True,
    }

    id = fields.String()
    object = fields.Constant("file")
    deleted = fields.Constant(True)


class EstimateQuery(ApiSchema):
    """The window that a batch of the file would have."""

    completion_window = Name(load_default="24h")


class ModelEstimateSchema(ApiSchema):
    """What a file asks of one model. `price_known`: whether the model has a price for it; without one the cost is 0."""

    model = fields.String()
    request_count = fields.Integer()
    estimated_input_tokens = fields.Integer()
    estimated_output_tokens = fields.Integer()
    estimated_cost = fields.String()
    price_known = fields.Boolean()


class EstimateSchema(ApiSchema):
    """What running a file would cost, in USD."""

    example: ClassVar[dict[str, Any]] = {
        "file_id": "0199a8f1-7c5e-7d3a-9b64-5e1f0c2d8a47",
        "total_requests": 100,
        "total_estimated_input_tokens": 12000,
        "total_estimated_output_tokens": 8000,
        "total_estimated_cost": "0.0520",
        "models": [
            {
                "model": "gpt-oss",
                "request_count": 100,
                "estimated_input_tokens": 12000,
                "estimated_output_tokens": 8000,
                "estimated_cost": "0.0520",
                "price_known": True,
            }
        ],
    }

    file_id = fields.String()
    total_requests = fields.Integer()
    total_estimated_input_tokens = fields.Integer()
    total_estimated_output_tokens = fields.Integer()
    total_estimated_cost = fields.String()
    models = fields.List(fields.Nested(ModelEstimateSchema))
