"""Ids of files, batches and their requests as clients write them: a UUID, with or without the prefix that webhooks and OpenAI's habits give it."""

from __future__ import annotations

from uuid import UUID

from dwctl.errors import DwctlError

_PREFIXES = {
    "file": ("file-", "file_"),
    "batch": ("batch_", "batch-"),
    "request": ("batch_req_", "resp_"),
}


def parse(kind: str, text: str, name: str | None = None) -> UUID:
    """The id of a `file`, `batch` or `request`. Raises DwctlError (400), which names the field where that is not `<kind> ID`."""
    bare = text
    for prefix in _PREFIXES[kind]:
        bare = bare.removeprefix(prefix)
    try:
        return UUID(bare)
    except ValueError:
        said = name or f"{kind} ID"
        raise DwctlError(f"Invalid {said} format", code="invalid_id", status=400) from None


def line_id(batch: UUID, line: int) -> UUID:
    """The request of a batch's line (from 0 on), as `fusillade.line_id` makes it: a batch's requests stand together, in the order of its lines.

    The batch's id with its last 32 bits replaced by the line, and the bit before them turned, so that no request has its batch's id: that is
    how a single request is known.
    """
    return UUID(int=(batch.int >> 32 ^ 1) << 32 | line)
