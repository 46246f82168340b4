"""Asks an inference server which models it serves, and guesses from a name what a model is for. No database: callers hold no connection."""

from __future__ import annotations

import errno
import re
import ssl
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from urllib.parse import urlsplit

import gevent
import orjson
import requests
from requests import PreparedRequest, Response
from urllib3.exceptions import (
    HTTPError,
    LocationParseError,
    NameResolutionError,
    ProxyError,
    ReadTimeoutError,
    SSLError,
)

from dwctl.config import Outbound
from dwctl.errors import DwctlError, Invalid
from dwctl.pace import Pace
from dwctl.patience import Patience
from dwctl.upstream.addresses import Purpose, policy_for
from dwctl.upstream.errors import AddressNotAllowed
from dwctl.upstream.outbound import session
from dwctl.upstream.target import parse_origin, request_path
from dwctl.web.schemas import CONTROL

MAX_BYTES = 8 * 1024 * 1024
MAX_MODELS = 5000
"""How many an endpoint may list. (One whose list is longer is used with `model_filter` and `skip_fetch`.)"""
LONGEST_NAME = 512
"""As long as a model's name in a call may be."""
_LONGEST_OWNER = 255
_LARGEST_TIME = 2**53
_CONNECT_TIMEOUT_S = 10.0
_BY_DEFAULT = Outbound()
_ANTHROPIC = "api.anthropic.com"

_RERANKER = re.compile(r"\brerank|rerank(er)?\b|\bcross ?encoder")
_EMBEDDINGS = re.compile(
    r"\bembedding|embed(ding|dings)?\b|\bembedder\b|\bada\b|\bsentence transformer|\ball minilm|\bbge\b|\be5\b"
)

_REASONS: dict[type[BaseException], str] = {
    ProxyError: "the proxy of the environment failed",
    NameResolutionError: "its name cannot be resolved",
    UnicodeError: "its name cannot be resolved",
    LocationParseError: "its name cannot be resolved",
    SSLError: "TLS failed; is it a plain http server?",
    ssl.SSLError: "TLS failed; is it a plain http server?",
}


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


def list_models(
    server: Server, *, timeout_s: float, outbound: Outbound = _BY_DEFAULT
) -> list[ListedModel]:
    """The models that a server lists, each once, in its order.

    The limit is for the whole answer. Redirects are not followed: calls would not follow them either.
    Raises: DiscoveryFailed with the reason.
    """
    parts = urlsplit(server.url)
    path = request_path(server.url, "/models?limit=1000" if server.speaks_anthropic else "/models")
    url = f"{parts.scheme}://{parts.netloc}{path}"
    shown = url.partition("?")[0]
    until = time.monotonic() + timeout_s
    policy = policy_for(outbound, Purpose.ENDPOINTS)
    whole = Patience(timeout_s)
    try:
        with (
            whole,
            session(policy, use_environment_proxies=outbound.use_environment_proxies) as asking,
            asking.get(
                url,
                headers={"Accept": "application/json"},
                auth=lambda request: _with_credential(server, request),
                timeout=(min(_CONNECT_TIMEOUT_S, timeout_s), timeout_s),
                stream=True,
                allow_redirects=False,
            ) as response,
        ):
            body = _read(response, until, timeout_s)
    except AddressNotAllowed as error:
        raise DiscoveryFailed(
            f"{shown} is at an address that may not be called: outbound.endpoints is '{policy.reach}'",
            code=error.code,
            retryable=False,
        ) from error
    except gevent.Timeout as error:
        # Of a server that trickles its head nothing else tires: each byte is in time.
        if error is not whole:
            raise
        raise DiscoveryFailed(f"{shown} did not answer within {timeout_s:g} s") from error
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
    if len(data) > MAX_MODELS:
        raise DiscoveryFailed(
            f"{shown} lists {len(data)} models, more than the {MAX_MODELS} that are taken: name those that you want in model_filter, "
            "with skip_fetch",
            code="too_many_models",
            retryable=False,
        )
    found: dict[str, ListedModel] = {}
    pace = Pace()
    for entry in data:
        name = entry.get("id") if isinstance(entry, dict) else None
        if isinstance(name, str) and is_name(name):
            found.setdefault(name, _listed(entry, anthropic=anthropic))
        pace()
    if data and not found:
        raise DiscoveryFailed(f"{shown} did not answer a list of models: no entry has an id")
    return list(found.values())


def is_name(text: str) -> bool:
    """Whether models can have this name: one line of printable characters, not blank and not too long."""
    return bool(text.strip()) and len(text) <= LONGEST_NAME and not CONTROL.search(text)


def _listed(entry: Mapping[str, Any], *, anthropic: bool) -> ListedModel:
    owner = "anthropic" if anthropic else entry.get("owned_by")
    created = entry.get("created")
    if created is None and isinstance(entry.get("created_at"), str):
        created = _epoch(entry["created_at"])
    return ListedModel(
        id=entry["id"],
        created=_whole(created),
        owned_by=owner[:_LONGEST_OWNER] if isinstance(owner, str) else "",
    )


def _whole(seconds: Any) -> int | None:
    good = isinstance(seconds, int | float) and abs(seconds) <= _LARGEST_TIME
    return int(seconds) if good else None


def _epoch(text: str) -> float | None:
    try:
        return datetime.fromisoformat(text).timestamp()
    except ValueError:
        return None


def _reason(error: BaseException) -> str:
    """In our own words: what libraries say may quote what the other side has sent."""
    causes = list(_causes(error))
    kinds = [type(cause) for cause in causes]
    for cause in causes:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return f"its certificate is not valid ({cause.verify_message})"
    for wanted, reason in _REASONS.items():
        if any(issubclass(kind, wanted) for kind in kinds):
            return reason
    numbers = {cause.errno for cause in causes if isinstance(cause, OSError)}
    if errno.ECONNREFUSED in numbers:
        return "it refused the connection"
    if numbers & {errno.EHOSTUNREACH, errno.ENETUNREACH}:
        return "there is no way to its network"
    return "it closed the connection or does not speak HTTP"


def _causes(error: BaseException) -> Iterator[BaseException]:
    """The error and all that stands behind it, as urllib3 and requests wrap it (`reason`, arguments, causes)."""
    waiting, seen = [error], set()
    while waiting:
        found = waiting.pop()
        if id(found) in seen:
            continue
        seen.add(id(found))
        yield found
        behind = (getattr(found, "reason", None), found.__cause__, found.__context__, *found.args)
        waiting += [each for each in behind if isinstance(each, BaseException)]
