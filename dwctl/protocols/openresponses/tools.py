"""The tools of a Responses request, for an upstream that speaks chat completions: it knows functions, and nothing else.

Functions go as they are, custom tools as functions (`custom_tools`). All other kinds are run by a provider itself (searches, code,
servers of its choice); nobody here can, so they are left out and named, or refused where the model's operator wants that.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, TypeGuard

from dwctl.protocols import shapes
from dwctl.protocols.errors import InvalidRequest
from dwctl.protocols.openresponses import custom_tools
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
_TYPED = with_members({}, type=shapes.string)
_NAMED = with_members({}, name=shapes.string)
_MODES = one_of("auto", "none", "required")


def check_tool(tool: Any, path: str) -> None:
    """The shape of one tool, of whatever kind."""
    _TYPED(tool, path)
    check = _RUNNABLE.get(tool["type"])
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
        shapes.members(choice, {"name": shapes.string}, {}, f"{path}.")
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
    for index, tool in enumerate(body.get("tools") or ()):
        path = f"tools[{index}]"
        if tool["type"] in _RUNNABLE:
            if tool["name"] in names:
                raise _wrong(f"{path}.name", "Two tools have the same name.")
            names[tool["name"]] = tool["type"]
        elif refuses_unrunnable:
            shapes.refuse_value(f"{path}.type", tool["type"], "'function', 'custom'")
    _check_chosen(body.get("tool_choice"), names)


def _check_chosen(choice: str | Item | None, names: Mapping[str, str]) -> None:
    if isinstance(choice, dict) and choice["type"] == "allowed_tools":
        for index, tool in enumerate(choice["tools"]):
            _check_known(tool, names, f"tool_choice.tools[{index}].name")
        must, callable = choice.get("mode") == "required", choice["tools"]
    elif isinstance(choice, dict):
        if choice.get("name"):
            _check_known(choice, names, "tool_choice.name")
        return
    else:
        must, callable = choice == "required", names
    if must and not callable:
        raise _wrong("tool_choice", "A tool call is required, but there is no tool to call.")


def _check_known(tool: Item, names: Mapping[str, str], path: str) -> None:
    if names.get(tool["name"]) != tool["type"]:
        raise _wrong(path, f"'{path}' must be the name of a {tool['type']} tool in `tools`.")


def _wrong(path: str, message: str) -> InvalidRequest:
    return InvalidRequest(message, param=path, code="invalid_value")


# --- what becomes of them


def left_out(body: Mapping[str, Any]) -> Iterator[str]:
    """The tools that the model does not get to see, each as its place and kind."""
    for index, tool in enumerate(body.get("tools") or ()):
        if tool["type"] not in _RUNNABLE:
            yield f"tools[{index}] ({shapes.short(tool['type'])})"


def to_chat(body: Mapping[str, Any]) -> dict[str, Any]:
    """The members of a chat completion request: tools, tool_choice, parallel_tool_calls."""
    tools = [tool for tool in body.get("tools") or () if tool["type"] in _RUNNABLE]
    choice = body.get("tool_choice")
    if isinstance(choice, dict) and choice["type"] == "allowed_tools":
        # What the model may not call it does not get to see: that holds with every upstream.
        allowed = {tool["name"] for tool in choice["tools"]}
        tools = [tool for tool in tools if tool["name"] in allowed]
        choice = choice.get("mode") or "auto"
    if not tools:
        return {}
    chat: dict[str, Any] = {
        "tools": [{"type": "function", "function": _function(t)} for t in tools]
    }
    if choice is not None:
        chat["tool_choice"] = _chosen(choice)
    if body.get("parallel_tool_calls") is not None:
        chat["parallel_tool_calls"] = body["parallel_tool_calls"]
    return chat


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
    if not choice.get("name"):
        return "auto"
    return {"type": "function", "function": {"name": choice["name"]}}


# --- as the object shows them


def shown(tools: object) -> list[Item]:
    """The tools that the model got to see. Never raises: a row may hold anything."""
    if not isinstance(tools, list):
        return []
    return [_shown(tool) for tool in tools if _is_named(tool)]


def shown_choice(choice: object) -> Any:
    """The choice, where it is a right one; else the default."""
    if isinstance(choice, str):
        return choice if choice in ("auto", "none", "required") else "auto"
    if _is_named(choice):
        return {"type": choice["type"], "name": choice["name"]}
    if isinstance(choice, dict) and choice.get("type") == "allowed_tools":
        listed = choice.get("tools")
        if isinstance(listed, list):
            mode = choice.get("mode") or "auto"
            return {"type": "allowed_tools", "mode": mode, "tools": listed}
    return "auto"


def custom_names(tools: list[Item]) -> frozenset[str]:
    """The names of those of the shown tools whose calls are custom."""
    return frozenset(tool["name"] for tool in tools if tool["type"] == "custom")


def _is_named(tool: Any) -> TypeGuard[Item]:
    return (
        isinstance(tool, dict)
        and tool.get("type") in ("function", "custom")
        and isinstance(tool.get("name"), str)
    )


def _shown(tool: Item) -> Item:
    if tool["type"] == "custom":
        names = ("type", "name", "description", "format")
        return {name: tool[name] for name in names if tool.get(name) is not None}
    given = {name: tool.get(name) for name in ("description", "parameters", "strict")}
    return {"type": "function", "name": tool["name"], **given}
