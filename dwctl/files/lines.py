"""The lines of a file of requests (JSONL), checked as they come. Pure: bytes in, lines and errors out.

A line is right when `/ai` would take its body on the route that it names: the same functions judge both. What is stored of a body are its
own bytes; only a top-level `priority` is taken out, because nobody orders the queue but the gateway.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import msgspec

from dwctl.errors import DwctlError
from dwctl.files.custom_ids import CustomIds
from dwctl.protocols.errors import InvalidRequest
from dwctl.protocols.splice import replace_members
from dwctl.protocols.surfaces import SURFACES, Surface

LONGEST_CUSTOM_ID = 64
"""Characters."""
DUPLICATE = "duplicate_custom_id"

_LONGEST_LINE = 256 * 1024 * 1024
_BESIDE_BODY = 64 * 1024
_BOM = codecs.BOM_UTF8
_LARGE_BYTES = 1024 * 1024
_NEEDED_TYPES = {
    "/v1/chat/completions": "CHAT",
    "/v1/completions": "CHAT",
    "/v1/responses": "CHAT",
    "/v1/embeddings": "EMBEDDINGS",
}
_CONTROL = re.compile("[\x00-\x08\x0a-\x1f\x7f-\x9f]")
_QUOTED = 100
_FIELD = re.compile(r"field `(\w+)`$|at `\$\.(\w+)`$")


class UsableModel(msgspec.Struct, frozen=True):
    """What a line's check must know of a model that its owner may call.

    type: CHAT, EMBEDDINGS, ... or None where nobody has said it. adapted: in which ways /responses may reach it (`Surface.check`).
    """

    type: str | None
    adapted: frozenset[bool] = frozenset({True})
    refuses_unrunnable_tools: bool = False


class Rules(msgspec.Struct, frozen=True):
    """What holds for all lines of one file.

    models: by alias. endpoint: where every line goes, whatever it says itself. Sizes in bytes; 0 for max_body_size and max_requests: no limit.
    """

    models: Mapping[str, UsableModel]
    paths: tuple[str, ...]
    strict: bool = False
    max_body_size: int = 0
    max_requests: int = 0
    endpoint: str | None = None

    @property
    def longest_line(self) -> int:
        """Bytes that a line may have at all; no more of it are kept in memory."""
        return self.max_body_size + _BESIDE_BODY if self.max_body_size else _LONGEST_LINE


class Line(msgspec.Struct, frozen=True, gc=False):
    """A line that is right. number: its physical line in the file, from 1 on."""

    number: int
    custom_id: str
    path: str
    model: str
    body: bytes
    method: str


class LineError(msgspec.Struct, frozen=True):
    """What is wrong with a line, or (line None) with the file. The member `field` of the line is to blame, where that is known."""

    line: int | None
    field: str | None
    code: str
    message: str
    status: int = 400


class _Given(msgspec.Struct, gc=False):
    custom_id: str
    method: str
    url: str
    body: msgspec.Raw


class _GivenAnywhere(msgspec.Struct, gc=False):
    custom_id: str
    body: msgspec.Raw
    method: str = "POST"
    url: str = ""


class _Wrong(Exception):
    def __init__(self, field: str | None, code: str, message: str, status: int = 400) -> None:
        self.field, self.code, self.message, self.status = field, code, message, status


class LineReader:
    """Physical lines of what is fed, each with its number (from 1 on) and the offset of its first byte; of one that is too long only the size."""

    def __init__(self, longest: int) -> None:
        self.number = 0
        self.offset = 0
        """Of the line that has begun."""
        self._longest = longest
        self._begun: list[bytes] = []
        self._size = 0

    def feed(self, data: bytes) -> Iterator[tuple[int, int, bytes | int]]:
        """The lines that end in `data`."""
        first, *whole = data.split(b"\n")
        self._keep(first)
        if not whole:
            return
        last = whole.pop()
        yield self._end(ended=True)
        for text in whole:
            self.number += 1
            size, offset = len(text), self.offset
            self.offset += size + 1
            yield self.number, offset, text if size <= self._longest else size
        self._keep(last)

    def finish(self) -> Iterator[tuple[int, int, bytes | int]]:
        """The last line, where no line end closes it."""
        if self._size:
            yield self._end(ended=False)

    def _keep(self, piece: bytes) -> None:
        self._size += len(piece)
        if self._size <= self._longest:
            self._begun.append(piece)
        else:
            self._begun = []

    def _end(self, *, ended: bool) -> tuple[int, int, bytes | int]:
        begun, size, offset = self._begun, self._size, self.offset
        self._begun, self._size = [], 0
        self.number += 1
        self.offset += size + ended
        if size > self._longest:
            return self.number, offset, size
        return self.number, offset, begun[0] if len(begun) == 1 else b"".join(begun)


class LineChecker:
    """Lines of one file, as its bytes come: `feed` them, then `finish`.

    `errors` are the first bad lines, up to `most_errors`, in the order of the file; `wrong` counts all of them. tolerant: the lines that are
    right are given all the same (else none is given after the first error). fatal: the first error that no tolerance covers, of the file or of a
    repeated custom_id. rest: called between the steps of a large line, so that others can run.
    """

    def __init__(
        self,
        rules: Rules,
        ids: CustomIds,
        *,
        most_errors: int = 20,
        tolerant: bool = False,
        rest: Callable[[], None] = lambda: None,
    ) -> None:
        self.requests = 0
        """Lines that are not blank."""
        self.wrong = 0
        self.errors: list[LineError] = []
        self.fatal: LineError | None = None
        self._rules = rules
        self._ids = ids
        self._most_errors = most_errors
        self._tolerant = tolerant
        self._rest = rest
        self._reader = LineReader(rules.longest_line)
        form: type[_Given | _GivenAnywhere] = _GivenAnywhere if rules.endpoint else _Given
        self._decode = msgspec.json.Decoder(form).decode
        self._paths = tuple(p for p in rules.paths if p.removeprefix("/v1/") in SURFACES)

    @property
    def is_full(self) -> bool:
        """Nothing more would be told: what comes need not be read."""
        return not self._tolerant and len(self.errors) >= self._most_errors

    def feed(self, data: bytes) -> Iterator[Line]:
        """The right lines that end in `data`. Each step takes about as long as its line is to parse."""
        return self._checked(self._reader.feed(data))

    def finish(self) -> Iterator[Line]:
        """The last line; then the file as a whole is judged."""
        yield from self._checked(self._reader.finish())
        most = self._rules.max_requests
        if self.requests == 0:
            self._add(_file_error("empty_file", "File contains no valid request templates"))
        elif most and self.requests > most:
            text = f"File contains {self.requests} requests, which exceeds the maximum of {most}"
            self._add(_file_error("too_many_requests_in_file", text))

    def _checked(self, lines: Iterator[tuple[int, int, bytes | int]]) -> Iterator[Line]:
        most = self._rules.max_requests
        for number, offset, text in lines:
            if number == 1 and isinstance(text, bytes):
                text = text.removeprefix(_BOM)
            if isinstance(text, bytes) and (not text or text.isspace()):
                continue
            self.requests += 1
            if (most and self.requests > most) or self.is_full:
                continue
            try:
                line = self._check(number, offset, text)
            except _Wrong as wrong:
                self._add(LineError(number, wrong.field, wrong.code, wrong.message, wrong.status))
                continue
            # A line may be large: nobody holds it while the next one comes.
            text = b""
            if not self.errors or self._tolerant:
                yield line
            del line

    def _add(self, error: LineError) -> None:
        self.wrong += 1
        if error.line is None or error.code == DUPLICATE:
            self.fatal = self.fatal or error
        if len(self.errors) < self._most_errors:
            self.errors.append(error)

    def _check(self, number: int, offset: int, text: bytes | int) -> Line:
        if isinstance(text, int):
            raise _too_large(number, text, self._rules.max_body_size or _LONGEST_LINE)
        large = len(text) > _LARGE_BYTES
        if large:
            self._rest()
        if not text.isascii():
            _check_utf8(number, offset, text)
        if b"\0" in text:
            at = offset + text.index(b"\0")
            raise _Wrong(
                None, "invalid_json", f"Invalid JSON on line {number}: NUL at byte offset {at}"
            )
        try:
            given = self._decode(text)
        except (msgspec.DecodeError, RecursionError) as error:
            raise _invalid_json(number, str(error)) from None
        custom_id = given.custom_id
        if len(custom_id) > LONGEST_CUSTOM_ID or not custom_id.isprintable():
            _check_custom_id(number, custom_id)
        # `ſ` is an S in capitals.
        if given.method != "POST" and given.method.encode().upper() != b"POST":
            text_ = f"Line {number}: Unsupported HTTP method '{given.method[:_QUOTED]}'. Only POST is currently supported."
            raise _Wrong("method", "unsupported_method", text_)
        path = self._rules.endpoint or given.url
        if path not in self._paths:
            text_ = f"Line {number}: Unsupported URL path '{path[:_QUOTED]}'. Allowed paths are: {', '.join(self._paths)}"
            raise _Wrong("url", "unsupported_url", text_)
        if large:
            self._rest()
        body = bytes(given.body)
        if self._rules.max_body_size and len(body) > self._rules.max_body_size:
            raise _too_large(number, len(body), self._rules.max_body_size)
        if large:
            self._rest()
        model, body = self._check_body(number, path, body)
        if large:
            self._rest()
        earlier = self._ids.add(custom_id, number)
        if earlier is not None:
            raise duplicate(number, earlier, custom_id)
        return Line(number, custom_id, path, model, body, given.method)

    def _check_body(self, number: int, path: str, body: bytes) -> tuple[str, bytes]:
        surface = SURFACES[path.removeprefix("/v1/")]
        if not body.startswith(b"{"):
            raise _invalid_json(number, "Expected `object` - at `$.body`")
        try:
            content = surface.content_of(body)
        except InvalidRequest as error:
            if error.code == "invalid_json":
                raise _invalid_json(number, "malformed - at `$.body`") from None
            raise _refused(number, error) from None
        alias = content.get("model")
        if not isinstance(alias, str):
            text = f"Line {number}: Missing 'model' field in request body"
            raise _Wrong("body.model", "missing_required_parameter", text)
        model = self._rules.models.get(alias)
        if model is None:
            text = f"Line {number}: Model '{alias[:_QUOTED]}' has not been configured or is not available to user"
            raise _Wrong("body.model", "model_access_denied", text, 403)
        needed = _NEEDED_TYPES.get(path)
        if needed and model.type and model.type != needed:
            text = f"Line {number}: Model '{alias}' is a {model.type} model but endpoint '{path}' requires a {needed} model"
            raise _Wrong("body.model", "wrong_model_type", text)
        try:
            _check_for(surface, content, alias, model, strict=self._rules.strict)
        except DwctlError as error:
            raise _refused(number, error) from None
        if "priority" in content:
            body = replace_members(body, {"priority": None})
        return alias, body


def duplicate(number: int, earlier: int, custom_id: str) -> _Wrong:
    """The refusal of a custom_id that an earlier line has."""
    text = f"Line {number}: custom_id '{custom_id}' is already used on line {earlier}"
    return _Wrong("custom_id", DUPLICATE, text)


def duplicate_error(number: int, earlier: int, custom_id: str) -> LineError:
    """The same, for those that are found when the whole file is there."""
    wrong = duplicate(number, earlier, custom_id)
    return LineError(number, wrong.field, wrong.code, wrong.message)


def _check_for(
    surface: Surface, content: Mapping[str, Any], alias: str, model: UsableModel, *, strict: bool
) -> None:
    """What `/ai` checks of a request, for each way in which the model may be reached. Tiers say nothing in a batch."""
    surface.mode(content, tracked=False)
    for adapted in model.adapted:
        surface.check(
            content,
            alias=alias,
            strict=strict,
            adapted=adapted,
            refuses_unrunnable_tools=model.refuses_unrunnable_tools,
        )


def _check_utf8(number: int, offset: int, text: bytes) -> None:
    try:
        text.decode()
    except UnicodeDecodeError as error:
        raise _Wrong(
            None,
            "invalid_utf8",
            f"File contains invalid UTF-8 on/near line {number} at byte offset {offset + error.start}: {error.reason}",
        ) from None


def _check_custom_id(number: int, custom_id: str) -> None:
    if len(custom_id) > LONGEST_CUSTOM_ID:
        text = f"Line {number}: custom_id exceeds maximum length of {LONGEST_CUSTOM_ID} characters (got {len(custom_id)})"
        raise _Wrong("custom_id", "custom_id_too_long", text)
    if _CONTROL.search(custom_id):
        text = f"Line {number}: custom_id contains invalid characters: it must have no control characters"
        raise _Wrong("custom_id", "invalid_custom_id", text)


def _invalid_json(number: int, said: str) -> _Wrong:
    found = _FIELD.search(said)
    field = (found[1] or found[2]) if found else None
    return _Wrong(field, "invalid_json", f"Invalid JSON on line {number}: {said}")


def _too_large(number: int, size: int, most: int) -> _Wrong:
    text = f"Line {number}: Request body is {size} bytes, which exceeds the maximum allowed size of {most} bytes"
    return _Wrong("body", "body_too_large", text)


def _refused(number: int, error: DwctlError) -> _Wrong:
    field = f"body.{error.param}" if error.param else "body"
    return _Wrong(field, error.code, f"Line {number}: {error.message}")


def _file_error(code: str, message: str) -> LineError:
    return LineError(None, None, code, message)
