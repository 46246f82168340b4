"""Tool calls whose index, identifier, name or arguments are missing, repeated, late or of another type: made what the protocol says.

The cases are in `tests/protocols/dialects/`.
"""

from __future__ import annotations

from hashlib import blake2b
from typing import Any

import orjson

from dwctl.protocols.parts import PartsBudget

Json = dict[str, Any]

_MOST_LOOKS = 200
_BODIES = ("function", "custom")


class Calls:
    """The tool calls of one choice, numbered in the order in which they begin."""

    __slots__ = ("_are_whole", "_budget", "_calls", "_ids", "_latest", "_seed", "_under")

    def __init__(self, seed: str, budget: PartsBudget, *, are_whole: bool = False) -> None:
        """are_whole: each part is a call of its own."""
        self._are_whole = are_whole
        self._seed = seed
        self._budget = budget
        self._calls: list[_Call] = []
        self._under: dict[int, _Call] = {}  # the latest call under each index
        self._latest: _Call | None = None
        self._ids: set[str] = set()

    def read(self, given: object) -> tuple[list[Json], bool]:
        """The parts as they should be, and whether they differ from those that were given. Raises TooMuch."""
        if not given:
            return [], False
        listed = given if type(given) is list else [given]
        parts = []
        differ = listed is not given
        fresh: set[int] = set()
        for part in listed:
            if type(part) is not dict or not (part.get("id") or _body(part)):
                differ = True
                continue
            call = self._of(part, fresh)
            fresh.add(call.position)
            said = call.read(part)
            differ = differ or said != part
            if said is not None:
                parts.append(said)
        return parts, differ

    def rest(self, *, are_over: bool) -> list[Json]:
        """What is held back of calls that have ended. are_over: by themselves, so that what has no arguments takes none."""
        ended = (call.ended(is_whole=are_over) for call in self._calls)
        return [part for part in ended if part is not None]

    def _of(self, part: Json, fresh: set[int]) -> _Call:
        index, id = part.get("index"), part.get("id")
        if isinstance(index, str) and index.isdecimal() and len(index) < 10:
            index = int(index)
        known = self._under.get(index) if type(index) is int else self._latest
        if self._are_whole:
            known = None
        if known is None or known.is_over(part, id, has_index=type(index) is int, fresh=fresh):
            self._budget.spend()
            known = _Call(len(self._calls), self._seed, self._ids)
            self._calls.append(known)
        if type(index) is int:
            self._under[index] = known
        self._latest = known
        return known


