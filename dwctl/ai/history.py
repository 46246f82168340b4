"""Conversations that go on here: the stored responses behind `previous_response_id`, and stored items that a request only names.

A request is stored as it came, and what it stands on is read whenever it is run: so nothing is kept twice, and what its owner deletes is
told to no model any more. One that is queued is looked at twice: when it comes in, so that its caller learns at once what is wrong with it,
and when a worker runs it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any
from uuid import UUID

import msgspec
import orjson
from psycopg.rows import namedtuple_row

from dwctl import sql
from dwctl.ai import retrieval
from dwctl.ai.admission import Admitted
from dwctl.ai.holdings import Hold, Kind
from dwctl.config import History
from dwctl.db import Connections
from dwctl.errors import Conflict, Invalid, NotFound
from dwctl.pace import Pace
from dwctl.printable import printable
from dwctl.protocols.json_objects import parse_object
from dwctl.protocols.modes import Tier
from dwctl.protocols.openresponses import history, items
from dwctl.protocols.openresponses.history import Reference, Wanted
from dwctl.protocols.openresponses.items import Item
from dwctl.queue.tables import State

if TYPE_CHECKING:
    from dwctl.ai.gateway import Gateway

_QUERIES = sql.load("dwctl.queue")
_ENDED = frozenset({"completed", "incomplete"})
_RETRY_AFTER_S = 1
_SHOWN = 100
_PARAM = "previous_response_id"


class StillAnswering(Conflict):
    """The response that this one continues has not ended yet. Try again when it has."""

    code = "previous_response_in_progress"
    retryable = True


class TooLong(Invalid):
    """The conversation is too long to be continued here: send what the model is to read as `input`."""

    code = "conversation_too_long"


def resolve(gateway: Gateway, admitted: Admitted, hold: Hold | None = None) -> Admitted:
    """The call with all that its model is to read; most calls bring that themselves.

    hold: what is read counts among what the account holds. Raises TooMany or Full for that; NotFound for what is not there, or not the caller's; StillAnswering, Invalid, TooLong; DatabaseAway.
    """
    asked = admitted.request.asked
    wanted = asked.surface.stands_on(asked.content)
    if wanted is None:
        return admitted
    limits = gateway.settings.responses.history
    # One that is going to wait for a worker is only judged here: what was read is not kept in memory for as long as it waits.
    waits = admitted.request.tier is Tier.FLEX and not admitted.request.queued
    hold = None if waits else hold
    reader = _Reader(gateway.connections, admitted.key.owner_id, limits, hold)
    try:
        prior = _conversation(reader, wanted, admitted)
        known = reader.items(prior, wanted.references, others=_may_know_more(admitted))
        reader.check_repeated(prior, wanted.references, known)
    except NotFound:
        if gateway.recorder.is_behind:
            raise retrieval.StillSpooled from None
        raise
    asked = msgspec.structs.replace(asked, continues=wanted.uuid)
    if not waits:
        told = history.told(asked.content, prior, known, continued=wanted.uuid is not None)
        asked = msgspec.structs.replace(asked, told=told)
    request = msgspec.structs.replace(admitted.request, asked=asked)
    return msgspec.structs.replace(admitted, request=request)


def _conversation(reader: _Reader, wanted: Wanted, admitted: Admitted) -> list[Item]:
    if wanted.uuid is not None:
        return reader.conversation(wanted.uuid)
    if wanted.previous is not None and not _may_know_more(admitted):
        raise _unknown(str(wanted.previous))
    return []


def _may_know_more(admitted: Admitted) -> bool:
    """Whether what is not ours may be the upstream's: one that speaks the Responses API itself, and gets what its caller says."""
    return not (admitted.adapted or admitted.strict)


def referred(
    connections: Connections, limits: History, owner: UUID, given: Iterable[Item]
) -> Mapping[str, Item]:
    """The items that these only name, as far as they are there."""
    references = list(history.references_in(given))
    return _Reader(connections, owner, limits).found(references) if references else {}


