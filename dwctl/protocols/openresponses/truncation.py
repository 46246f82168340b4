"""`truncation: auto`: a conversation that is too long for its model loses its oldest turns. Pure.

A turn is what one message of the user begins: answers, calls and their results with it. The instructions at the front stay, and so does the
last turn, whatever its size. How many tokens a text has is an estimate.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from dwctl.protocols.openresponses.items import Item
from dwctl.protocols.usage import prompt_estimate

# Stored items may hold anything: these are compared, not hashed.
_INSTRUCTING = ("system", "developer")
_CALLS = ("function_call", "custom_tool_call")
_RESULTS = ("function_call_output", "custom_tool_call_output")


def fitting(body: Mapping[str, Any], items: list[Item], context_length: int) -> list[Item]:
    """The items of a request that its model has room for, beside its tools and the answer that it may give."""
    room = context_length - (body.get("max_output_tokens") or 0)
    others = {name: body[name] for name in ("instructions", "tools") if body.get(name)}
    first = _first_turn(items)
    turns = _turns(items[first:])
    sizes = [prompt_estimate({"input": turn}) for turn in turns]
    size = prompt_estimate({**others, "input": items[:first]}) + sum(sizes)
    dropped = 0
    while size > room and dropped < len(turns) - 1:
        size -= sizes[dropped]
        dropped += 1
    if not dropped:
        return items
    kept = [item for turn in turns[dropped:] for item in turn]
    gone = _calls_in(item for turn in turns[:dropped] for item in turn) - _calls_in(kept)
    return items[:first] + [item for item in kept if not _is_result_of(item, gone)]


def _first_turn(items: list[Item]) -> int:
    for place, item in enumerate(items):
        if item.get("role") not in _INSTRUCTING:
            return place
    return len(items)


def _turns(items: list[Item]) -> list[list[Item]]:
    turns: list[list[Item]] = []
    for item in items:
        if not turns or item.get("role") == "user":
            turns.append([])
        turns[-1].append(item)
    return turns


def _calls_in(items: Iterable[Item]) -> set[str]:
    ids = (item.get("call_id") for item in items if item.get("type") in _CALLS)
    return {id for id in ids if isinstance(id, str)}


def _is_result_of(item: Item, calls: set[str]) -> bool:
    id = item.get("call_id")
    return item.get("type") in _RESULTS and isinstance(id, str) and id in calls
