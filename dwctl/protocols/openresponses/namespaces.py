"""Tools wherever a request declares them, and the names by which a chat upstream knows them.

They stand in `tools`, in groups there (`namespace`), and in input items (`additional_tools`), where coding agents put all of theirs. Chat
completions have flat names only: a tool of a namespace is `<namespace>__<name>` to them. One of the namespace `functions` keeps its own:
clients take a call that names no namespace for one of that.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

Item = dict[str, Any]

NAMESPACE = "namespace"
ADDITIONAL_TOOLS = "additional_tools"
_DEFAULT = "functions"


class Declared(NamedTuple):
    """A tool, and where in the request it stands. namespace: the group that it is in.

    is_added: it stands in the input, and takes the place of an earlier one of its name: agents send all of theirs with each turn.
    """

    path: str
    tool: Item
    namespace: str | None = None
    is_added: bool = False

    @property
    def flat_name(self) -> str:
        """Its name to a chat upstream."""
        return _joined(self.namespace, self.tool["name"])


class Called(NamedTuple):
    """How a call of a tool is told: as the tool was declared."""

    name: str
    namespace: str | None = None
    is_custom: bool = False


def declared(body: Mapping[str, Any]) -> Iterator[Declared]:
    """Every tool of a request, in order, those of namespaces one by one. What has no type is none: an earlier turn may hold anything."""
    yield from _ungrouped(body.get("tools"), "tools")
    for index, listed in _added(body):
        yield from _ungrouped(listed, f"input[{index}].tools", is_added=True)


def lists_of(body: Mapping[str, Any]) -> list[object]:
    """The lists of tools in a request: the first is `tools`, the others stand in its input."""
    return [body.get("tools"), *(listed for _, listed in _added(body))]


def _added(body: Mapping[str, Any]) -> Iterator[tuple[int, object]]:
    given = body.get("input")
    for index, item in enumerate(given if isinstance(given, list) else ()):
        if isinstance(item, dict) and item.get("type") == ADDITIONAL_TOOLS:
            yield index, item.get("tools")


def _ungrouped(tools: object, path: str, *, is_added: bool = False) -> Iterator[Declared]:
    for here, tool in _typed(tools, path):
        if tool["type"] != NAMESPACE:
            yield Declared(here, tool, is_added=is_added)
            continue
        for place, member in _typed(tool.get("tools"), f"{here}.tools"):
            yield Declared(place, member, tool.get("name"), is_added)


def _typed(tools: object, path: str) -> Iterator[tuple[str, Item]]:
    for index, tool in enumerate(tools if isinstance(tools, list) else ()):
        if isinstance(tool, dict) and isinstance(tool.get("type"), str):
            yield f"{path}[{index}]", tool


def flat_name(named: Mapping[str, Any]) -> str:
    """The name to a chat upstream of the tool that a call or a choice names."""
    name = named.get("name")
    return _joined(named.get("namespace"), name) if isinstance(name, str) else ""


def _joined(namespace: object, name: str) -> str:
    return name if namespace in (None, _DEFAULT) else f"{namespace}__{name}"


def by_flat_name(shown: Iterable[Item]) -> dict[str, Called]:
    """How calls are told, by the names that a chat upstream gives them. shown: see `tools.shown`."""
    found: dict[str, Called] = {}
    for tool in shown:
        space = tool["name"] if tool["type"] == NAMESPACE else None
        for member in [tool] if space is None else tool["tools"]:
            told = None if space == _DEFAULT else space
            called = Called(member["name"], told, is_custom=member["type"] == "custom")
            found[_joined(space, member["name"])] = called
    return found
