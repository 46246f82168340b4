"""What a request's input stands on: the responses that it continues, and the items that it only names. Pure.

`wanted` says what has to be fetched, `turn` what one fetched response adds to a conversation, `told` what the model reads in the end.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple
from uuid import UUID

from dwctl.protocols.errors import InvalidRequest
from dwctl.protocols.openresponses import items
from dwctl.protocols.openresponses.items import Item, Origin

_RESPONSE_ID = re.compile(
    r"(?:resp_)?([0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12})", re.IGNORECASE
)


MOST_REFERENCES = 5000
"""How many items one input may name. Each has to be found, and put in place on the loop."""


class Reference(NamedTuple):
    """An item that a request only names. place: its index in the input. origin: None for an identifier that was not minted here."""

    place: int
    id: str
    origin: Origin | None


class Wanted(NamedTuple):
    """What a request stands on. previous: the `previous_response_id`; uuid: the request behind it, None where it is none of ours."""

    previous: str | None
    uuid: UUID | None
    references: list[Reference]


def wanted(content: Mapping[str, Any]) -> Wanted | None:
    """What has to be fetched for a request; None for one that says everything itself. Raises InvalidRequest for too many references."""
    given = content.get("input")
    references = list(_few_references(given)) if isinstance(given, list) else []
    previous = content.get("previous_response_id")
    if previous is None and not references:
        return None
    return Wanted(previous, uuid_of(previous), references)


def _few_references(given: list[object]) -> Iterator[Reference]:
    for number, reference in enumerate(references_in(given)):
        if number == MOST_REFERENCES:
            raise InvalidRequest(
                f"An input can name at most {MOST_REFERENCES:,} earlier items. Use `previous_response_id`, or send the items themselves.",
                param=f"input[{reference.place}]",
                code="too_many_references",
            )
        yield reference


def references_in(given: Iterable[object]) -> Iterator[Reference]:
    """The items of an input that are only named."""
    for place, item in enumerate(given):
        if isinstance(item, dict) and (id := items.reference_of(item)):
            yield Reference(place, id, items.origin_of(id))


def uuid_of(response_id: object) -> UUID | None:
    """The request behind a response's identifier as this gateway writes it; None for any other."""
    found = _RESPONSE_ID.fullmatch(response_id) if isinstance(response_id, str) else None
    return UUID(found[1]) if found else None


def turn(body: Mapping[str, Any], response: Mapping[str, Any]) -> list[Item]:
    """One earlier response in a conversation: what went in, then what came out. Instructions are not part of it."""
    return items.given_items(body) + items.output_items(response)


def told(
    content: Mapping[str, Any], prior: list[Item], referred: Mapping[str, Item], *, continued: bool
) -> dict[str, Any]:
    """The request as the model reads it: the conversation so far, then its own input, with the items in it that were only named.

    continued: its `previous_response_id` is in `prior`, and must not go on.
    """
    whole = dict(content)
    if continued:
        whole.pop("previous_response_id", None)
    whole["input"] = [whole_item(item, referred) for item in [*prior, *items.given_items(content)]]
    return whole


def id_of(item: Item) -> str | None:
    """The identifier of an item that is there itself."""
    id = item.get("id")
    return id if isinstance(id, str) and items.reference_of(item) is None else None


def whole_item(item: Item, referred: Mapping[str, Item]) -> Item:
    """The item itself where one is only named, and known."""
    id = items.reference_of(item)
    return referred.get(id, item) if id else item


def without_our_id(item: Item) -> Item:
    """An item as another server may read it: an identifier that was minted here means nothing there."""
    id = item.get("id")
    if not isinstance(id, str) or items.origin_of(id) is None:
        return item
    return {name: value for name, value in item.items() if name != "id"}
