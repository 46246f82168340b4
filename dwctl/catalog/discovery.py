"""Asks an inference server which models it serves, and guesses from a name what a model is for. No database: callers hold no connection."""

from __future__ import annotations

import re
import ssl
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from urllib.parse import urlsplit

import orjson
import requests
from requests import PreparedRequest, Response
from urllib3.exceptions import HTTPError, ReadTimeoutError

from dwctl.errors import DwctlError, Invalid
from dwctl.upstream.target import parse_origin, request_path

MAX_BYTES = 16 * 1024 * 1024
_CONNECT_TIMEOUT_S = 10.0
_ANTHROPIC = "api.anthropic.com"

_RERANKER = re.compile(r"\brerank|rerank(er)?\b|\bcross ?encoder")
_EMBEDDINGS = re.compile(
    r"\bembedding|embed(ding|dings)?\b|\bembedder\b|\bada\b|\bsentence transformer|\ball minilm|\bbge\b|\be5\b"
)


class DiscoveryFailed(DwctlError):
    """The endpoint's list of models could not be read."""

    code = "endpoint_unreachable"
    status = 502
    retryable = True


@dataclass(frozen=True, slots=True)
class Server:
    """Whom to ask, and our credential there."""

    url: str
    api_key: str | None = field(repr=False)
    auth_header_name: str = "Authorization"
    auth_header_prefix: str = "Bearer "

    @property
    def speaks_anthropic(self) -> bool:
        """Whether it wants Anthropic's own headers."""
        parts = urlsplit(self.url)
        return parts.scheme == "https" and parts.hostname == _ANTHROPIC


@dataclass(frozen=True, slots=True)
class ListedModel:
    """One entry of a server's list; only the id is certain."""

    id: str
    created: int | None = None
    owned_by: str = ""
    object: str = "model"


def normalise_url(text: str) -> str:
    """An endpoint's URL as it is kept: a bare host gains a slash, a path stays as sent.

    Raises: Invalid for what is not an absolute http(s) URL. Nothing is resolved or called.
    """
    try:
        parts = urlsplit(text.strip())
        parse_origin(parts.geturl())
    except ValueError as error:
        raise Invalid("Invalid URL format", param="url") from error
    if not parts.geturl().isprintable() or " " in parts.geturl():
        raise Invalid("Invalid URL format", param="url")
    return parts._replace(path=parts.path or "/", fragment="").geturl()


def list_models(server: Server, *, timeout_s: float) -> list[ListedModel]:
    """The models that a server lists, each once, in its order.

    The limit is for the whole answer. Redirects are not followed: calls would not follow them either.
    Raises: DiscoveryFailed with the reason.
    """
    parts = urlsplit(server.url)
    path = request_path(server.url, "/models?limit=1000" if server.speaks_anthropic else "/models")
    url = f"{parts.scheme}://{parts.netloc}{path}"
    shown = url.partition("?")[0]
    until = time.monotonic() + timeout_s
    try:
        with (
            _session() as session,
            session.get(
                url,
                headers={"Accept": "application/json"},
                auth=lambda request: _with_credential(server, request),
                timeout=(min(_CONNECT_TIMEOUT_S, timeout_s), timeout_s),
                stream=True,
                allow_redirects=False,
            ) as response,
        ):
            body = _read(response, until, timeout_s)
    except (requests.Timeout, ReadTimeoutError) as error:
        raise DiscoveryFailed(f"{shown} did not answer within {timeout_s:g} s") from error
    except (requests.RequestException, HTTPError, UnicodeError) as error:
        raise DiscoveryFailed(f"{shown} could not be reached: {_reason(error)}") from error
    if response.status_code != 200:
        raise DiscoveryFailed(f"{shown} answered {response.status_code}")
    return _entries(shown, body, anthropic=server.speaks_anthropic)


def guess_type(name: str) -> str:
    """What a model is probably for, by the word parts of its name: RERANKER, EMBEDDINGS, else CHAT."""
    words = " ".join(re.findall(r"[a-z0-9]+", name.lower()))
    if _RERANKER.search(words):
        return "RERANKER"
    return "EMBEDDINGS" if _EMBEDDINGS.search(words) else "CHAT"


def _session() -> requests.Session:
    """Calls go where they are sent: no proxy and no .netrc of the environment's has a part in them. Certificates are judged as calls of the relay do."""
    session = requests.Session()
    session.trust_env = False
    session.verify = ssl.get_default_verify_paths().cafile or True
    return session


def _with_credential(server: Server, request: PreparedRequest) -> PreparedRequest:
    if server.speaks_anthropic:
        request.headers["anthropic-version"] = "2023-06-01"
    if server.api_key and server.speaks_anthropic:
        request.headers["X-API-Key"] = server.api_key
    elif server.api_key:
        request.headers[server.auth_header_name] = server.auth_header_prefix + server.api_key
    return request


def _read(response: Response, until: float, timeout_s: float) -> bytes:
    body = bytearray()
    # read1 gives what is there: waiting for whole blocks would let a server that trickles go on for hours.
    while piece := response.raw.read1(64 * 1024, decode_content=True):
        body += piece
        if len(body) > MAX_BYTES:
            raise DiscoveryFailed(f"The list of models is larger than {MAX_BYTES >> 20} MiB")
        if time.monotonic() > until:
            raise DiscoveryFailed(f"The list of models did not end within {timeout_s:g} s")
    return bytes(body)


def _entries(shown: str, body: bytes, *, anthropic: bool) -> list[ListedModel]:
    try:
        answer = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise DiscoveryFailed(f"{shown} did not answer JSON") from error
    data = answer.get("data") if isinstance(answer, dict) else answer
    if not isinstance(data, list):
        raise DiscoveryFailed(f"{shown} did not answer a list of models")
    found: dict[str, ListedModel] = {}
    for entry in data:
        name = entry.get("id") if isinstance(entry, dict) else None
        # PostgreSQL stores no NUL.
        if isinstance(name, str) and name.strip() and "\x00" not in name:
            found.setdefault(name, _listed(entry, anthropic=anthropic))
    return list(found.values())


def _listed(entry: Mapping[str, Any], *, anthropic: bool) -> ListedModel:
    owner = "anthropic" if anthropic else entry.get("owned_by")
    created = entry.get("created")
    if created is None and isinstance(entry.get("created_at"), str):
        created = _epoch(entry["created_at"])
    return ListedModel(
        id=entry["id"],
        created=int(created) if isinstance(created, int | float) else None,
        owned_by=owner if isinstance(owner, str) else "",
    )


def _epoch(text: str) -> float | None:
    try:
        return datetime.fromisoformat(text).timestamp()
    except ValueError:
        return None


def _reason(error: Exception) -> str:
    """The innermost reason, without the objects that urllib3 wraps around it."""
    inner = getattr(error.args[0], "reason", error) if error.args else error
    return str(inner).rpartition(": ")[2] or type(error).__name__
