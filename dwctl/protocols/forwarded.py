"""Routes of inference servers that the gateway knows nothing of (images, audio, reranking, moderations, tokenizers): handed on as they are.

Only the model's name is read, and replaced; of the answer its usage, where it has one. JSON is read whole; everything else passes through
piece by piece. Nothing of either is kept.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import unquote_plus

import orjson

from dwctl.protocols import asked as reading
from dwctl.protocols.answers import error_in
from dwctl.protocols.asked import Asked
from dwctl.protocols.disclosure import Disclosure
from dwctl.protocols.errors import BadUpstreamBody, InvalidRequest
from dwctl.protocols.json_objects import parse_object
from dwctl.protocols.modes import Mode
from dwctl.protocols.multipart import find_field, is_form
from dwctl.protocols.spelling import Names
from dwctl.protocols.splice import open_members, write_members
from dwctl.protocols.streaming import MAX_STREAM_BYTES, TOO_LARGE
from dwctl.protocols.surfaces import SURFACES, Surface
from dwctl.protocols.treatments import Complete
from dwctl.protocols.usage import (
    TokenUsage,
    continued,
    prompt_estimate,
    raw_chars,
    read_counts,
    said,
    settled,
)
from dwctl.web.envelope import openai_error

_EVENTS = "text/event-stream"
_JSON = "application/json"
_BYTES = "application/octet-stream"
_RUN_BY_BROWSERS = frozenset(
    ["text/html", "application/xhtml+xml", "image/svg+xml", "text/xml", "application/xml", "text/javascript", "application/javascript"]
)  # fmt: skip
_PAIRS = "application/x-www-form-urlencoded"
_MODEL = Names(["model"])
_BEFORE_JSON = b" \t\r\n\0\xef\xbb\xbf\xff\xfe"
"""What some parsers skip before it, or take for the order of its bytes."""
_LONGEST_TYPE = 256
_LONGEST_LINE = 256 * 1024
_OF_AN_ACCOUNT = frozenset(
    ["assistants", "batches", "containers", "conversations", "daemons", "evals", "files", "fine_tuning", "fine-tuning", "models",
     "organization", "projects", "responses", "threads", "uploads", "vector_stores"]
)  # fmt: skip
"""What a provider keeps for an account. There that account is the operator's, so all callers would share it."""
_OURS = frozenset(path.rpartition("/")[2] for path in SURFACES)
_READ_DIFFERENTLY = re.compile(r"[%?#\\;]|(?:^|/)\s|\s(?:/|$)")
"""What a server may decode once more, cut off, or take for a slash."""


def may_be_forwarded(path: str) -> bool:
    """Whether a path (without `/v1/`) that has no route here may go to an inference server.

    Each of its segments counts, not only the first: a base path that is repeated (`v1/files`) is sent once, and servers have the same routes
    below several (`engines/x/completions`, `openai/deployments/x/chat/completions`), where another model than the one that was judged answers.
    """
    segments = [segment.strip(".") for segment in path.lower().split("/")]
    return not _READ_DIFFERENTLY.search(path) and (_OF_AN_ACCOUNT | _OURS).isdisjoint(segments)


