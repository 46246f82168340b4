"""Complete answers of chat/completions, completions and embeddings: what the caller gets to see of an upstream's 2xx body.

    non-strict      as it came, but for the identifier of a chat completion
    sanitised       chat only: the members that OpenAI documents, the alias as model
    strict          the alias as model, unknown top-level members dropped, missing bookkeeping filled in

What the upstream sent stays as it is spelled, nulls too.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from uuid import uuid4

import orjson

from dwctl.protocols import forms
from dwctl.protocols.errors import BadUpstreamBody
from dwctl.protocols.forms import Form
from dwctl.protocols.json_objects import is_list_of_objects, open_object, parse_object
from dwctl.protocols.splice import replace_members

FAILED = "error"
"""The `finish_reason` of servers that break off."""

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


def finish_body(
    raw: bytes,
    content: dict[str, Any] | None,
    *,
    form: Form,
    response_id: str | None,
    alias: str,
    strict: bool,
    sanitise: bool = False,
    service_tier: str | None = None,
) -> bytes:
    """What the caller gets for an upstream's complete 2xx body.

    content: `raw` as `parse_answer` reads it.
    response_id: the identifier that a chat completion gets; None leaves the upstream's.
    service_tier: the tier that a chat completion names; None leaves the upstream's.
    Raises BadUpstreamBody where strict or sanitised treatment cannot read the body; otherwise anything is passed on.
    """
    if sanitise and form.has_messages:
        if content is None:
            raise BadUpstreamBody("not a JSON object")
        content = sanitised(content, alias)
        raw = dump(content)
    if strict:
        changes = _strict_changes(form, _promised(form, content), response_id, alias)
    elif content is not None and response_id and "id" in content and form.has_our_id:
        changes = {"id": response_id}
    else:
        changes = {}
    if service_tier and form.has_messages:
        changes["service_tier"] = service_tier
    if content is None or not changes:
        return raw
    return replace_members(raw, _as_json(changes))


def parse_answer(raw: bytes, form: Form) -> dict[str, Any] | None:
    """An upstream's body as far as it has to be read; None where it is no JSON object."""
    return open_object(raw, form.results) if form.results_stay_closed else parse_object(raw)


def error_in(content: Mapping[str, Any], *, named: bool = False) -> object:
    """The error that an object of an upstream's has as a member, or is itself; None where there is none.

    Some servers send an error flat: `{"object": "error", "message": ...}`, or under the event name `error` (`named`).
    """
    if content.get("error"):
        return content["error"]
    is_one = named or "error" in (content.get("object"), content.get("type"))
    return content if is_one and not content.get("choices") else None


def failure_in(content: Mapping[str, Any]) -> object:
    """The error of an answer that is one only in form: see `error_in`, or as the reason of a choice. None where there is none."""
    if (error := error_in(content)) is not None:
        return error
    choices = content.get("choices")
    for choice in choices if isinstance(choices, list) else ():
        if isinstance(choice, dict) and choice.get("finish_reason") == FAILED:
            return choice.get("error") or {
                "message": "The upstream provider failed while it answered.",
                "type": "api_error",
                "param": None,
                "code": "upstream_error",
            }
    return None


def dump(value: object) -> bytes:
    """A JSON value that came from an upstream. Raises BadUpstreamBody where it cannot be written again."""
    try:
        return orjson.dumps(value)
    except TypeError as error:
        raise BadUpstreamBody(f"it cannot be written again: {error}") from None


def new_id(form: Form) -> str:
    return f"{form.id_prefix}{uuid4().hex}"


def sanitised(content: Mapping[str, Any], alias: str) -> dict[str, Any]:
    """A chat completion, or a chunk of one, with the members that OpenAI documents and no others."""
    kept = {name: value for name, value in content.items() if name in _SANE_MEMBERS}
    kept.setdefault("id", new_id(forms.CHAT))
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


def _promised(form: Form, content: dict[str, Any] | None) -> dict[str, Any]:
    """`content`, where it is what the protocol promises."""
    if content is None or not is_list_of_objects(content.get(form.results)):
        raise BadUpstreamBody(f"no object with a list of {form.results}")
    return content


def _strict_changes(
    form: Form, content: Mapping[str, Any], response_id: str | None, alias: str
) -> dict[str, Any]:
    """Top-level members to set, or to drop where the value is the marker `_DROPPED`."""
    changes: dict[str, Any] = {name: _DROPPED for name in content if name not in form.members}
    if content.get("model") != alias:
        changes["model"] = alias
    if not form.id_prefix:
        return changes
    if response_id and form.has_our_id:
        changes["id"] = response_id
    elif content.get("id") is None:
        changes["id"] = new_id(form)
    if content.get("object") is None:
        changes["object"] = form.object
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
    return {name: None if value is _DROPPED else dump(value) for name, value in changes.items()}
