"""What the log names and no page shows any more: lists and sums link to it all the same."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from flask import Response, url_for

from dwctl.dashboard import calls, pages, ranges


def page(
    name: str, words: str, *, above: tuple[str, str], of: UUID | None = None, **filters: Any
) -> Response:
    """A page (404) that says so in `words` and leads to the calls: those of an account, or under filters of the list and of usage alike.

    above: the list that it would stand in, as address and title.
    """
    range = ranges.asked().text
    return pages.render(
        "gone.html",
        title="There is nothing here",
        status=404,
        name=name,
        words=words,
        above=above,
        lists=calls.behind(range, of=of, **filters),
        usage=url_for("ui_usage.show", range=range, user=of, **filters),
    )