class _Reader:
    """Reads what one account has stored, a few rows at a time as far as the loop is concerned."""

    def __init__(
        self, connections: Connections, owner: UUID, limits: History, hold: Hold | None = None
    ) -> None:
        self._connections = connections
        self._hold = hold
        self._owner = str(owner)
        self._limits = limits
        self._pace = Pace()

    def conversation(self, last: UUID) -> list[Item]:
        """All that went in and came out, up to and with this response; the oldest first."""
        turns: list[list[Item]] = []
        wanted: UUID | None = last
        links = bytes_read = 0
        while wanted is not None:
            rows = self._chain(wanted, links, bytes_read)
            for row in rows:
                if row.id != wanted:
                    # What is linked in the row is not what its request says (a row by hand): its request is right.
                    break
                turn, wanted = self._turn(row, last)
                turns.append(turn)
                links += 1
                if wanted is None:
                    break
            bytes_read += rows[-1].bytes
        return [item for turn in reversed(turns) for item in turn]

    def _chain(self, first: UUID, links: int, bytes_read: int) -> list[Any]:
        """A response and those before it, newest first."""
        most_links = self._limits.max_responses - links
        most_bytes = self._limits.max_bytes - bytes_read
        values = {
            "id": first,
            "owner": self._owner,
            "most_links": most_links + 1,
            "most_bytes": most_bytes,
        }
        rows = self._fetch("chain", values)
        if not rows or rows[0].id != first:
            raise _unknown(first)
        if len(rows) > most_links or rows[-1].bytes > most_bytes:
            raise TooLong(
                f"The conversation has more than {self._limits.max_responses} responses, or more than"
                f" {self._limits.max_bytes} bytes: begin a new one, with what the model is to read as `input`.",
                param=_PARAM,
            )
        return rows

    def _turn(self, row: Any, last: UUID) -> tuple[list[Item], UUID | None]:
        self._pace()
        body = parse_object((row.request_body or "").encode()) or {}
        if body.get("store") is False:
            raise _unknown(row.id)
        response = retrieval.shown(row)
        if row.id == last:
            _check_ended(row, response)
        before = body.get("previous_response_id")
        return history.turn(body, response), history.uuid_of(before)

    def items(
        self, prior: list[Item], references: list[Reference], *, others: bool
    ) -> Mapping[str, Item]:
        """The items that the conversation and the request only name. Raises NotFound for the first that is not there.

        others: what was not minted here may stay a name.
        """
        known = {id: item for item in prior if (id := history.id_of(item)) is not None}
        earlier = list(history.references_in(prior))
        found = known | self.found([r for r in (*earlier, *references) if r.id not in known])
        for reference in (*earlier, *references):
            if reference.id not in found and (reference.origin or not others):
                own = reference in references
                raise NotFound(
                    f"Item with id '{printable(reference.id, _SHOWN)}' not found.",
                    code="item_not_found",
                    param=f"input[{reference.place}]" if own else _PARAM,
                )
        return found

    def check_repeated(
        self, prior: list[Item], references: list[Reference], known: Mapping[str, Item]
    ) -> None:
        """What is named again and again is told as often: a name of forty bytes may stand for megabytes. Raises TooLong; TooMany or Full for the
        account.
        """
        told = Counter(
            id for item in prior if (id := history.id_of(item)) is not None and id in known
        )
        told.update(
            one.id for one in (*history.references_in(prior), *references) if one.id in known
        )
        size = sum((times - 1) * _size_of(known[id]) for id, times in told.items() if times > 1)
        if size > self._limits.max_bytes:
            raise TooLong(
                f"The items that `input` and what it continues name several times have more than {self._limits.max_bytes} bytes together.",
                param="input",
            )
        if size and self._hold is not None:
            self._hold.take(Kind.BYTES, size)

    def found(self, references: list[Reference]) -> dict[str, Item]:
        """The items of these identifiers that are there, by one statement."""
        of_input = {r.origin.response for r in references if r.origin and r.origin.in_input}
        ids = {r.origin.response for r in references if r.origin}
        if not ids:
            return {}
        if len(ids) > self._limits.max_responses:
            raise TooLong(
                f"`input` names items of more than {self._limits.max_responses} responses: send the items themselves.",
                param="input",
            )
        values = {
            "ids": list(ids),
            "of_input": list(of_input),
            "owner": self._owner,
            "most_bytes": self._limits.max_bytes,
        }
        found: dict[str, Item] = {}
        wanted = {reference.id for reference in references}
        for row in self._fetch("responses_with_items", values):
            if row.bytes > self._limits.max_bytes:
                raise TooLong(
                    f"The responses whose items `input` names have more than {self._limits.max_bytes} bytes: send the items themselves.",
                    param="input",
                )
            found |= {item["id"]: item for item in self._items_of(row) if item["id"] in wanted}
        return found

    def _items_of(self, row: Any) -> list[Item]:
        self._pace()
        if retrieval.says_not_to_store(row.request_body):
            return []
        response = retrieval.shown(row)
        body = parse_object((row.request_body or "").encode()) or {}
        listed = items.output_items(response) + items.input_items(body, response["id"])
        return [item for item in listed if isinstance(item.get("id"), str)]

    def _fetch(self, name: str, values: Mapping[str, Any]) -> list[Any]:
        with self._connections.transaction() as connection:
            cursor = connection.cursor(row_factory=namedtuple_row)
            rows: list[Any] = cursor.execute(_QUERIES[name], values).fetchall()
        if self._hold is not None and rows:
            self._hold.take(Kind.BYTES, min(rows[-1].bytes, values["most_bytes"]))
        return rows


def _size_of(item: Item) -> int:
    return len(orjson.dumps(item))


def _check_ended(row: Any, response: Mapping[str, Any]) -> None:
    """Raises StillAnswering or Invalid for a response that nothing can follow."""
    if row.state in (State.PENDING, State.CLAIMED, State.PROCESSING):
        raise StillAnswering(param=_PARAM, retry_after_s=_RETRY_AFTER_S)
    if response["status"] not in _ENDED:
        raise Invalid(
            f"The response '{response['id']}' is {response['status']}: only one that has an answer can be continued.",
            code="previous_response_not_completed",
            param=_PARAM,
        )


def _unknown(id: UUID | str) -> NotFound:
    shown = f"resp_{id}" if isinstance(id, UUID) else printable(id, _SHOWN)
    return NotFound(
        f"Previous response with id '{shown}' not found.",
        code="previous_response_not_found",
        param=_PARAM,
    )
