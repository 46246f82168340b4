"""One request, read once: its bytes, its JSON, and what the gateway has decided about it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any
from uuid import UUID

import msgspec
import orjson

from dwctl.clock import id_text
from dwctl.protocols.errors import InvalidRequest
from dwctl.protocols.json_objects import MAX_DEPTH, is_too_deep
from dwctl.protocols.modes import Mode, Tier
from dwctl.protocols.openresponses import resource
from dwctl.protocols.openresponses.resource import Response

if TYPE_CHECKING:
    from dwctl.protocols.surfaces import Surface

_LONGEST_ALIAS = 512
# Ten megabytes of brackets are five million lists: seconds in which nobody else is served.
_MOST_CONTAINERS = 250_000
_MOST_MEMBERS = 10_000
_STRING = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"', re.DOTALL)


class Asked(msgspec.Struct, frozen=True):
    """What was asked for.

    body: as it came; content: the same as parsed. alias: the model's name here. created_at: seconds since 1970.
    shows_id: the answer carries `id`; False where somebody else tracks the call, and the upstream's identifier stays.
    query: the query string of the request's URL, without its question mark. told: `content` with the earlier turns and the items that it
    only names, where there are any (`openresponses.history`); continues: the request that it continues.
    """

    surface: Surface
    body: bytes
    content: dict[str, Any]
    alias: str
    id: UUID
    created_at: float
    mode: Mode = Mode()
    shows_id: bool = True
    query: str = ""
    told: dict[str, Any] | None = None
    continues: UUID | None = None

    @property
    def read_by_model(self) -> dict[str, Any]:
        """The request as the model reads it."""
        return self.content if self.told is None else self.told

    @property
    def is_stored(self) -> bool:
        """Whether its caller may come back to it. Where `store` is false nothing is kept of it but the bill."""
        return self.content.get("store") is not False

    @property
    def response_id(self) -> str:
        """The public identifier."""
        return f"resp_{id_text(self.id)}"

    @property
    def shown_tier(self) -> str | None:
        """The tier that the answer names although the upstream does not know it: flex, where it was asked for by name.

        A line of a batch asks in vain: its batch's window decides.
        """
        by_name = self.content.get("service_tier") == Tier.FLEX and not self.mode.of_batch
        return Tier.FLEX.value if by_name else None

    def skeleton(self) -> Response:
        """The Response object before anything is known of its outcome."""
        asked = self.content.get("service_tier")
        of_batch = self.mode.of_batch
        queued = self.mode.tier is Tier.FLEX and not of_batch
        # Its tools may be in earlier turns.
        said = {} if self.told is None else {"input": self.told["input"]}
        return resource.skeleton(
            {**self.content, **said},
            response_id=self.response_id,
            created_at=int(self.created_at),
            model=self.alias,
            status="queued" if queued else "in_progress",
            service_tier="flex"
            if queued
            else "priority"
            if asked == "priority" and not of_batch
            else "default",
            background=self.mode.background,
        )


def read(body: bytes) -> dict[str, Any]:
    """The JSON object of a request that everything here can also write again. Raises InvalidRequest.

    Of a member that is there twice the last one counts, here and in what is sent.
    """
    containers = _containers_in(body)
    if containers > _MOST_CONTAINERS and _containers_in(_STRING.sub(b"", body)) > _MOST_CONTAINERS:  # fmt: skip
        raise InvalidRequest(
            f"The request has more than {_MOST_CONTAINERS} objects and arrays.",
            code="invalid_value",
        )
    try:
        content = orjson.loads(body)
    except ValueError:
        text = "The request body is not valid JSON." if body else "The request has no body."
        raise InvalidRequest(text, code="invalid_json") from None
    if not isinstance(content, dict):
        raise InvalidRequest("The request body must be a JSON object.", code="invalid_json")
    if len(content) > _MOST_MEMBERS:
        raise InvalidRequest(
            f"The request has more than {_MOST_MEMBERS} members.", code="invalid_value"
        )
    if containers > MAX_DEPTH and is_too_deep(body, content):
        raise InvalidRequest(
            f"The request is nested deeper than {MAX_DEPTH} levels.",
            param=_deepest(content),
            code="invalid_value",
        )
    return content


def _containers_in(text: bytes) -> int:
    return text.count(b"[") + text.count(b"{")


def read_alias(content: dict[str, Any], override: str | None = None) -> str:
    """The model's name: `override` (a header, or what a queued request was routed by), else `model`. Raises InvalidRequest."""
    model = content.get("model")
    if model is None and not override:
        raise InvalidRequest(
            "You must say which model to use.", param="model", code="missing_required_parameter"
        )
    if not isinstance(model, str) and not (model is None and override):
        raise InvalidRequest("`model` must be a string.", param="model", code="invalid_type")
    alias = override or model or ""
    if "\x00" in alias or not alias.isprintable() or len(alias) > _LONGEST_ALIAS:
        raise InvalidRequest("`model` is not a model's name.", param="model", code="invalid_value")
    return alias


def _deepest(content: dict[str, Any]) -> str | None:
    """The member that holds the deepest nesting."""
    for name, value in content.items():
        raw = b"[" * (MAX_DEPTH + 1)  # as far as is known: too many brackets
        if is_too_deep(raw, [value]):
            return name
    return None
