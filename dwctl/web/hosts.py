"""For which host names requests are taken (`auth.security.allowed_hosts`). Pure."""

from __future__ import annotations

from collections.abc import Sequence

from dwctl.errors import DwctlError

_FOR_ANY_HOST = ("/healthz", "/readyz", "/internal/metrics")
"""Probes and scrapers know addresses, not names."""


class Misdirected(DwctlError):
    """This host name is not served here. Use the deployment's own, or add this one to auth.security.allowed_hosts."""

    code = "unknown_host"
    status = 421


def check(host: str, path: str, allowed: Sequence[str]) -> None:
    """Raises Misdirected for a request that is for another host than these (none: any)."""
    if allowed and path not in _FOR_ANY_HOST and not is_allowed(host, allowed):
        raise Misdirected


def is_allowed(host: str, allowed: Sequence[str]) -> bool:
    """Whether a Host header names one of these: `name` and `name:port` as written, `*.name` for everything below."""
    host = host.lower()
    bare = host.rpartition(":")[0] if _has_port(host) else host
    return any(_matches(host, bare, pattern.lower()) for pattern in allowed)


def _matches(host: str, bare: str, pattern: str) -> bool:
    wanted = host if _has_port(pattern) else bare
    if pattern.startswith("*."):
        return wanted.endswith(pattern[1:]) and len(wanted) > len(pattern) - 1
    return wanted == pattern


def _has_port(host: str) -> bool:
    return host.rpartition(":")[2].isdecimal() and (
        ":" not in host.rpartition(":")[0] or "]:" in host
    )