class Forwarded(Surface):
    """Such a route, as one call asks for it."""

    name = "forwarded"
    response_type = "other"
    queueable = False
    takes_files = True
    is_tracked = False

    def __init__(self, method: str, path: str, content_type: str | None, query: str = "") -> None:
        """`path` and `query` as they are to be sent, the path without `/v1/`."""
        self.method = method
        self.path = path
        # Of other routes nobody here knows what bounds their answers.
        self.limited_by = ("max_tokens",) if path.lower().endswith("messages") else ()
        self.content_type = (content_type or "").strip()
        self._query = query
        self._kind = _kind(self.content_type)
        self.takes_text = _is_json(self._kind)

    @property
    def sends_body(self) -> bool:
        """Whether its body is handed on."""
        return self.method not in ("GET", "HEAD")

    def is_json(self, body: bytes) -> bool:
        """Whether a body is to be JSON: by its label or by its look. Curl says that it is a form, and servers in Go look at no label."""
        if self.takes_text:
            return True
        if is_form(self.content_type) or body[:64].lstrip(_BEFORE_JSON)[:1] not in (b"{", b""):
            return False
        return body.lstrip(_BEFORE_JSON)[:1] == b"{" and _is_text(body)

    def type_of_answer(self, content: Mapping[str, Any], *, streamed: bool = False) -> str:
        """Nothing that is known."""
        return self.response_type

    def mode(self, content: Mapping[str, Any], *, tracked: bool = True) -> Mode:
        """At once, and piece by piece where the answer comes so."""
        return Mode(stream=True)

    def content_of(self, body: bytes) -> dict[str, Any]:
        """What of a body is read: JSON, or the model that a form names. Raises InvalidRequest, also for a model that is named where it is not
        replaced: the server might take that one.
        """
        _check_pairs(self._query, "the query")
        if not body or not self.sends_body:
            return {}
        if self.is_json(body):
            return reading.read(body)
        if self._kind == _PAIRS:
            _check_pairs(body.decode("latin-1"), "a form of that type")
        span = self._model_in(body)
        if span is None:
            return {}
        return {"model": body[slice(*span)].decode("utf-8", "replace")}

    def check(self, content: Mapping[str, Any], **_more: Any) -> None:
        """What the gateway does not know it does not check."""

    def treat(self, asked: Asked, disclosure: Disclosure, **_more: Any) -> Handed:
        return Handed(self, asked)

    def renamed(self, body: bytes, model_name: str) -> bytes:
        """A body with the upstream's name of the model, where it names one or is JSON."""
        if not body or not self.sends_body:
            return b""
        if self.is_json(body):
            members = open_members(body)
            changes: dict[str, bytes | None] = dict.fromkeys(_MODEL.misspelt(members.keys()))
            return write_members(members, changes | {"model": orjson.dumps(model_name)})
        span = self._model_in(body)
        if span is None:
            return body
        return body[: span[0]] + model_name.encode() + body[span[1] :]

    def _model_in(self, body: bytes) -> tuple[int, int] | None:
        if not is_form(self.content_type):
            return None
        return find_field(body, self.content_type, "model")


class Handed:
    """The treatment of such a call."""

    replays = promises_object = False

    def __init__(self, surface: Forwarded, asked: Asked) -> None:
        self._surface = surface
        self._asked = asked
        self.method = surface.method
        self.path = f"/{surface.path}" + (f"?{asked.query}" if asked.query else "")
        named = _JSON if surface.is_json(asked.body) else surface.content_type or _BYTES
        self.content_type = named if asked.body and surface.sends_body else None

    def request_body(self, model_name: str) -> bytes:
        """The caller's bytes with the upstream's model name."""
        return self._surface.renamed(self._asked.body, model_name)

    def streams(self, content_type: str, _first: bytes) -> bool:
        """Whether an answer of that type passes piece by piece."""
        return not _is_json(_kind(content_type)) or self.method == "HEAD"

    def shown_type(self, content_type: str) -> str:
        """What the answer is called: what the upstream calls it, unless a browser would run it."""
        if not content_type or len(content_type) > _LONGEST_TYPE:
            return _BYTES
        return (
            "text/plain; charset=utf-8" if _kind(content_type) in _RUN_BY_BROWSERS else content_type
        )

    def complete(self, raw: bytes) -> Complete:
        """As it came. An error is charged nothing, whatever status it has."""
        content = parse_object(raw)
        failed = content is not None and error_in(content)
        return Complete(raw, None if failed else said(content))

    def from_stream(self, raw: bytes) -> Complete:
        """Such an answer is never read whole."""
        raise BadUpstreamBody("a stream that is labelled as JSON")

    def replay(self, body: bytes) -> bytes:
        """Such an answer is never made a stream."""
        raise BadUpstreamBody("no stream")

    def stream(self, *, content_type: str = "", max_bytes: int = MAX_STREAM_BYTES) -> Passing:
        """A fresh one."""
        return Passing(
            is_events=_kind(content_type) == _EVENTS,
            max_bytes=max_bytes,
            prompt_tokens=lambda: prompt_estimate(self._asked.content),
        )


