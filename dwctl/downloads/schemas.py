"""What downloads read from the query string."""

from __future__ import annotations

from typing import Any

from marshmallow import post_load

from dwctl.web.pagination import MAX_LIMIT
from dwctl.web.schemas import ApiSchema, Clamped, Text


class ContentQuery(ApiSchema):
    """Which lines: all from `skip` on without a `limit`."""

    limit = Clamped(1, MAX_LIMIT, load_default=None)
    skip = Clamped(0, 2**60, load_default=0)
    search = Text(load_default=None, longest=1000)

    @post_load
    def trim(self, data: dict[str, Any], **_kwargs: Any) -> dict[str, Any]:
        """A blank search is none."""
        data["search"] = (data["search"] or "").strip() or None
        return data


class ResultsQuery(ContentQuery):
    """The same for a batch's results, perhaps of one status only."""

    status = Text(load_default=None, longest=1000)
