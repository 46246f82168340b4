"""The frames of a Response's stream: one method for each kind of event, and one counter for all of them.

Deltas make up nearly all of a stream. Their frames are put together from a prefix made once for each item (`delta_prefix`), the
JSON of the text and the number; everything else is dumped whole.
"""

from __future__ import annotations

from typing import Any

import orjson

from dwctl.protocols.numbered import DONE
from dwctl.protocols.openresponses.items import Item
from dwctl.protocols.openresponses.resource import Response, in_progress

TEXT_DELTA = "response.output_text.delta"
REFUSAL_DELTA = "response.refusal.delta"
REASONING_DELTA = "response.reasoning_text.delta"  # as clients read it; the Open Responses schema says `reasoning.delta`
SUMMARY_DELTA = "response.reasoning_summary_text.delta"
ARGUMENTS_DELTA = "response.function_call_arguments.delta"
INPUT_DELTA = "response.custom_tool_call_input.delta"

_NO_LOGPROBS = b',"logprobs":[],"sequence_number":%d}\n\n'
_NUMBER = b',"sequence_number":%d}\n\n'
_ENDINGS = {"completed": "response.completed", "incomplete": "response.incomplete"}

Place = dict[str, Any]  # item_id, output_index and, where there are parts, the part's index


class Events:
    """Writes one stream's events."""

    def __init__(self, sequence_number: int = 0) -> None:
        self.sequence_number = sequence_number  # of the next event

    def event(self, type: str, **members: Any) -> bytes:
        number = self.sequence_number
        self.sequence_number = number + 1
        data = orjson.dumps({"type": type, **members, "sequence_number": number})
        return b"event: %b\ndata: %b\n\n" % (type.encode(), data)

    def delta(self, prefix: bytes, text: str) -> bytes:
        number = self.sequence_number
        self.sequence_number = number + 1
        return prefix + orjson.dumps(text) + _NUMBER % number

    def text_delta(self, prefix: bytes, text: str, logprobs: list[Item] | None = None) -> bytes:
        number = self.sequence_number
        self.sequence_number = number + 1
        if not logprobs:
            return prefix + orjson.dumps(text) + _NO_LOGPROBS % number
        given = orjson.dumps(logprobs)
        return prefix + orjson.dumps(text) + b',"logprobs":' + given + _NUMBER % number

    # --- the response

    def created(self, response: Response, status: str = "in_progress") -> bytes:
        return self.event("response.created", response=in_progress(response, status))

    def queued(self, response: Response) -> bytes:
        return self.event("response.queued", response=in_progress(response, "queued"))

    def in_progress(self, response: Response) -> bytes:
        return self.event("response.in_progress", response=in_progress(response))

    def began_queued(self, response: Response) -> bytes:
        """How the stream of a response begins that waits for a worker."""
        return self.created(response, "queued") + self.queued(response)

    def standing(self, response: Response) -> bytes:
        """The response as it stands, while it is not over."""
        return self.event(f"response.{response['status']}", response=response)

    def ended(self, response: Response) -> bytes:
        """The one event that says how it ended; there is none for a response that was cancelled but `failed`."""
        status = response.get("status")
        ending = _ENDINGS.get(status) if isinstance(status, str) else None
        type = ending or "response.failed"
        return self.event(type, response=response) + DONE

    # --- items and their parts

    def item_added(self, index: int, item: Item) -> bytes:
        return self.event("response.output_item.added", output_index=index, item=item)

    def item_done(self, index: int, item: Item) -> bytes:
        return self.event("response.output_item.done", output_index=index, item=item)

    def part_added(self, place: Place, part: Item) -> bytes:
        return self.event("response.content_part.added", **place, part=part)

    def part_done(self, place: Place, part: Item) -> bytes:
        return self.event("response.content_part.done", **place, part=part)

    def text_done(self, place: Place, part: Item) -> bytes:
        given = {"text": part["text"], "logprobs": part.get("logprobs") or []}
        return self.event("response.output_text.done", **place, **given)

    def refusal_done(self, place: Place, text: str) -> bytes:
        return self.event("response.refusal.done", **place, refusal=text)

    def annotation_added(self, place: Place, index: int, annotation: Item) -> bytes:
        type = "response.output_text.annotation.added"
        return self.event(type, **place, annotation_index=index, annotation=annotation)

    def summary_added(self, place: Place) -> bytes:
        part = {"type": "summary_text", "text": ""}
        return self.event("response.reasoning_summary_part.added", **place, part=part)

    def summary_done(self, place: Place, text: str) -> bytes:
        part = {"type": "summary_text", "text": text}
        return self.event("response.reasoning_summary_text.done", **place, text=text) + self.event(
            "response.reasoning_summary_part.done", **place, part=part
        )

    def reasoning_done(self, place: Place, text: str) -> bytes:
        part = {"type": "reasoning_text", "text": text}
        return self.event("response.reasoning_text.done", **place, text=text) + self.part_done(
            place, part
        )

    def arguments_done(self, place: Place, name: str, arguments: str) -> bytes:
        type = "response.function_call_arguments.done"
        return self.event(type, **place, name=name, arguments=arguments)

    def input_done(self, place: Place, input: str) -> bytes:
        return self.event("response.custom_tool_call_input.done", **place, input=input)


def delta_prefix(type: str, place: Place) -> bytes:
    """The beginning of all delta events of one kind at one place, up to the text."""
    members = orjson.dumps({"type": type, **place})
    return b"event: %b\ndata: %b" % (type.encode(), members[:-1] + b',"delta":')
