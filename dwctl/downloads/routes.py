"""`/files/{id}/content` and `/batches/{id}/results`: JSON lines, a page where a `limit` is given, else a stream of all of them."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from typing import Any

from flask import Response, request

from dwctl.access import guard
from dwctl.access.permissions import Operation, Resource
from dwctl.downloads import pages, sources
from dwctl.downloads.pages import Source
from dwctl.downloads.schemas import ContentQuery, ResultsQuery
from dwctl.queue import identifiers
from dwctl.web import current, described
from dwctl.web.schemas import Blueprint

blueprint = Blueprint("downloads", __name__, description="Files and results as JSON lines.")
guard.protect(blueprint)

_TYPE = "application/x-ndjson"
_HEADERS = {
    "X-Last-Line": "The number of the last line that was looked at: `skip` for the next page.",
    "X-Incomplete": "`true` where more lines follow, or will.",
}


@blueprint.route("/files/<file_id>/content", methods=["GET"])
@guard.requires_own(Resource.FILES, Operation.READ)
@blueprint.arguments(ContentQuery, location="query")
@blueprint.response(200, content_type=_TYPE)
@described.says(headers=_HEADERS)
def get_file_content(query: dict[str, Any], file_id: str) -> Response:
    """Download a file: as it was uploaded, or what a batch has put into it so far."""
    id = identifiers.parse("file", file_id)
    limit = query.pop("limit")
    with current.parts().connections.transaction() as connection:
        source = sources.of_file(connection, guard.identify(), id, **query)
    return _answer(source, limit)


@blueprint.route("/batches/<batch_id>/results", methods=["GET"])
@guard.requires_own(Resource.BATCHES, Operation.READ)
@blueprint.arguments(ResultsQuery, location="query")
@blueprint.response(200, content_type=_TYPE)
@described.says(headers=_HEADERS)
def get_batch_results(query: dict[str, Any], batch_id: str) -> Response:
    """Download a batch's lines with what they were asked and answered, in the order of its input."""
    id = identifiers.parse("batch", batch_id)
    limit = query.pop("limit")
    with current.parts().connections.transaction() as connection:
        source = sources.of_batch(connection, guard.identify(), id, **query)
    return _answer(source, limit)


def _answer(source: Source, limit: int | None) -> Response:
    connections = current.parts().connections
    if limit is not None:
        found = pages.some(connections, source, limit)
        answer = Response(found.lines, content_type=_TYPE)
        answer.headers["X-Last-Line"] = str(source.line_behind(found.taken, found.place))
        answer.headers["X-Incomplete"] = _word(found.has_more or source.is_growing)
        return answer
    answer = Response(_begun(pages.stream(connections, source)), content_type=_TYPE)
    if source.total is not None:
        answer.headers["X-Last-Line"] = str(max(source.total, source.line))
    answer.headers["X-Incomplete"] = _word(source.is_growing)
    return answer


def _begun(lines: Iterator[bytes]) -> Iterator[bytes]:
    """The same, its first page read already: what goes wrong with it is still an answer of its own."""
    if request.method == "HEAD":
        return iter(())
    return chain([next(lines, b"")], lines)


def _word(flag: bool) -> str:
    return "true" if flag else "false"
