"""`POST /responses/input_tokens`: how many tokens a request's input has, by the one who knows: the server that would run it.

Servers that speak chat completions are asked at `/tokenize`, as vLLM has it, beside their base path and below it; those that speak the
Responses API at its own route. What a server does not have is remembered for a while. Nothing is run, recorded or charged.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import msgspec
import orjson

from dwctl.ai import admission, bodies, history
from dwctl.ai.admission import Admitted
from dwctl.ai.calls import JSON, Request, Stamp
from dwctl.ai.holdings import Hold
from dwctl.ai.selection import components_of
from dwctl.catalog.routing import Key
from dwctl.errors import DwctlError, NotFound
from dwctl.protocols import asked as reading
from dwctl.protocols.asked import Asked
from dwctl.protocols.disclosure import Disclosure
from dwctl.protocols.json_objects import open_object
from dwctl.protocols.surfaces import RESPONSES
from dwctl.upstream.errors import UpstreamError
from dwctl.upstream.target import Target, Timeouts

if TYPE_CHECKING:
    from dwctl.ai.gateway import Gateway

_REMEMBERED_S = 600.0
_MOST_REMEMBERED = 1000
_TIMEOUTS = Timeouts(connect_s=5, first_byte_s=20, idle_s=10, total_s=30)
_ABSENT = frozenset({404, 405, 501})
_TOKENIZED = ("model", "messages", "tools", "chat_template_kwargs")


class NotCounted(NotFound):
    """The model's server does not count tokens: it has neither /tokenize nor /responses/input_tokens."""

    code = "input_tokens_not_supported"


class Failed(DwctlError):
    """The model's server was asked to count, and gave no number."""

    code = "upstream_error"
    status = 502


class _Way(msgspec.Struct, frozen=True):
    """A question that may be put to a server: where, what, and the member of its answer that is the number."""

    target: Target
    path: str
    body: bytes
    member: str


class Counting:
    """Asks; and remembers which servers do not answer that."""

    def __init__(self) -> None:
        self._absent: dict[tuple[str, str, str], float] = {}

    def count(self, gateway: Gateway, admitted: Admitted) -> int:
        """The tokens of the request's input; the question counts as a call where the model or the key has limits.

        Raises NotCounted, Failed, LimitReached, DatabaseAway.
        """
        demands = admission.demands_of(admitted)
        permit = gateway.limiter.take(demands) if demands else None
        try:
            return self._count(gateway, admitted)
        finally:
            if permit is not None:
                permit.give_back()

    def _count(self, gateway: Gateway, admitted: Admitted) -> int:
        for way in _ways(admitted):
            where = way.target.base_url, way.target.model_name, way.path
            if self._absent.get(where, 0.0) > time.monotonic():
                continue
            found = _asked(gateway, way)
            if found is not None:
                return found
            if len(self._absent) >= _MOST_REMEMBERED:
                self._absent.clear()
            self._absent[where] = time.monotonic() + _REMEMBERED_S
        raise NotCounted


def admitted_of(gateway: Gateway, key: Key, body: bytes, hold: Hold) -> Admitted:
    """The request that would be run. Raises what a call of /responses would be refused with."""
    content = bodies.content_of(RESPONSES, body)
    content = {**content, "input": content.get("input") or []}
    alias = reading.read_alias(content)
    stamp = Stamp.now()
    asked = Asked(
        surface=RESPONSES, body=body, content=content, alias=alias, id=stamp.id, created_at=stamp.at
    )
    request = Request(stamp, asked, is_kept=False, tracked=False)
    strict = gateway.settings.onwards.strict_mode
    admitted = admission.admit(gateway.snapshot.routing, key, request, strict=strict)
    return history.resolve(gateway, admitted, hold)


def _ways(admitted: Admitted) -> Iterator[_Way]:
    """Of a composite model the first target that can be called is asked."""
    provider = components_of(admitted.served_by)[0].model
    assert provider.target is not None  # `components_of` gives no others
    target = dataclasses.replace(provider.target, timeouts=_TIMEOUTS)
    asked = admitted.request.asked
    if not provider.adapter:
        told = {**asked.read_by_model, "model": target.model_name}
        yield _Way(target, "/responses/input_tokens", orjson.dumps(told), "input_tokens")
        return
    disclosure = Disclosure(admitted.strict, provider.trusted, admitted.served_by.sanitise)
    treatment = asked.surface.treat(
        asked, disclosure, adapted=True, reasoning_input=provider.reasoning_input
    )
    chat: Mapping[str, Any] = orjson.loads(treatment.request_body(target.model_name))
    told = {name: chat[name] for name in _TOKENIZED if name in chat}
    body = orjson.dumps({**told, "add_generation_prompt": True})
    base = target.base_url.rstrip("/")
    if base.endswith("/v1"):
        base = base.removesuffix("/v1")
        yield _Way(dataclasses.replace(target, base_url=base), "/tokenize", body, "count")
    yield _Way(target, "/tokenize", body, "count")


def _asked(gateway: Gateway, way: _Way) -> int | None:
    """The number; None where the server does not know the question. Raises Failed."""
    try:
        response = gateway.client.send(way.target, way.path, way.body, [JSON])
        raw = response.read(gateway.settings.upstream.max_answer_size)
    except UpstreamError as error:
        raise Failed(error.message) from None
    if response.status in _ABSENT:
        return None
    if response.status != 200:
        raise Failed(f"The model's server was asked to count, and said {response.status}.")
    number = (open_object(raw, "tokens") or {}).get(way.member)
    return number if isinstance(number, int) and not isinstance(number, bool) else None
