"""What a caller may see of an upstream's error, decided in one place: a status, an event in a stream, a Response's `error`, a line.

    trusted                     its words, its status
    open mode, untrusted        its words, unless it refused *our* credential
    strict mode, untrusted      a neutral text for the status
    sanitise                    one of two neutral texts

Whatever the mode: 402, 407 and redirections are trouble between us and the upstream, so they are 502; and a context that is too
long keeps the code `context_length_exceeded`, because clients shorten their conversation by it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec
import orjson

from dwctl.protocols.json_objects import parse_object
from dwctl.protocols.usage import count
from dwctl.web.envelope import error_object, type_of, wrap

_QUOTED_BYTES = 4096
_CONTEXT = "context_length_exceeded"

_STRICT = {
    400: ("invalid_request_error", "Invalid request"),
    401: ("authentication_error", "Authentication failed"),
    403: ("permission_error", "Permission denied"),
    404: ("not_found_error", "Not found"),
    429: ("rate_limit_error", "Rate limit exceeded"),
    500: ("api_error", "Internal server error"),
    502: ("api_error", "Bad gateway"),
    503: ("api_error", "Service unavailable"),
}
_OTHER = ("api_error", "An error occurred")
_BAD_GATEWAY = 502
_UNKNOWN = 500

# In `code`, `type` or `status`, lower case; OpenAI, Anthropic, Google, Azure, AWS, vLLM, Mistral, Cohere and OpenRouter.
_STATUS_OF_NAME = {
    401: ("invalid_api_key", "incorrect_api_key", "authentication_error", "authenticationerror", "unauthenticated",
          "unauthorized", "unauthorizederror", "invalid_authentication", "invalid_token", "unrecognizedclientexception",
          "missing_api_key", "expired_api_key", "api_key_invalid"),
    402: ("insufficient_quota", "insufficient_credits", "payment_required", "billing_error", "billing_hard_limit_reached",
          "insufficient_balance", "billing_not_active"),
    403: ("permission_error", "permission_denied", "permissiondeniederror", "permissiondenied", "forbidden",
          "accessdeniedexception", "access_denied", "access_terminated"),
    404: ("not_found_error", "notfounderror", "not_found", "model_not_found"),
    429: ("rate_limit_error", "rate_limit_exceeded", "ratelimiterror", "too_many_requests", "resource_exhausted",
          "throttlingexception", "requests", "tokens"),
    400: ("invalid_request_error", "badrequesterror", "invalid_argument", "bad_request", "validation", _CONTEXT,
          "exceed_context_size_error", "validationexception"),
    503: ("overloaded_error", "overloaded", "unavailable", "service_unavailable", "serviceunavailableerror"),
}  # fmt: skip
_NAMES = {name: status for status, names in _STATUS_OF_NAME.items() for name in names}

# A status or a name may be missing, or wrong (Google and xAI refuse a key with 400).
_REFUSES_KEY = re.compile(
    r"\b(?:incorrect|invalid|missing|wrong|expired|bad|revoked|no)\b.{0,24}\b(?:api|access|auth\w*)[ _-]?(?:key|token)"
    r"|\b(?:api|access)[ _-]?(?:key|token)\b.{0,40}\b(?:not valid|invalid|incorrect|expired|revoked|missing|disabled)\b"
    r"|\bunauthori[sz]ed\b|\bauthentication (?:failed|fails|error)\b",
    re.IGNORECASE | re.DOTALL,
)
_TOO_LONG = re.compile(
    r"context[ _-]?(?:length|size|window|overflow)|maximum (?:context|prompt|input) length|exceed_context_size"
    r"|prompt is too long|input (?:is )?too long|too many input tokens"
    r"|`?inputs`? (?:tokens|must have less than)|max_input_length|max_total_tokens"
    r"|(?:prompt|input) (?:length|tokens?).{0,80}(?:exceed|larger than|longer than|greater than)",
    re.IGNORECASE | re.DOTALL,
)
_TOO_LONG_STATUSES = frozenset({400, 413, 422})
_READ_CHARS = 2000  # of a message: a sentence says it early, and a regular expression should not read megabytes


class Disclosure(msgspec.Struct, frozen=True):
    """How far one call's upstream is quoted. strict: the gateway's mode. trusted, sanitise: the model's and the endpoint's settings."""

    strict: bool = False
    trusted: bool = False
    sanitise: bool = False

    @property
    def hides_words(self) -> bool:
        """No text of the upstream's reaches the caller."""
        return self.sanitise or (self.strict and not self.trusted)


