"""What was said in a call, made readable: JSON with its lines, and the words of the conversation. All of it is text of strangers. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import orjson

_MOST_SHOWN = 64 * 1024
"""Characters of a body on a page, laid out."""
_MOST_LAID_OUT = 256 * 1024
_DEEPEST = 40
"""Levels of nesting to which JSON is laid out: what is deeper would be mostly spaces."""
_MOST_OF_TURN = 8 * 1024
_MOST_TURNS = 40


@dataclass(frozen=True, slots=True)
class Turn:
    """What somebody said. who: `user`, `assistant`, `reasoning`, a tool's name ..."""

    who: str
    text: str


@dataclass(frozen=True, slots=True)
class Body:
    """text: as it is shown. size: of all of it, in bytes. is_cut: more was said than stands here. turns: the words in it, where there are any."""

    text: str
    size: int | None
    is_cut: bool
    content: Any
    turns: tuple[Turn, ...]


def body(text: str | None, size: int | None) -> Body | None:
    """A body of the log; None where there is none."""
    if text is None:
        return None
    content = _read(text)
    laid_out = _laid_out(text, content)
    was_cut = size is not None and len(text.encode("utf-8", "surrogatepass")) < size
    is_cut = len(laid_out) > _MOST_SHOWN or was_cut
    return Body(laid_out[:_MOST_SHOWN], size, is_cut, content, tuple(_some(_turns(content))))


def error_of(content: Any) -> tuple[str | None, str | None]:
    """The code and the message of an error in the form of OpenAI's or of a stored failure; None for what it does not say."""
    error = content.get("error") if isinstance(content, dict) else None
    found = error if isinstance(error, dict) else content if isinstance(content, dict) else {}
    code, message = found.get("code"), found.get("message")
    return (
        code if isinstance(code, str) else None,
        message if isinstance(message, str) else error if isinstance(error, str) else None,
    )


def read(text: str | None) -> Any:
    """JSON, or None for what is none."""
    return None if text is None else _read(text)


def laid_out(value: Any) -> list[str]:
    """JSON in lines, with the members of objects in one order: to be compared."""
    return _dumped(value, sort=True).splitlines() if _is_shallow(value) else []


def _read(text: str) -> Any:
    try:
        return orjson.loads(text)
    except (orjson.JSONDecodeError, UnicodeEncodeError):
        return None


def _laid_out(text: str, content: Any) -> str:
    if not isinstance(content, (dict, list)) or len(text) > _MOST_LAID_OUT:
        return text
    return _dumped(content) if _is_shallow(content) else text


def _dumped(value: Any, *, sort: bool = False) -> str:
    return orjson.dumps(
        value, option=orjson.OPT_INDENT_2 | (orjson.OPT_SORT_KEYS if sort else 0)
    ).decode()


def _is_shallow(value: Any) -> bool:
    level = [value] if isinstance(value, (dict, list)) else []
    for _depth in range(_DEEPEST):
        level = [
            inner
            for one in level
            for inner in (one.values() if isinstance(one, dict) else one)
            if isinstance(inner, (dict, list))
        ]
    return not level


def _some(turns: Iterator[Turn]) -> Iterator[Turn]:
    for number, turn in enumerate(turns):
        if number == _MOST_TURNS:
            yield Turn("…", "The rest stands in the JSON below.")
            return
        if turn.text:
            yield Turn(turn.who[:64], _cut(turn.text))


def _cut(text: str) -> str:
    return (
        text
        if len(text) <= _MOST_OF_TURN
        else text[:_MOST_OF_TURN] + " … (cut; all of it stands below)"
    )


# --- where the words are, in each protocol


def _turns(content: Any) -> Iterator[Turn]:
    if not isinstance(content, dict):
        return
    yield from _asked(content)
    yield from _answered(content)


def _asked(content: Mapping[str, Any]) -> Iterator[Turn]:
    if isinstance(instructions := content.get("instructions"), str) and "output" not in content:
        yield Turn("instructions", instructions)
    for message in _objects(content.get("messages")):
        yield from _message(message)
    given = content.get("input")
    if isinstance(given, str):
        yield Turn("input", given)
    for item in given if isinstance(given, list) else ():
        if isinstance(item, str):
            yield Turn("input", item)
        elif isinstance(item, dict):
            yield from _item(item)
    if isinstance(prompt := content.get("prompt"), str):
        yield Turn("prompt", prompt)


def _answered(content: Mapping[str, Any]) -> Iterator[Turn]:
    for choice in _objects(content.get("choices")):
        if isinstance(message := choice.get("message"), dict):
            yield from _message(message)
        elif isinstance(text := choice.get("text"), str):
            yield Turn("assistant", text)
    for item in _objects(content.get("output")):
        yield from _item(item)
    vectors = [one for one in _objects(content.get("data")) if "embedding" in one]
    if vectors:
        first = vectors[0]["embedding"]
        size = f" of {len(first)} numbers" if isinstance(first, list) else ""
        yield Turn(
            "embeddings", f"{len(vectors)} {'vector' if len(vectors) == 1 else 'vectors'}{size}"
        )
    if isinstance(error := content.get("error"), dict) and isinstance(error.get("message"), str):
        yield Turn("error", error["message"])


def _message(message: Mapping[str, Any]) -> Iterator[Turn]:
    who = str(message.get("role") or "assistant")
    for name in ("reasoning_content", "reasoning"):
        if isinstance(thought := message.get(name), str):
            yield Turn("reasoning", thought)
    yield Turn(who, _words(message.get("content")))
    if isinstance(refusal := message.get("refusal"), str):
        yield Turn(f"{who}, refusing", refusal)
    for call in _objects(message.get("tool_calls")):
        yield from _tool_call(call.get("function"))
    yield from _tool_call(message.get("function_call"))


def _item(item: Mapping[str, Any]) -> Iterator[Turn]:
    kind = item.get("type")
    if kind == "function_call":
        yield from _tool_call(item)
    elif kind == "function_call_output":
        yield Turn("tool", _words(item.get("output")))
    elif kind == "reasoning":
        yield Turn("reasoning", _words(item.get("summary")) or _words(item.get("content")))
    else:
        yield from _message(item)


def _tool_call(function: Any) -> Iterator[Turn]:
    if isinstance(function, dict):
        yield Turn("tool call", f"{function.get('name')}({_words(function.get('arguments'))})")


def _words(content: Any) -> str:
    """A text, or the texts of its parts; of other parts what they are."""
    if isinstance(content, str):
        return content
    parts = []
    for part in _objects(content):
        text = part.get("text") if isinstance(part.get("text"), str) else part.get("refusal")
        parts.append(text if isinstance(text, str) else f"[{part.get('type', 'something')}]")
    return "\n".join(parts)


def _objects(value: Any) -> Iterator[dict[str, Any]]:
    return (one for one in value if isinstance(one, dict)) if isinstance(value, list) else iter(())
