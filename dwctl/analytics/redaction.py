"""What the request log may show of a call's head. Pure.

A secret is known by the name of the header or of the query's parameter that carries it, or, wherever it stands, by its form: a key
(`sk-...`), what follows `Bearer` or `Basic`, a signed token. Bodies are what somebody said, and are shown whole or not at all.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from functools import lru_cache
from urllib.parse import unquote_plus

REDACTED = "[redacted]"

_LONGEST_VALUE = 2048
_LONGEST_NAME = 128
# The log has room for half of that.
_LONGEST_QUERY = 4096
_MOST_HEADERS = 100
_SHORT = 256
# "tokens" are what models count.
_NAMES = re.compile(
    r"authori[sz]|authent|cookie|secret|passw|passphrase|passcode|credential|signature|jwt|bearer|token(?!s)|session|sess-?id"
    r"|(?:^|-)(?:auth|access|refresh|id|api)-?tokens|api-?key|access-?key|(?<!idempotency)-keys?$|-auth$|-sig$|-pass$|-?pwd$"
    r"|(?:auth|client|master|my|private|service|shared|sign|signing|user)key|^(?:keys?|auth|sig|sign|pass|code|otp|dsn)$"
)
_FORMS = re.compile(
    # (A word before it makes it another word: "risk-"; what stands for a byte, as in "%3D", does not.)
    r"(?:(?<![A-Za-z0-9])|(?<=%[0-9A-F][0-9A-F]))[sr]k-[A-Za-z0-9_-]{12,}"
    r"|\b(?:bearer|basic)(?:\s|%20|\+)+[A-Za-z0-9+/=._~%-]{6,}"
    r"|(?<![A-Za-z0-9_-])eyJ[A-Za-z0-9_-]{6,4096}\.[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]*)?"
    r"|//[^/?#@\s]+@",
    re.IGNORECASE,
)
_PARAMETERS = re.compile(r"""(?<=[?&;])([^=&;?#\s]{1,128}=)[^&;#\s"'<>]+""")
"""Of a URL, as `Referer` and `Link` have them."""
_BETWEEN = re.compile("([&;])")


@lru_cache(4096)
def is_secret(name: str) -> bool:
    """Whether what goes by that name is a secret, as a header or in a query."""
    return _NAMES.search(name.lower().replace("_", "-")) is not None


def hidden(text: str) -> str:
    """A text without what looks like a secret."""
    return _hidden(text) if len(text) <= _SHORT else _masked(text)


@lru_cache(4096)
def _hidden(text: str) -> str:
    # Most values of headers are there with every call.
    return _masked(text)


def _masked(text: str) -> str:
    return _PARAMETERS.sub(_parameter, _FORMS.sub(_mask, text))


def program(user_agent: str | None) -> str | None:
    """What a caller's program calls itself."""
    return None if user_agent is None else hidden(user_agent[:_LONGEST_VALUE])


def uri(path: str, query: str) -> str:
    """The path below the mount with its query, without secrets."""
    if "%" in path and hidden(_plain(path)) != _plain(path):
        path = _plain(path)
    if not query:
        return hidden(f"/{path}")
    return hidden(f"/{path}?{''.join(map(_pair, _BETWEEN.split(query[:_LONGEST_QUERY])))}")


def headers(
    pairs: Iterable[tuple[str, str]], *, also: Collection[str], only: Collection[str] | None = None
) -> dict[str, str | list[str]]:
    """Headers (names in lower case) by their names, those that are there twice as a list of values.

    also: names whose values are secrets here. only: which are shown at all; None: every one.
    """
    found: dict[str, str | list[str]] = {}
    for whole_name, value in pairs:
        name = hidden(whole_name[:_LONGEST_VALUE])[:_LONGEST_NAME]
        if only is not None and name not in only:
            continue
        shown = REDACTED if name in also or is_secret(name) else _cut(value)
        before = found.get(name)
        if before is None:
            if len(found) == _MOST_HEADERS:
                break
            found[name] = shown
        else:
            found[name] = [*([before] if isinstance(before, str) else before), shown]
    return found


def _cut(value: str) -> str:
    # A secret that the cut goes through is known by what stands behind it.
    return hidden(value[: 2 * _LONGEST_VALUE])[:_LONGEST_VALUE]


def _pair(pair: str) -> str:
    """One of a query, without what only shows itself as a secret when it is decoded; `hidden` finds the rest."""
    name, given, value = pair.partition("=")
    if given and is_secret(_plain(name)):
        return f"{name}={REDACTED}"
    if "%" not in pair and "+" not in pair:
        return pair
    if hidden(_plain(name)) != _plain(name):
        name = REDACTED
    return f"{name}{given}{REDACTED if hidden(_plain(value)) != _plain(value) else value}"


def _plain(text: str) -> str:
    # Some servers decode twice.
    return unquote_plus(unquote_plus(text))


def _parameter(found: re.Match[str]) -> str:
    return f"{found[1]}{REDACTED}" if is_secret(_plain(found[1][:-1])) else found[0]


def _mask(found: re.Match[str]) -> str:
    return f"//{REDACTED}@" if found[0].startswith("//") else REDACTED