@dataclass(frozen=True, slots=True)
class Disclosed:
    """What of one error is shown.

    status: what the caller gets, or would get if the answer had not begun. error: the object to show.
    as_it_came: the upstream's own bytes, and its headers, may go on instead. quotes: its headers may, beside the object.
    """

    status: int
    error: dict[str, Any]
    as_it_came: bool = False
    quotes: bool = False

    @property
    def body(self) -> bytes:
        """The object as a body."""
        return wrap(self.error)

    def headers(self, given: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
        """Which of the upstream's headers (already only those that a caller may see) go with it."""
        if self.as_it_came or self.quotes:
            return list(given)
        return [(name, value) for name, value in given if name.lower() == "retry-after"]

    @property
    def response_error(self) -> dict[str, str]:
        """The same for a Response object's `error`: `code`, `message` and `type`, texts all of them."""
        return {
            "code": _text(self.error.get("code")) or f"http_{self.status}",
            "message": _text(self.error.get("message")) or "The upstream provider failed.",
            "type": _text(self.error.get("type")) or "server_error",
        }


def disclose(disclosure: Disclosure, status: int | None, body: object) -> Disclosed:
    """What a caller sees of an error.

    status: the HTTP status that it came with; None for an error inside a stream or an object, which may name one itself.
    body: the answer's bytes, or the error as it was parsed: an object, an object with an `error` in it, or a text.
    """
    given = _Given.read(body)
    own = given.status if status is None else status
    if given.is_too_long(own, is_guess=status is None and given.status == _UNKNOWN):
        return _too_long(disclosure, given)
    seen = _seen_status(disclosure, own, given)
    if disclosure.sanitise:
        return Disclosed(seen, sanitised(seen))
    if disclosure.hides_words or seen != own:
        return Disclosed(seen, neutral(seen))
    if given.is_whole:
        return Disclosed(seen, given.error or {}, as_it_came=True)
    return Disclosed(seen, given.as_object(seen), quotes=given.error is not None)


def neutral(status: int) -> dict[str, Any]:
    """The error object that stands for a status and says nothing else."""
    type_, message = _STRICT.get(status, _OTHER)
    return error_object(message, type_, f"http_{status}")


def sanitised(status: int) -> dict[str, Any]:
    """The error object that replaces an upstream's where the model says `sanitize_responses`: rejected, or failed."""
    if 400 <= status < 500:
        return error_object(
            "The upstream provider rejected the request.", "invalid_request_error", "upstream_error"
        )
    return error_object(
        "An internal error occurred. Please try again later.", "internal_error", "internal_error"
    )


@dataclass(frozen=True, slots=True)
class _Given:
    """An error as the upstream gave it. error: its object, None where it has none. text: what it says in words."""

    error: dict[str, Any] | None
    text: str
    names: frozenset[str]
    status: int
    is_enveloped: bool

    @property
    def is_whole(self) -> bool:
        """It is what OpenAI's clients expect, all four members of it."""
        error = self.error
        return (
            error is not None
            and self.is_enveloped
            and all(isinstance(error.get(name), str) for name in ("message", "type", "code"))
            and "param" in error
        )

    @classmethod
    def read(cls, body: object) -> _Given:
        if isinstance(body, bytes):
            body = _parsed(body)
        outer = body if isinstance(body, dict) else {}
        inner = outer.get("error")
        error = inner if isinstance(inner, dict) else outer or None
        if isinstance(inner, str):  # {"error": "..."}: TGI, Ollama
            error = outer
        text = _message(error) if error else body if isinstance(body, str) else ""
        levels = [level for level in (outer, inner) if isinstance(level, dict)]
        names = frozenset(_names(levels))
        return cls(error, text, names, _status(levels, names), isinstance(inner, dict))

    def is_too_long(self, status: int, *, is_guess: bool) -> bool:
        if _CONTEXT in self.names or "exceed_context_size_error" in self.names:
            return True
        possible = is_guess or status in _TOO_LONG_STATUSES
        return possible and bool(_TOO_LONG.search(self.text[:_READ_CHARS]))

    def refuses_us(self, status: int) -> bool:
        """Our credential or our account, not the caller's request: said by the status, by a name, or in words."""
        if {status, self.status} & {401, 402, 403}:
            return True
        return bool(_REFUSES_KEY.search(self.text[:_READ_CHARS]))

    def as_object(self, status: int) -> dict[str, Any]:
        """What it says, with the four members that OpenAI's clients expect, and whatever else is in it."""
        given = self.error or {}
        code = _text(given.get("code")) or f"http_{status}"
        kind = given.get("type")
        param = given.get("param")
        # What has no message (FastAPI's lists of problems) is quoted as it stands.
        spelled = self.text or (_spelled(given) if given else "")
        message = spelled[:_QUOTED_BYTES].strip() or _STRICT.get(status, _OTHER)[1]
        filled = error_object(
            message,
            kind if isinstance(kind, str) and kind else type_of(code, status),
            code,
            param if isinstance(param, str) else None,
        )
        return {**given, **filled} if self.is_enveloped else filled


def _seen_status(disclosure: Disclosure, status: int, given: _Given) -> int:
    if not 400 <= status <= 599 or status in (402, 407):
        return _BAD_GATEWAY
    if not disclosure.trusted and given.refuses_us(status):
        return _BAD_GATEWAY
    return status


def _too_long(disclosure: Disclosure, given: _Given) -> Disclosed:
    message = "The request is longer than the model's context length. Please shorten it."
    if not disclosure.hides_words and given.text and not _REFUSES_KEY.search(given.text):
        if given.error is not None and given.error.get("code") == _CONTEXT:
            return Disclosed(400, given.error, as_it_came=True)
        message = given.text[:_QUOTED_BYTES]
    return Disclosed(400, error_object(message, "invalid_request_error", _CONTEXT))


def _spelled(error: Mapping[str, Any]) -> str:
    try:
        text: bytes = orjson.dumps(error)
    except TypeError:
        return ""
    return text.decode()


def _parsed(raw: bytes) -> object:
    content = parse_object(raw)
    return raw[:_QUOTED_BYTES].decode("utf-8", "replace") if content is None else content


def _message(error: Mapping[str, Any]) -> str:
    """The words of an error object, wherever servers put them."""
    for name in ("message", "error", "detail", "msg", "error_msg", "errorMessage"):
        value = error.get(name)
        if isinstance(value, str) and value:
            return value
    return ""


def _names(levels: Iterable[Mapping[str, Any]]) -> Iterable[str]:
    for level in levels:
        for member in ("code", "type", "status", "error_type", "reason", "__type"):
            value = level.get(member)
            if isinstance(value, str):
                yield value.lower()


def _status(levels: Iterable[Mapping[str, Any]], names: Iterable[str]) -> int:
    for level in levels:
        for member in ("code", "status", "status_code", "http_status"):
            found = count(level.get(member))
            if found and 300 <= found <= 599:
                return found
    # The gravest reading wins: a refused credential must not hide behind a general name.
    named = {_NAMES.get(name) for name in names}
    return next((status for status in _STATUS_OF_NAME if status in named), _UNKNOWN)


def _text(value: object) -> str:
    """A code or a message as a text; numbers too (`code: 404` is `http_404`), objects not."""
    if isinstance(value, str):
        return value
    found = count(value)
    return f"http_{found}" if found else ""
