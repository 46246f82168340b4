"""Complete answers of chat/completions, completions and embeddings: what the caller gets to see of an upstream's 2xx body.

    non-strict      as it came, but for the identifier of a chat completion
    sanitised       chat only: the members that OpenAI documents, the alias as model
    strict          the alias as model, unknown top-level members dropped, missing bookkeeping filled in

What the upstream sent stays as it is spelled, nulls too.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import orjson

from dwctl.protocols.chat import Endpoint
from dwctl.protocols.errors import BadUpstreamBody
from dwctl.protocols.splice import replace_members
from dwctl.protocols.usage import TokenUsage, usage_of

STRICT_MEMBERS: Mapping[Endpoint, frozenset[str]] = {
    Endpoint.CHAT: frozenset(
        [
            "id",
            "object",
            "created",
            "model",
            "choices",
            "usage",
            "system_fingerprint",
            "service_tier",
            "metadata",
            "moderation",
            "obfuscation",
        ]
    ),
    Endpoint.COMPLETIONS: frozenset(
        ["id", "object", "created", "model", "choices", "usage", "system_fingerprint"]
    ),
    Endpoint.EMBEDDINGS: frozenset(["object", "data", "model", "usage"]),
}
_ID_PREFIX = {Endpoint.CHAT: "chatcmpl-", Endpoint.COMPLETIONS: "cmpl-"}
_OBJECT = {Endpoint.CHAT: "chat.completion", Endpoint.COMPLETIONS: "text_completion"}

_SANE_MEMBERS = frozenset(
    ["id", "object", "created", "model", "choices", "usage", "system_fingerprint", "service_tier"]
)
_SANE_CHOICE = frozenset(["index", "message", "delta", "finish_reason", "logprobs"])
_SANE_USAGE = frozenset(["prompt_tokens", "completion_tokens", "total_tokens"])
_SANE_DETAILS = {
    "prompt_tokens_details": frozenset(["cached_tokens", "audio_tokens"]),
    "completion_tokens_details": frozenset(
        [
            "reasoning_tokens",
            "audio_tokens",
            "accepted_prediction_tokens",
            "rejected_prediction_tokens",
        ]
    ),
}


@dataclass(frozen=True, slots=True)
class Finished:
    """A complete answer, ready for the caller."""

    body: bytes
    usage: TokenUsage | None
    content: dict[str, Any] | None  # `body` as parsed; None where it is not a JSON object


def finish_body(
    raw: bytes,
    *,
    endpoint: Endpoint,
    response_id: str | None,
    alias: str,
    strict: bool,
    sanitise: bool = False,
) -> Finished:
    """What the caller gets for an upstream's complete 2xx body.

    response_id: the identifier that a chat completion (or a passed-through response) gets; None leaves the upstream's.
    Raises BadUpstreamBody where strict or sanitised treatment cannot read the body; otherwise anything is passed on.
    """
    content = parse_object(raw)
    if sanitise and endpoint is Endpoint.CHAT:
        if content is None:
            raise BadUpstreamBody("not a JSON object")
        content = sanitised(content, alias)
        raw = orjson.dumps(content)
    if strict and endpoint is not Endpoint.RESPONSES:
        changes = _strict_changes(endpoint, _promised(endpoint, content), response_id, alias)
    elif content is not None and response_id and "id" in content and _has_our_id(endpoint):
        changes = {"id": response_id}
    else:
        changes = {}
    if content is not None and changes:
        raw = replace_members(raw, _as_json(changes), parsed=content)
        content = _changed(content, changes)
    return Finished(raw, usage_of(content), content)


def parse_object(raw: bytes) -> dict[str, Any] | None:
    """The JSON object that `raw` is; None for everything else."""
    try:
        content = orjson.loads(raw)
    except orjson.JSONDecodeError:
        return None
    return content if isinstance(content, dict) else None


def new_id(endpoint: Endpoint) -> str:
    return f"{_ID_PREFIX[endpoint]}{uuid4().hex}"


def sanitised(content: Mapping[str, Any], alias: str) -> dict[str, Any]:
    """A chat completion, or a chunk of one, with the members that OpenAI documents and no others."""
    kept = {name: value for name, value in content.items() if name in _SANE_MEMBERS}
    kept.setdefault("id", new_id(Endpoint.CHAT))
    kept.setdefault("object", "chat.completion")
    kept.setdefault("created", 0)
    kept["model"] = alias
    if isinstance(kept.get("choices"), list):
        kept["choices"] = [_only(choice, _SANE_CHOICE) for choice in kept["choices"]]
    if isinstance(kept.get("usage"), dict):
        kept["usage"] = sanitised_usage(kept["usage"])
    return kept


def sanitised_usage(usage: Mapping[str, Any]) -> dict[str, Any]:
    kept = {}
    for name, value in usage.items():
        if name in _SANE_USAGE:
            kept[name] = value
        elif name in _SANE_DETAILS:
            kept[name] = _only(value, _SANE_DETAILS[name])
    return kept


def _only(value: Any, names: frozenset[str]) -> Any:
    if not isinstance(value, dict):
        return value
    return {name: member for name, member in value.items() if name in names}


def _has_our_id(endpoint: Endpoint) -> bool:
    return endpoint in (Endpoint.CHAT, Endpoint.RESPONSES)


def _promised(endpoint: Endpoint, content: dict[str, Any] | None) -> dict[str, Any]:
    """`content`, where it is what the endpoint promises."""
    results = "data" if endpoint is Endpoint.EMBEDDINGS else "choices"
    found = content.get(results) if content else None
    if (
        content is None
        or not isinstance(found, list)
        or not all(isinstance(r, dict) for r in found)
    ):
        raise BadUpstreamBody(f"no object with a list of {results}")
    return content


def _strict_changes(
    endpoint: Endpoint, content: Mapping[str, Any], response_id: str | None, alias: str
) -> dict[str, Any]:
    """Top-level members to set, or to drop where the value is the marker `_DROPPED`."""
    known = STRICT_MEMBERS[endpoint]
    changes: dict[str, Any] = {name: _DROPPED for name in content if name not in known}
    if content.get("model") != alias:
        changes["model"] = alias
    if endpoint is Endpoint.EMBEDDINGS:
        return changes
    if response_id and endpoint is Endpoint.CHAT:
        changes["id"] = response_id
    elif content.get("id") is None:
        changes["id"] = new_id(endpoint)
    if content.get("object") is None:
        changes["object"] = _OBJECT[endpoint]
    if content.get("created") is None:
        changes["created"] = 0
    choices = content["choices"]
    filled = [_filled_choice(choice, index) for index, choice in enumerate(choices)]
    if filled != choices:
        changes["choices"] = filled
    return changes


def _filled_choice(choice: dict[str, Any], index: int) -> dict[str, Any]:
    message = choice.get("message")
    if isinstance(message, dict) and message.get("role") is None:
        choice = {**choice, "message": {**message, "role": "assistant"}}
    if choice.get("index") is None:
        choice = {**choice, "index": index}
    return choice


_DROPPED = object()


def _as_json(changes: Mapping[str, Any]) -> dict[str, bytes | None]:
    return {
        name: None if value is _DROPPED else orjson.dumps(value) for name, value in changes.items()
    }


def _changed(content: dict[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    return {name: v for name, v in {**content, **changes}.items() if v is not _DROPPED}
