"""What chat/completions, completions and embeddings differ in on the wire, as data: the code that treats them has no branch of its own."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Form:
    """The form of one protocol's answers.

    results: the member that holds them. members: all top-level members that strict mode lets out.
    object, chunk_object: the value of `object` in a complete answer, and in a stream's chunk.
    has_messages: a choice holds a `message` (or `delta`), not a `text`.
    has_our_id: the answer carries the request's own identifier.
    results_stay_closed: they are passed on without being read: numbers by the million.
    reports_usage_on_request: a stream tells its usage only where `stream_options` asks for it.
    """

    results: str
    members: frozenset[str]
    object: str = ""
    chunk_object: str = ""
    id_prefix: str = ""
    has_messages: bool = False
    has_our_id: bool = False
    results_stay_closed: bool = False
    reports_usage_on_request: bool = True


_HEAD = ("id", "object", "created", "model", "choices", "usage", "system_fingerprint")

CHAT = Form(
    results="choices",
    members=frozenset([*_HEAD, "service_tier", "metadata", "moderation", "obfuscation"]),
    object="chat.completion",
    chunk_object="chat.completion.chunk",
    id_prefix="chatcmpl-",
    has_messages=True,
    has_our_id=True,
)
COMPLETIONS = Form(
    results="choices",
    members=frozenset(_HEAD),
    object="text_completion",
    chunk_object="text_completion",
    id_prefix="cmpl-",
)
EMBEDDINGS = Form(
    results="data",
    members=frozenset(["object", "data", "model", "usage"]),
    results_stay_closed=True,
    reports_usage_on_request=False,
)
