"""What downloads read from the query string."""

from __future__ import annotations

from typing import Any

from marshmallow import fields, post_load

from dwctl.web.pagination import MAX_LIMIT
from dwctl.web.schemas import ApiSchema, Text


class ContentQuery(ApiSchema):
    """Which lines: all from `skip` on without a `limit`."""

    limit = fields.Integer(load_default=None)
    skip = fields.Integer(load_default=0)
    search = Text(load_default=None, longest=1000)

    @post_load
    def clamp(self, data: dict[str, Any], **_kwargs: Any) -> dict[str, Any]:
        """Out-of-range values are moved into range, never refused."""
        data["skip"] = min(max(data["skip"], 0), 2**60)
        if data["limit"] is not None:
            data["limit"] = min(max(data["limit"], 1), MAX_LIMIT)
        data["search"] = (data["search"] or "").strip() or None
        return data


class ResultsQuery(ContentQuery):
    """The same for a batch's results, perhaps of one status only."""

    status = Text(load_default=None, longest=1000)
