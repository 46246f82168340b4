"""Where one call goes: the server, the name that the model has there, our credential, and how long to wait."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from typing import NamedTuple
from urllib.parse import quote, urlsplit
from uuid import UUID

from dwctl.errors import Invalid
from dwctl.upstream.redaction import secret_of

_DEFAULT_PORTS = {"http": 80, "https": 443}
_FIXED = (("accept-encoding", "identity"),)
_SAFE_IN_PATHS = "/?&=%!$'()*+,;:@-._~[]"


class Origin(NamedTuple):
    """What connections are kept by."""

    scheme: str
    host: str
    port: int


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Limits in seconds. `idle_s` is between two pieces of a body, `total_s` for everything after the call began."""

    connect_s: float = 10
    first_byte_s: float = 600
    idle_s: float = 300
    total_s: float | None = None


@dataclass(frozen=True, slots=True)
class Target:
    """The endpoint chosen for one call. Made once for each deployment, so what can be worked out is.

    Raises ValueError for what is not an absolute http(s) URL, has a user name in it, or for a credential that no
    header can carry.
    """

    base_url: str
    model_name: str
    auth_header: tuple[str, str] | None = field(repr=False)
    timeouts: Timeouts
    endpoint_id: UUID
    endpoint_name: str
    trusted: bool
    origin: Origin = field(init=False, repr=False, compare=False)
    fixed_lines: str = field(init=False, repr=False, compare=False)
    """The head's lines that are the same in each call: host, our credential, no compression."""
    secret: bytes = field(init=False, repr=False, compare=False)
    """What of our credential nobody else may see; empty where there is none."""
    _base: tuple[str, str] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        origin = parse_origin(self.base_url)
        lines = [("host", _host_header(origin)), *_FIXED]
        if self.auth_header:
            lines.append(self.auth_header)
        fixed = "".join(f"{name}: {value}\r\n" for name, value in lines)
        if fixed.count("\r") != len(lines) or fixed.count("\n") != len(lines):
            raise ValueError("A credential cannot contain line breaks")
        fixed.encode("latin-1")
        object.__setattr__(self, "origin", origin)
        object.__setattr__(self, "fixed_lines", fixed)
        object.__setattr__(self, "secret", secret_of(self.auth_header))
        object.__setattr__(self, "_base", _split_base(self.base_url))

    def request_path(self, path: str) -> str:
        """`request_path` for this target's base URL."""
        return _join(*self._base, path)


def request_path(base_url: str, path: str) -> str:
    """What stands in the request line for `path` (without `/ai/v1`, with its query) below a base URL.

    A path that begins with the base's own path does not repeat it; nothing else is added or taken away, and the
    base's own query is kept. Characters that no request line can hold are percent-encoded.
    Raises: Invalid (400) for `.` and `..` segments, which would lead out of the base path.
    """
    return _join(*_split_base(base_url), path)


@lru_cache(maxsize=1024)
def parse_origin(base_url: str) -> Origin:
    parts = urlsplit(base_url)
    if parts.scheme not in _DEFAULT_PORTS or not parts.hostname:
        raise ValueError("A base URL must be an absolute http or https URL")
    if parts.username is not None:
        raise ValueError(
            "A base URL cannot contain a user name; the credential has a place of its own"
        )
    host = parts.hostname
    if not host.isascii():
        host = host.encode("idna").decode("ascii")
    return Origin(parts.scheme, host, parts.port or _DEFAULT_PORTS[parts.scheme])


def _host_header(origin: Origin) -> str:
    host = f"[{origin.host}]" if ":" in origin.host else origin.host
    return host if origin.port == _DEFAULT_PORTS[origin.scheme] else f"{host}:{origin.port}"


@lru_cache(maxsize=1024)
def _split_base(base_url: str) -> tuple[str, str]:
    """The base's path without its last slash, and its query."""
    parts = urlsplit(base_url)
    return _printable(parts.path).rstrip("/"), _printable(parts.query)


@lru_cache(maxsize=256)
def _join(base_path: str, base_query: str, path: str) -> str:
    if not path.startswith("/"):
        path = "/" + path
    if base_path and path.startswith(base_path) and path[len(base_path) :][:1] in ("", "/", "?"):
        path = path[len(base_path) :]
    if "/." in path or "%2" in path:
        _refuse_dot_segments(path)
    joined = base_path + _printable(path)
    if base_query:
        joined += ("&" if "?" in joined else "?") + base_query
    return joined or "/"


def _refuse_dot_segments(path: str) -> None:
    plain = path.partition("?")[0].lower().replace("%2e", ".").replace("%2f", "/")
    if {".", ".."} & set(plain.split("/")):
        raise Invalid("A path cannot contain the segments . and ..")


def _printable(text: str) -> str:
    if text.isascii() and text.isprintable() and " " not in text:
        return text
    return quote(text, safe=_SAFE_IN_PATHS)
