"""Complete answers of chat/completions, completions and embeddings: what the caller gets to see of an upstream's 2xx body.

    non-strict      as it came, but for the identifier of a chat completion, and bookkeeping that is missing
    sanitised       chat only: the members that OpenAI documents, the alias as model
    strict          the alias as model, unknown top-level members dropped, missing bookkeeping filled in

What the upstream sent stays as it is spelled, nulls too.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any
from uuid import uuid4

import msgspec
import orjson

from dwctl.protocols import forms, vectors
from dwctl.protocols.dialects import put_answer_right
from dwctl.protocols.errors import BadUpstreamBody
from dwctl.protocols.failures import word
from dwctl.protocols.forms import Form
from dwctl.protocols.json_objects import is_list_of_objects, open_object, parse_object
from dwctl.protocols.odd_json import mended
from dwctl.protocols.parts import TooMuch
from dwctl.protocols.splice import open_members, replace_members, write_members
from dwctl.web.envelope import error_object

_BOM = b"\xef\xbb\xbf"
_NOTHING_ASKED: Mapping[str, Any] = MappingProxyType({})
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
    elif content is not None and form.id_prefix and type(content.get("choices")) is list:
        changes = _bookkeeping(form, content, response_id)
    elif content is not None and response_id and "id" in content and form.has_our_id:
        changes = {"id": response_id}
    else:
        changes = {}
    if service_tier and form.has_messages:
        changes["service_tier"] = service_tier
    if content is None or not changes:
        return raw
    return replace_members(raw, _as_json(changes))


def parse_answer(
    raw: bytes, form: Form, response_id: str | None, request: Mapping[str, Any] = _NOTHING_ASKED
) -> tuple[bytes, dict[str, Any] | None]:
    """An upstream's body as it may go on, put right (see `dialects`, `vectors`), and as far as it has to be read; None where it is no JSON object.

    response_id: see `dialects.Chunks`. Raises BadUpstreamBody for one that has more calls than anyone asks for.
    """
    if form.results_stay_closed:
        return _with_vectors(raw.removeprefix(_BOM), form, request.get("encoding_format"))
    raw, content = read_body(raw)
    try:
        if content is not None and put_answer_right(content, form, response_id):
            raw = _rewritten(raw, content)
    except TooMuch as error:
        raise BadUpstreamBody(str(error)) from None
    return raw, content


def _with_vectors(raw: bytes, form: Form, format: object) -> tuple[bytes, dict[str, Any] | None]:
    content = open_object(raw, form.results)
    results = content.get(form.results) if content is not None else None
    if content is not None and isinstance(results, msgspec.Raw):
        changed = vectors.as_asked(memoryview(results), format)
        if changed is not None:
            content[form.results] = msgspec.Raw(changed)
            raw = replace_members(raw, {form.results: changed})
    return raw, content


def read_body(raw: bytes) -> tuple[bytes, dict[str, Any] | None]:
    """A body that everybody reads (see `odd_json`), and the object that it is; None where it is none."""
    content = parse_object(raw)
    if content is None and (readable := mended(raw)) is not None:
        return readable, parse_object(readable)
    return raw, content


def _rewritten(raw: bytes, content: Mapping[str, Any]) -> bytes:
    """`raw` with the members that were put right; all others as they are spelled."""
    known = open_members(raw)
    changes: dict[str, bytes | None] = {name: None for name in known if name not in content}
    for name in ("choices", "usage", "object", "created"):
        if name in content:
            changes[name] = dump(content[name])
    return write_members(known, changes)


def check_whole(raw: bytes, content: Mapping[str, Any] | None, form: Form) -> None:
    """Raise BadUpstreamBody where an answer is cut short, or has no results: whoever asked got none.

    One that is nested too deep for us is whole, and its caller may read it.
    """
    if content is None:
        try:
            content = open_members(raw)
        except ValueError:
            raise BadUpstreamBody("not a whole JSON object") from None
    results = content.get(form.results)
    if isinstance(results, msgspec.Raw):  # left closed
        results = bytes(memoryview(results)[:1]) == b"["
    if not results:
        raise BadUpstreamBody(f"no {form.results}")


def error_in(content: Mapping[str, Any], *, named: bool = False) -> object:
    """The error that an object of an upstream's has as a member, or is itself; None where there is none.

    Some servers send an error flat: `{"object": "error", "message": ...}`, or under the event name `error` (`named`), or in the form
    of their own API, with status 200.
    """
    if error := content.get("error"):
        return content if isinstance(error, str) else error  # what it is about may stand beside it
    if content.get("choices"):
        return None
    if named or "error" in (content.get("object"), content.get("type"), content.get("status")):
        return content
    if content.keys() & _RESULTS:
        return _minimax(content)
    says = content.keys() & _SAID
    is_one = content.get("success") is False or (says and content.keys() <= _DETAIL)
    code = content.get("code", content.get("error_code", content.get("status_code")))
    has_code = code is not None and str(code).lower() not in _FINE
    return content if is_one or (has_code and says) else _minimax(content)


_RESULTS = frozenset(["data", "output", "usage", "choices", "message", "response"])
_DETAIL = frozenset(["detail", "message", "error_type", "code", "msg"])
_SAID = frozenset(["message", "msg", "error_msg", "detail", "errorMessage"])
_FINE = frozenset(["", "0", "200", "ok", "success", "false"])


def _minimax(content: Mapping[str, Any]) -> object:
    """MiniMax says how it went in a member of its own."""
    said = content.get("base_resp")
    if isinstance(said, dict) and str(said.get("status_code", 0)) not in _FINE:
        return {"message": said.get("status_msg"), "code": said["status_code"]}
    return None


def failure_in(content: Mapping[str, Any]) -> object:
    """The error of an answer that is one only in form: see `error_in`, or as the reason of a choice. None where there is none."""
    if (error := error_in(content)) is not None:
        return error
    choices = content.get("choices")
    for choice in choices if isinstance(choices, list) else ():
        if isinstance(choice, dict) and choice.get("finish_reason") == FAILED:
            return choice.get("error") or BROKE_OFF
    return None


BROKE_OFF = error_object(
    "The upstream provider failed while it answered.", "api_error", "upstream_error"
)
"""What is said of a choice that has failed without a word."""


_STATUSES = frozenset(["completed", "incomplete", "failed", "cancelled"])


def finish_reason_of(answer: Mapping[str, Any] | None) -> str | None:
    """Why a model stopped, in the words of the answer's protocol: of its first choice, or of a Response; None where it does not say."""
    if answer is None:
        return None
    choices, details = answer.get("choices"), answer.get("incomplete_details")
    if isinstance(choices, list) and choices and isinstance(choices[0], dict):
        reason = choices[0].get("finish_reason")
    elif isinstance(details, dict):
        reason = details.get("reason")
    else:
        reason = answer.get("status")
        reason = reason if isinstance(reason, str) and reason in _STATUSES else None
    return word(reason)


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
    changes |= _bookkeeping(form, content, response_id)
    choices = content["choices"]
    filled = [_filled_choice(choice, index) for index, choice in enumerate(choices)]
    if filled != choices:
        changes["choices"] = filled
    return changes


def _bookkeeping(form: Form, content: Mapping[str, Any], response_id: str | None) -> dict[str, Any]:
    """Our identifier, and what a completion lacks that clients insist on (pydantic/pydantic-ai#2723)."""
    changes: dict[str, Any] = {}
    if response_id and form.has_our_id:
        changes["id"] = response_id
    elif content.get("id") is None:
        changes["id"] = new_id(form)
    if content.get("object") is None:
        changes["object"] = form.object
    if content.get("created") is None:
        changes["created"] = 0
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
