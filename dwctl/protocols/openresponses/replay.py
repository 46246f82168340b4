"""A finished Response as the stream that it would have been: for queued calls and for upstream servers that do not stream.

Each text comes in one delta. Items of kinds that have no events of their own are added and done; of a call that broke off, nothing is
said to be done.
"""

from __future__ import annotations

from collections.abc import Iterator

from dwctl.protocols.numbered import later
from dwctl.protocols.openresponses import items
from dwctl.protocols.openresponses.events import (
    ARGUMENTS_DELTA,
    INPUT_DELTA,
    REASONING_DELTA,
    REFUSAL_DELTA,
    SUMMARY_DELTA,
    TEXT_DELTA,
    Events,
    Place,
    delta_prefix,
)
from dwctl.protocols.openresponses.items import Item
from dwctl.protocols.openresponses.resource import Response


def replay(response: Response, *, queued: bool = False, after: int = -1) -> bytes:
    """The frames of a finished Response, `[DONE]` included.

    queued: it waited for a worker, which its first events say. after: the number of the last event that was sent already; what says how the
        response ended is sent in any case.
    """
    events = Events()
    begun = events.began_queued(response) if queued else events.created(response)
    frames = [begun, events.in_progress(response)]
    for index, item in enumerate(_objects(response["output"])):
        frames += _item(events, index, item)
    text = b"".join(frames)
    if after >= 0:
        text = later(text, before=-1, after=after)
        events.sequence_number = max(events.sequence_number, after + 1)
    return text + events.ended(response)


def _item(events: Events, index: int, item: Item) -> Iterator[bytes]:
    kind = item.get("type")
    place = {"item_id": item.get("id"), "output_index": index}
    if kind == "message":
        yield events.item_added(index, {**item, "status": "in_progress", "content": []})
        for content_index, part in enumerate(_objects(item.get("content"))):
            yield from _part(events, {**place, "content_index": content_index}, part)
    elif kind == "reasoning":
        yield events.item_added(
            index, {**_without(item, "content"), "status": "in_progress", "summary": []}
        )
        for summary_index, part in enumerate(_objects(item.get("summary"))):
            yield from _summary(events, {**place, "summary_index": summary_index}, part)
        for content_index, part in enumerate(_objects(item.get("content"))):
            yield from _part(events, {**place, "content_index": content_index}, part)
    elif kind == "function_call":
        yield events.item_added(index, {**item, "status": "in_progress", "arguments": ""})
        arguments = _text(item.get("arguments"))
        if arguments:
            yield events.delta(delta_prefix(ARGUMENTS_DELTA, place), arguments)
        if items.is_cut_call(item):
            return
        yield events.arguments_done(place, _text(item.get("name")), arguments)
    elif kind == "custom_tool_call":
        yield events.item_added(index, {**item, "status": "in_progress", "input": ""})
        input = _text(item.get("input"))
        if input:
            yield events.delta(delta_prefix(INPUT_DELTA, place), input)
        if items.is_cut_call(item):
            return
        yield events.input_done(place, input)
    else:
        yield events.item_added(index, item)
    yield events.item_done(index, item)


def _part(events: Events, place: Place, part: Item) -> Iterator[bytes]:
    kind = part.get("type")
    if kind == "output_text":
        text, logprobs = _text(part.get("text")), _objects(part.get("logprobs"))
        cited = _objects(part.get("annotations"))
        yield events.part_added(place, items.output_text(""))
        if text:
            yield events.text_delta(delta_prefix(TEXT_DELTA, place), text, logprobs)
        for number, annotation in enumerate(cited):
            yield events.annotation_added(place, number, annotation)
        part = {**part, **items.output_text(text, cited, logprobs)}
        yield events.text_done(place, part)
    elif kind == "refusal":
        text = _text(part.get("refusal"))
        yield events.part_added(place, items.refusal(""))
        if text:
            yield events.delta(delta_prefix(REFUSAL_DELTA, place), text)
        yield events.refusal_done(place, text)
    elif kind == "reasoning_text":
        text = _text(part.get("text"))
        yield events.part_added(place, items.reasoning_text(""))
        if text:
            yield events.delta(delta_prefix(REASONING_DELTA, place), text)
        yield events.reasoning_done(place, text)
        return
    else:
        yield events.part_added(place, part)
    yield events.part_done(place, part)


def _summary(events: Events, place: Place, part: Item) -> Iterator[bytes]:
    text = _text(part.get("text"))
    yield events.summary_added(place)
    if text:
        yield events.delta(delta_prefix(SUMMARY_DELTA, place), text)
    yield events.summary_done(place, text)


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _objects(values: object) -> list[Item]:
    """Those of a list's elements that are objects: an upstream may have sent anything."""
    return [v for v in values if isinstance(v, dict)] if isinstance(values, list) else []


def _without(item: Item, *names: str) -> Item:
    return {name: value for name, value in item.items() if name not in names}
