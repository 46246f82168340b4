"""`truncation: auto`: a conversation that is too long for its model loses its oldest turns. Pure.

A turn is what one message of the user begins: answers, calls and their results with it. The instructions at the front stay, and so does the
last turn, whatever its size. How many tokens a text has is an estimate.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dwctl.protocols.openresponses.items import Item
from dwctl.protocols.usage import prompt_estimate

_INSTRUCTING = frozenset(["system", "developer"])
_RESULTS = frozenset(["function_call_output", "custom_tool_call_output"])


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
    gone = {item.get("call_id") for turn in turns[:dropped] for item in turn if _is_call(item)}
    kept = [item for turn in turns[dropped:] for item in turn]
    gone -= {item.get("call_id") for item in kept if _is_call(item)}
    return items[:first] + [i for i in kept if not (_is_result(i) and i.get("call_id") in gone)]


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


def _is_call(item: Item) -> bool:
    return item.get("type") in ("function_call", "custom_tool_call")


def _is_result(item: Item) -> bool:
    return item.get("type") in _RESULTS