class _Call:
    """One call as far as it is known. It is said once its identifier and its name are there, or it is whole."""

    __slots__ = (
        "_arguments",
        "_ended",
        "_given_id",
        "_held",
        "_id",
        "_ids",
        "_kind",
        "_looks",
        "_name",
        "_seed",
        "_shown",
        "position",
    )

    def __init__(self, position: int, seed: str, ids: set[str]) -> None:
        self.position = position
        self._seed = seed
        self._ids = ids  # of all calls of this choice
        self._id = self._given_id = self._name = ""
        self._kind = "function"
        self._arguments: list[str] = []
        self._looks = _MOST_LOOKS
        self._held: Json = {}  # members of its own, until it is said
        self._shown = self._ended = False

    def is_over(self, part: Json, id: object, *, has_index: bool, fresh: set[int]) -> bool:
        """Whether a part that names this call, or none, begins another one: servers number all calls alike, or not at all."""
        body = _body(part)
        name = body.get("name") if body else None
        if id and self._given_id:
            return id != self._given_id and (bool(name) or not has_index)
        if not name or not self._name:
            return False
        if has_index and id is None and self._given_id and name == self._name:
            return False
        if self.position in fresh or name != self._name:
            return True
        return bool(body and body.get("arguments")) and self._is_whole()

    def read(self, part: Json) -> Json | None:
        """The part as it should be; None where it is held back."""
        body = _body(part) or {}
        if not self._given_id and (id := part.get("id")):
            self._given_id = id if isinstance(id, str) else spelled(id)
        name = body.get("name")
        if name and not self._name:
            self._name = name if isinstance(name, str) else spelled(name)
        fragment = self._fragment(body, is_repeat=bool(name))
        if type(part.get("custom")) is dict:
            self._kind = "custom"
        if self._shown:
            return self._more(part, body, fragment)
        for member, value in part.items():
            if (
                member not in ("index", "id", "type", "name", "arguments", *_BODIES)
                and value is not None
            ):
                self._held[member] = value
        own = {n: v for n, v in body.items() if n not in ("name", "arguments", "input")}
        if fragment:
            self._arguments.append(fragment)
        if own:
            self._held.setdefault(self._kind, {}).update(own)
        if self._name and (self._given_id or self._is_whole()):
            return self._first()
        return None

    def ended(self, *, is_whole: bool) -> Json | None:
        """What is still to be said once no more parts come. is_whole: it was not cut."""
        if self._ended:
            return None
        self._ended = True
        if not self._shown:
            return self._first(is_whole=is_whole)
        if is_whole and self._kind == "function" and not "".join(self._arguments).strip():
            self._arguments.append("{}")
            return {"index": self.position, "function": {"arguments": "{}"}}
        return None

    def _first(self, *, is_whole: bool = False) -> Json:
        self._shown = True
        self._id = self._given_id
        if not self._id or self._id in self._ids:
            digest = blake2b(f"{self._seed}/{self.position}".encode(), digest_size=12)
            self._id = f"call_{digest.hexdigest()}"
        self._ids.add(self._id)
        arguments = "".join(self._arguments)
        if is_whole and self._kind == "function" and not arguments.strip():
            arguments = "{}"
            self._arguments = [arguments]
        name = "input" if self._kind == "custom" else "arguments"
        held, self._held = self._held, {}
        own = held.pop(self._kind, {})
        return {
            "index": self.position,
            "id": self._id,
            "type": self._kind,
            self._kind: {"name": self._name, name: arguments, **own},
            **held,
        }

    def _more(self, part: Json, body: Json, fragment: str) -> Json | None:
        said = {n: v for n, v in part.items() if n not in ("name", "arguments")}
        said["index"] = self.position
        if said.get("id"):
            del said["id"]
        if "type" in said and said["type"] not in (self._kind, None):
            del said["type"]
        inner = dict(body)
        if inner.get("name"):
            del inner["name"]
        name = "input" if self._kind == "custom" else "arguments"
        if fragment or name in inner:
            inner[name] = fragment
        if inner or self._kind in said:
            said[self._kind] = inner
        self._arguments.append(fragment)
        return said if len(said) > 1 else None

    def _fragment(self, body: Json, *, is_repeat: bool) -> str:
        given = body.get("arguments", body.get("input"))
        if given is None or given == "":
            return ""
        if type(given) is str:
            # The whole once more, with its name: a summary that some gateways put behind a call.
            repeats = is_repeat and self._shown and given == "".join(self._arguments)
            return "" if repeats and self._is_whole() else given
        return spelled(given)

    def _is_whole(self) -> bool:
        """Its arguments are a whole object. Looked at in full only where that may be, and so often at the most: the work grows with them."""
        said = self._arguments
        if not self._looks or not said or said[-1].rstrip()[-1:] != "}":
            return False
        self._looks -= 1
        try:
            return type(orjson.loads("".join(said))) is dict
        except ValueError:
            return False


def _body(part: Json) -> Json | None:
    for name in _BODIES:
        if type(part.get(name)) is dict:
            found: Json = part[name]
            return found
    return {n: part[n] for n in ("name", "arguments") if n in part} if part.get("name") else None


def spelled(value: object) -> str:
    """A value that should have been a text, as JSON."""
    try:
        return orjson.dumps(value).decode()
    except TypeError:
        return ""
