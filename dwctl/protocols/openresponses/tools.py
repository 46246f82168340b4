"""The tools of a Responses request, for an upstream that speaks chat completions: it knows functions, and nothing else.

Functions go as they are, custom tools as functions (`custom_tools`), those of namespaces under flat names (`namespaces`). All other kinds are run by a provider itself (searches, code,
servers of its choice); nobody here can, so they are left out and named, or refused where the model's operator wants that.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, TypeGuard

from dwctl.protocols import shapes
from dwctl.protocols.errors import InvalidRequest
from dwctl.protocols.openresponses import custom_tools, namespaces
from dwctl.protocols.openresponses.namespaces import NAMESPACE, Declared
from dwctl.protocols.shapes import Check, each, one_of, with_members

Item = dict[str, Any]

# --- what is accepted


def _format(value: Any, path: str) -> None:
    shapes.an_object(value, path)
    one_of("text", "grammar")(value.get("type"), f"{path}.type")
    if value["type"] == "grammar":
        required = {"syntax": shapes.string, "definition": shapes.string}
        shapes.members(value, {}, required, f"{path}.")


_FUNCTION = with_members(
    {"description": shapes.string, "parameters": shapes.an_object, "strict": shapes.boolean},
    name=shapes.string,
)
_CUSTOM = with_members({"description": shapes.string, "format": _format}, name=shapes.string)
_RUNNABLE: Mapping[str, Check] = {"function": _FUNCTION, "custom": _CUSTOM}


def _namespace(group: Any, path: str) -> None:
    _NAMED(group, path)
    shapes.members(group, {}, {"tools": each(_check_member)}, f"{path}.")


def _check_member(tool: Any, path: str) -> None:
    """The shape of one tool in a namespace. Namespaces hold no others."""
    check_tool(tool, path)
    if tool["type"] == NAMESPACE:
        shapes.refuse_value(f"{path}.type", NAMESPACE, "'function', 'custom'")


_TYPED = with_members({}, type=shapes.string)
_NAMED = with_members({}, name=shapes.string)
_MODES = one_of("auto", "none", "required")


def check_tool(tool: Any, path: str) -> None:
    """The shape of one tool, of whatever kind."""
    _TYPED(tool, path)
    check = _namespace if tool["type"] == NAMESPACE else _RUNNABLE.get(tool["type"])
    if check is not None:
        check(tool, path)


def check_choice(choice: Any, path: str) -> None:
    """The shape of `tool_choice`. Kinds that would be left out as tools cannot be chosen."""
    if not isinstance(choice, dict):
        _MODES(choice, path)
        return
    _TYPED(choice, path)
    if choice["type"] == "allowed_tools":
        listed = each(_check_named)
        shapes.members(choice, {"mode": _MODES}, {"tools": listed}, f"{path}.")
    elif choice["type"] == "function":
        shapes.members(choice, {"name": shapes.string, "function": _NAMED}, {}, f"{path}.")
    else:
        _check_named(choice, path, "'function', 'custom', 'allowed_tools'")


def _check_named(tool: Any, path: str, supported: str = "'function', 'custom'") -> None:
    _TYPED(tool, path)
    if tool["type"] not in _RUNNABLE:
        shapes.refuse_value(f"{path}.type", tool["type"], supported)
    _NAMED(tool, path)


def check(body: Mapping[str, Any], *, refuses_unrunnable: bool) -> None:
    """What tools and choice, each of the right shape, say together. Raises InvalidRequest.

    refuses_unrunnable: a tool that would be left out is an error.
    """
    names: dict[str, str] = {}
    for one in namespaces.declared(body):
        kind = one.tool["type"]
        if kind in _RUNNABLE:
            if one.flat_name in names and not one.is_added:
                raise _wrong(f"{one.path}.name", "Two tools have the same name.")
            names[one.flat_name] = kind
        elif refuses_unrunnable:
            shapes.refuse_value(f"{one.path}.type", kind, "'function', 'custom'")
    _check_chosen(body.get("tool_choice"), names)


def _check_chosen(choice: str | Item | None, names: Mapping[str, str]) -> None:
    if isinstance(choice, dict) and choice["type"] == "allowed_tools":
        for index, tool in enumerate(choice["tools"]):
            _check_known(tool, names, f"tool_choice.tools[{index}].name")
        must, callable = choice.get("mode") == "required", choice["tools"]
    elif isinstance(choice, dict):
        if (named := _named(choice)).get("name"):
            _check_known(named, names, "tool_choice.name")
        return
    else:
        must, callable = choice == "required", names
    if must and not callable:
        raise _wrong("tool_choice", "A tool call is required, but there is no tool to call.")


def _named(choice: Item) -> Item:
    """A choice by its name, which is a level deeper in the form of a chat completion: many send that one here."""
    function = choice.get("function")
    if choice.get("name") or not isinstance(function, dict):
        return choice
    return {"type": choice.get("type"), "name": function.get("name")}


def _check_known(tool: Item, names: Mapping[str, str], path: str) -> None:
    if names.get(namespaces.flat_name(tool)) != tool["type"]:
        raise _wrong(path, f"'{path}' must be the name of a {tool['type']} tool in `tools`.")


def _wrong(path: str, message: str) -> InvalidRequest:
    return InvalidRequest(message, param=path, code="invalid_value")


# --- what becomes of them


def left_out(body: Mapping[str, Any]) -> Iterator[str]:
    """The tools that the model does not get to see, each as its place and kind."""
    for one in namespaces.declared(body):
        if not _is_runnable(one):
            yield f"{one.path} ({shapes.short(one.tool['type'])})"


def to_chat(body: Mapping[str, Any]) -> dict[str, Any]:
    """The members of a chat completion request: tools, tool_choice, parallel_tool_calls."""
    tools = {one.flat_name: one.tool for one in namespaces.declared(body) if _is_runnable(one)}
    choice = body.get("tool_choice")
    if isinstance(choice, dict) and choice["type"] == "allowed_tools":
        # What the model may not call it does not get to see: that holds with every upstream.
        allowed = {namespaces.flat_name(tool) for tool in choice["tools"]}
        tools = {name: tool for name, tool in tools.items() if name in allowed}
        choice = choice.get("mode") or "auto"
    if not tools:
        return {}
    chat: dict[str, Any] = {
        "tools": [
            {"type": "function", "function": _function(tool) | {"name": name}}
            for name, tool in tools.items()
        ]
    }
    if choice is not None:
        chat["tool_choice"] = _chosen(choice)
    if body.get("parallel_tool_calls") is not None:
        chat["parallel_tool_calls"] = body["parallel_tool_calls"]
    return chat


def _is_runnable(one: Declared) -> bool:
    """What was added in an earlier turn may be of any shape: another upstream may have had it."""
    if not one.is_added:
        return one.tool["type"] in _RUNNABLE
    try:
        check_tool(one.tool, one.path)
    except InvalidRequest:
        return False
    return one.tool["type"] in _RUNNABLE


def _function(tool: Item) -> dict[str, Any]:
    if tool["type"] == "custom":
        return custom_tools.as_function(tool)
    names = ("name", "description", "parameters", "strict")
    function = {name: tool[name] for name in names if tool.get(name) is not None}
    parameters = function.get("parameters")
    if parameters and tool.get("strict") is not False and "properties" in parameters:
        function["parameters"] = {**parameters}
        function["parameters"].setdefault("additionalProperties", False)
    return function


def _chosen(choice: str | Item) -> Any:
    if isinstance(choice, str):
        return choice
    choice = _named(choice)
    if not choice.get("name"):
        return "auto"
    return {"type": "function", "function": {"name": namespaces.flat_name(choice)}}


# --- as the object shows them


def shown(body: Mapping[str, Any]) -> list[Item]:
    """The tools that the model got to see, also those that the input adds, each once. Never raises: a row may hold anything."""
    found: dict[tuple[bool, str], Item] = {}
    for listed in namespaces.lists_of(body):
        for tool in _listed(listed):
            which = (tool["type"] == NAMESPACE, tool["name"])
            found[which] = _joined(found[which], tool) if which in found else tool
    return list(found.values())


def _joined(before: Item, tool: Item) -> Item:
    """A tool that takes the place of an earlier one. A namespace keeps the members that it does not name again."""
    if tool["type"] != NAMESPACE:
        return tool
    members = {one["name"]: one for one in (*before["tools"], *tool["tools"])}
    return {**tool, "tools": list(members.values())}


def _listed(tools: object) -> Iterator[Item]:
    for tool in tools if isinstance(tools, list) else ():
        if _is_named(tool):
            yield _shown(tool)
        elif _is_named(tool, NAMESPACE):
            listed = tool.get("tools")
            members = [_shown(one) for one in listed if _is_named(one)] if isinstance(listed, list) else []  # fmt: skip
            if members:
                said = tool.get("description")
                described = {"description": said if isinstance(said, str) else ""}
                yield {"type": NAMESPACE, "name": tool["name"], **described, "tools": members}


def shown_choice(choice: object) -> Any:
    """The choice, where it is a right one; else the default."""
    if isinstance(choice, str):
        return choice if choice in ("auto", "none", "required") else "auto"
    if isinstance(choice, dict):
        choice = _named(choice)
    if _is_named(choice):
        space = choice.get("namespace")
        return {"type": choice["type"], "name": choice["name"]} | (
            {"namespace": space} if isinstance(space, str) else {}
        )
    if isinstance(choice, dict) and choice.get("type") == "allowed_tools":
        listed = choice.get("tools")
        if isinstance(listed, list):
            mode = choice.get("mode") or "auto"
            return {"type": "allowed_tools", "mode": mode, "tools": listed}
    return "auto"


def _is_named(tool: Any, *kinds: str) -> TypeGuard[Item]:
    return (
        isinstance(tool, dict)
        and tool.get("type") in (kinds or ("function", "custom"))
        and isinstance(tool.get("name"), str)
    )


def _shown(tool: Item) -> Item:
    if tool["type"] == "custom":
        names = ("type", "name", "description", "format")
        return {name: tool[name] for name in names if tool.get(name) is not None}
    given = {name: tool.get(name) for name in ("description", "parameters", "strict")}
    return {"type": "function", "name": tool["name"], **given}
