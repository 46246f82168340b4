"""What a request is going to use, in LLM tokens, before it runs: what is likely, and what it cannot exceed. Pure.

Bounds err on the safe side: whoever sets money aside by them has set enough aside.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from dwctl.protocols.usage import MOST_TOKENS, count, is_media, prompt_estimate

MEDIA_AT_MOST = 4_000
"""Tokens of an image, a sound, a film or a file: what the usual sizes cost with most models. Very large ones can cost more."""
_AROUND_ANY = 16
_AROUND_EACH = 8
"""What a model's template puts around a request, and around each message, part and tool of it; the names of their usual members are in that."""
_AROUND_VALUE = 3
"""What JSON puts around each name and value where a model reads it as such: quotes, a colon or comma, space."""
_USUAL = frozenset(["role", "content", "type", "text"])
_UNREAD = frozenset(["model", "user", "metadata", "service_tier", "stream_options", "prompt_cache_key", "safety_identifier"])  # fmt: skip
"""What is said to the server, and not to the model. So are numbers and switches at the top."""
_SAID = frozenset(["messages", "input", "prompt", "system", "instructions", "query", "documents"])
"""What callers say, and tools have answered."""
_NESTED = frozenset([list, dict])
_IDS = 2**20
"""No vocabulary has so many tokens."""


def likely_tokens(content: Mapping[str, Any], names: Collection[str]) -> int:
    """How many tokens a call is likely to use: its prompt, and as much of an answer as it allows, where it says so (`names`: see `most_written`)."""
    return min(prompt_estimate(content) + (most_written(content, names) or 0), MOST_TOKENS)


def most_read(content: Mapping[str, Any]) -> int:
    """The tokens of a prompt at most: tokenizers that work on bytes make no more tokens of a text than it has bytes.

    About four times what English has in the end. Only media may be more (`MEDIA_AT_MOST`).
    """
    tokens = _AROUND_ANY
    for name, value in content.items():
        if name not in _UNREAD and isinstance(value, str | list | dict):
            tokens += _most_of(value, is_said=name in _SAID)
    return min(tokens, MOST_TOKENS)


def _most_of(value: object, *, is_said: bool) -> int:
    """Only what `is_said` has media, and prompts that are token ids; a tool may call anything by their names, and is read as text."""
    tokens = 0
    left = [value]
    while left:
        here = left.pop()
        if not is_said and not isinstance(here, list | dict):
            tokens += _AROUND_VALUE
        if isinstance(here, str):
            tokens += len(here.encode("utf-8", "surrogatepass"))
        elif isinstance(here, list):
            if is_said and _are_ids(here):
                tokens += len(here)
            else:
                left += here
        elif isinstance(here, dict):
            tokens += _AROUND_EACH
            if is_said and is_media(here):
                tokens += MEDIA_AT_MOST
            else:
                left += here.keys() - _USUAL
                left += here.values()
        else:
            tokens += len(str(here))
    return tokens


def most_of_media(body: bytes, content: Mapping[str, Any]) -> int:
    """The tokens of a prompt's media alone, which may be more than its bytes: where it only names them. `body`: the same as it came."""
    if b'"type"' not in body and b"\\" not in body:
        return 0
    tokens = 0
    left = [content[name] for name in _SAID if name in content]
    while left:
        here = left.pop()
        if type(here) is dict:
            if "type" in here and is_media(here):
                tokens += MEDIA_AT_MOST
                continue
            inside: Collection[Any] = here.values()
        elif type(here) is list:
            inside = here
        else:
            continue
        # Of most messages that is all: each of their values is a text.
        if not _NESTED.isdisjoint(map(type, inside)):
            left += inside
    return min(tokens, MOST_TOKENS)


def most_written(content: Mapping[str, Any], names: Collection[str]) -> int | None:
    """The tokens of all answers at most, where the request says how long one may become; None where it does not.

    names: by which members its protocol says so (`Surface.limited_by`). Servers overlook those of another protocol, which therefore bound nothing.
    """
    allowed = 0
    for name in names:
        if name in content:
            allowed = max(allowed, count(content[name]) or 0)
    return min(allowed * answers(content), MOST_TOKENS) if allowed else None


def answers(content: Mapping[str, Any]) -> int:
    """How many answers are written: so many to each prompt, of which the completions API takes several."""
    each = 1
    for name in ("n", "best_of"):
        if name in content:
            each = max(each, count(content[name]) or 0)
    prompts = content.get("prompt")
    several = isinstance(prompts, list) and prompts and type(prompts[0]) is not int
    return each * (len(prompts) if several else 1)  # type: ignore[arg-type]


def _are_ids(values: list[Any]) -> bool:
    """Whether each of them is a token."""
    return set(map(type, values)) == {int} and 0 <= min(values) <= max(values) < _IDS
