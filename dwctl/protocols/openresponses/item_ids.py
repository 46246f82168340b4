"""One identifier for each output item of an upstream's Response, wherever it is named.

Servers that speak the Responses API themselves mint one for each event (EricLBuehler/mistral.rs#1944, BerriAI/litellm#36375) or leave it
out at the end (Bedrock Mantle: anomalyco/opencode#46885). Clients that put an item together by its identifier lose it then, or give up
(vercel/ai: "text part ... not found").
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from dwctl.protocols.openresponses.items import Item, item_id

_ADDED = "response.output_item.added"


class ItemIds:
    """Those of one stream. The identifier with which an item was added is its own; what names no item that was added gets that of its place."""

    def __init__(self, response_id: str) -> None:
        self._response_id = response_id
        self._at: dict[int, str] = {}
        self._kinds: dict[int, object] = {}
        self._known: set[str] = set()

    def put_right(self, event: dict[str, Any]) -> bool:
        """Whether anything had to be changed in an event of an item."""
        index = event.get("output_index")
        if type(index) is not int:
            return False
        item = event.get("item")
        if type(item) is dict:
            is_new = event.get("type") == _ADDED or index not in self._at
            return self._put_item_right(item, index, is_new=is_new)
        return "item_id" in event and self._put_right(event, "item_id", index)

    def put_output_right(self, output: Iterable[object]) -> None:
        """The items of a whole Response, in the order in which they were added."""
        for index, item in enumerate(output):
            if type(item) is dict:
                is_same = item.get("type") == self._kinds.get(index)
                self._put_item_right(item, index, is_new=not is_same)

    def _put_item_right(self, item: Item, index: int, *, is_new: bool) -> bool:
        if not is_new:
            return self._put_right(item, "id", index)
        id = item.get("id")
        lacks = not isinstance(id, str) or not id
        if lacks:
            id = item["id"] = item_id(self._response_id, str(item.get("type")), index)
        self._at[index] = str(id)
        self._kinds[index] = item.get("type")
        self._known.add(str(id))
        return lacks

    def _put_right(self, holder: dict[str, Any], name: str, index: int) -> bool:
        id, own = holder.get(name), self._at.get(index)
        if own is None or (isinstance(id, str) and id in self._known):
            return False
        holder[name] = own
        return True


def with_ids(output: list[Any], response_id: str) -> list[Any] | None:
    """The items of a complete Response, those without an identifier with one of ours; None where all have theirs."""
    lacking = [type(item) is dict and not item.get("id") for item in output]
    if not any(lacking):
        return None
    return [
        {"id": item_id(response_id, str(item.get("type")), n), **_without(item)} if lacks else item
        for n, (item, lacks) in enumerate(zip(output, lacking, strict=True))
    ]


def _without(item: Item) -> Item:
    return {name: value for name, value in item.items() if name != "id"}