class Passing:
    """An answer that passes through. Of events the usage is looked for; what is no event stream cannot say that it failed: it is cut."""

    ended = False
    upstream_error: bytes | None = None

    def __init__(
        self, *, is_events: bool, max_bytes: int, prompt_tokens: Callable[[], int]
    ) -> None:
        """`prompt_tokens`: an estimate, for events that say no usage."""
        self.done = False
        self.error: dict[str, Any] | None = None
        self._is_events = is_events
        self._left = max_bytes
        self._line = b""
        self._usage: dict[str, Any] = {}
        self._written = 0  # characters, since usage was last said
        self._prompt_tokens = prompt_tokens

    def feed(self, chunk: bytes) -> bytes:
        """The same."""
        self._left -= len(chunk)
        if self._left < 0:
            self.done = True
            self.fail(TOO_LARGE, "The upstream provider sent more than is allowed.")
            return b""
        if self._is_events:
            self._look(chunk)
        return chunk

    def finish(self) -> bytes | None:
        """The end. None: it was not the end."""
        if self._line:
            self._look(b"\n")
        return None if self.error else b""

    def fail(self, code: str, message: str) -> bytes | None:
        """The last event of a stream that failed. None: there is no way to say so, so it must be cut short."""
        self.error = {"code": code, "message": message}
        if not self._is_events:
            return None
        return b"event: error\ndata: " + openai_error(message, code, 502) + b"\n\n"

    def cancel(self) -> bytes | None:
        """The end of a call that was cancelled."""
        return self.fail("cancelled", "The request was cancelled.")

    def assembled(self) -> dict[str, Any]:
        """Nothing of it is kept."""
        return {}

    def settle(self) -> TokenUsage | None:
        """What its events have said of usage, together: some say the input at the beginning and the output at the end.

        What was written and not said yet is estimated: whoever hangs up before the end, or does not ask for the usage, pays all the same.
        """
        counts = read_counts(self._usage)
        if not self._written:
            return said({"usage": self._usage}) if self._usage else None
        if counts is None:
            return settled(
                None, written_chars=lambda: self._written, prompt_tokens=self._prompt_tokens
            )
        return continued(counts, written_since=self._written, prompt_tokens=self._prompt_tokens)

    def _look(self, chunk: bytes) -> None:
        *lines, rest = (self._line + chunk).split(b"\n")
        # A line that long is no usage; what follows of it is not taken for the beginning of another.
        self._line = rest if len(rest) <= _LONGEST_LINE else b"-"
        for line in lines:
            if line.startswith(b"data:"):
                self._written += raw_chars(line)
                if b'"usage"' in line:
                    self._note(parse_object(line[5:].strip()) or {})

    def _note(self, event: dict[str, Any]) -> None:
        for holder in (event, event.get("message"), event.get("response")):
            usage = holder.get("usage") if isinstance(holder, dict) else None
            if isinstance(usage, dict):
                self._usage |= {name: value for name, value in usage.items() if value is not None}
                self._written = 0


def _kind(content_type: str) -> str:
    return content_type.split(";")[0].strip().lower()


def _is_json(kind: str) -> bool:
    return kind == _JSON or kind.endswith("+json")


def _is_text(body: bytes) -> bool:
    try:
        body.removeprefix(b"\xff\xfe").removeprefix(b"\xfe\xff").decode()
    except UnicodeDecodeError:
        return False
    return True


def _check_pairs(pairs: str, where: str) -> None:
    """Of a query, or a form that looks like one."""
    for pair in re.split("[&;]", pairs):
        name = unquote_plus(pair.partition("=")[0]).strip().removesuffix("[]")
        if name == "model" or _MODEL.misspelt([name]):
            raise InvalidRequest(
                f"The model cannot be named in {where}: name it in JSON, in multipart/form-data, or in the header Model-Override.",
                param="model",
                code="invalid_value",
            )
