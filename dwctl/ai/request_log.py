"""What the request log shows of a call beside its figures: headers and bodies, as settings, account and key want it.

The texts of a call that has a tracking row stand there, once; the log adds why it does not show them (`Withheld`). Those of other calls
(refused, handed on, tracked elsewhere) stand in the log itself, cut. Of a call of which nothing is to be kept there is nothing anywhere.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any
from uuid import UUID

import orjson

from dwctl.ai.calls import Answer, Headers, Incoming, Request
from dwctl.analytics import redaction
from dwctl.analytics.records import text_of
from dwctl.analytics.showing import Withheld, cut, withheld
from dwctl.catalog.routing import Keeping, Key
from dwctl.catalog.snapshot import Snapshot
from dwctl.config import Settings
from dwctl.protocols.splice import replace_members
from dwctl.protocols.surfaces import Surface

if TYPE_CHECKING:
    from dwctl.ai.outcomes import Outcome

Members = dict[str, Any]
"""Some of a `Record`'s."""


class RequestLog:
    """What this process shows of calls."""

    def __init__(self, settings: Settings, snapshot: Snapshot) -> None:
        logging, on = settings.request_logging, settings.enable_request_logging
        self._snapshot = snapshot
        self._shows_bodies = on and logging.bodies
        self._sample = logging.sample
        self._most = logging.max_body_size
        self._shows_headers = on and logging.headers != "none"
        self._listed = frozenset(logging.listed_headers) if logging.headers == "listed" else None
        self._redacted = frozenset(logging.redacted_headers)
        self._shows_all = self._shows_bodies and self._sample >= 1
        self._is_off = not settings.enable_analytics
        self._is_plain = self._shows_all and not self._shows_headers and not self._is_off

    def keeps(self, surface: Surface, key: Key) -> bool:
        """Whether what a call says may stay when it is over, unless its caller wants otherwise."""
        if self._keeping_of(key).zero_retention:
            return False
        return self._shows_bodies or surface.stored_as_response

    def of_call(
        self, request: Request, key: Key, outcome: Outcome, answered_with: Headers
    ) -> Members:
        """Of a call that was let in. `answered_with`: the headers that its caller got."""
        # A line is kept as its owner's file, whatever it says; the log shows it to others.
        is_stored = request.is_kept and request.asked.is_stored
        if self._is_plain and request.tracked and not self._snapshot.routing.keeping and is_stored:
            return {}
        found = self.of_queued(request.id, key, is_stored=is_stored)
        if self._is_off:
            return found
        if not request.tracked and not found:
            found = self._bodies(request.surface, request.asked.body, outcome.stored)
        return found | self._heads(key, request.headers, answered_with)

    def of_untracked(
        self,
        id: UUID,
        incoming: Incoming,
        key: Key,
        body: bytes,
        content: Mapping[str, Any],
        answer: Answer,
    ) -> Members:
        """Of a call that runs nothing: a refused one, a list of models. `body` and `content` are what was read of it by then."""
        found = self.of_queued(id, key)
        if self._is_off:
            return found
        if not found and _says_not_to_store(body, content):
            found = {"bodies": Withheld.NOT_STORED}
        if not found:
            answered = answer.body if isinstance(answer.body, bytes) else b""
            found = self._bodies(incoming.surface, body, answered)
        return found | self._heads(key, incoming.headers, answer.headers)

    def of_queued(self, id: UUID, key: Key, *, is_stored: bool = True) -> Members:
        """Of a call with a row, of which no more is known than whose it is, and whether its caller wants anything to be kept."""
        found = self._of_queued(id, key)
        return found if is_stored or self._is_off else _not_stored(found)

    def _of_queued(self, id: UUID, key: Key) -> Members:
        if self._is_off:
            return {"unlogged": True}
        keeping = self._keeping_of(key)
        if self._shows_all and not keeping.zero_retention and keeping.sample is None:
            return {}
        reason = withheld(
            id,
            zero_retention=keeping.zero_retention,
            shows_bodies=self._shows_bodies,
            share=self._sample if keeping.sample is None else keeping.sample,
        )
        return {} if reason is None else {"bodies": reason}

    def _keeping_of(self, key: Key) -> Keeping:
        return self._snapshot.routing.keeping_of(key)

    def _bodies(self, surface: Surface, sent: bytes, answered: bytes) -> Members:
        # Of files that somebody uploads there is only the size. (JSON is sent under the label of a form by curl.)
        is_text = surface.takes_text or sent[:1] in (b"{", b"")
        told = sent if is_text else f"[{len(sent)} bytes]".encode()
        return {
            "logged_request": cut(told, self._most) if told else None,
            "logged_response": cut(answered, self._most) if answered else None,
        }

    def _heads(self, key: Key, sent: Iterable[tuple[str, str]], answered: Headers) -> Members:
        if not self._shows_headers or self._keeping_of(key).zero_retention:
            return {}
        return {"request_headers": self._head(sent), "response_headers": self._head(answered)}

    def _head(self, pairs: Iterable[tuple[str, str]]) -> str | None:
        found = redaction.headers(pairs, also=self._redacted, only=self._listed)
        return text_of(_written(found)) if found else None


def unstored(
    surface: Surface, body: bytes, content: dict[str, Any]
) -> tuple[bytes, dict[str, Any]]:
    """A request of which nothing is to be kept, told so to everybody who reads it: us, a worker, the upstream server.

    Other protocols than /responses have no such member, or keep nothing unless they are told to.
    """
    given = content.get("store")
    if given is False or not (surface.stored_as_response or given is True):
        return body, content
    return replace_members(body, {"store": b"false"}), {**content, "store": False}


def _not_stored(found: Members) -> Members:
    """The same of a call whose caller wants nothing to be kept."""
    if found.get("bodies") in (None, Withheld.NOT_SAMPLED):
        return {**found, "bodies": Withheld.NOT_STORED}
    return found


def _says_not_to_store(body: bytes, content: Mapping[str, Any]) -> bool:
    """Also where it could not be read: then whoever speaks of it is taken to mean no."""
    return content.get("store") is False or (not content and b'"store"' in body)


def _written(found: object) -> bytes:
    try:
        return orjson.dumps(found)
    except TypeError:
        # Lone surrogates, as a WSGI server hands over bytes that are no UTF-8.
        return json.dumps(found).encode()
