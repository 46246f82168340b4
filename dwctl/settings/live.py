"""Which settings are in force as soon as the file says so, and which wait for the next start of a process."""

from __future__ import annotations

import dataclasses
from typing import Any, TypeVar

from dwctl.settings import schema

S = TypeVar("S")

LIVE = (
    "audit",
    "auth.native",
    "auth.proxy_header",
    "auth.default_user_roles",
    "batches.allowed_completion_windows",
    "batches.allowed_url_paths",
    "batches.async_requests",
    "batches.default_throughput",
    "batches.files",
    "batches.window_relaxation_factors",
    "connections.sync.default_completion_window",
    "connections.sync.default_endpoint",
    "connections.sync.max_open",
    "credits.initial_credits_for_standard_users",
    "dashboard_url",
    "email",
    "limits.files.max_file_size",
    "limits.files.max_requests_per_file",
    "log_level",
    "metadata",
    "metrics_token",
    "onboarding_url",
    "organizations",
    "retention",
    "sample_files",
    "support",
    "support_email",
)
"""Settings and whole sections. They are read from `web.current.settings()` at each request, and by duties at each run; nobody keeps them."""


def is_live(name: str) -> bool:
    """Whether a setting, by its dotted name, takes effect without a restart."""
    return any(f"{name}.".startswith(f"{live}.") for live in LIVE)


def changed(before: Any, after: Any) -> list[str]:
    """The dotted names of what differs between two whole sets of settings."""
    names = (name for name, _ in schema.walk(type(before)))
    return [name for name in names if _of(before, name) != _of(after, name)]


def merged(in_force: S, wanted: S, prefix: str = "") -> S:
    """What is in force from now on: what is live as it is wanted, all else as it is."""
    taken: dict[str, Any] = {}
    for item in dataclasses.fields(in_force):  # type: ignore[arg-type]
        name = f"{prefix}{item.name}"
        old, new = getattr(in_force, item.name), getattr(wanted, item.name)
        section = dataclasses.is_dataclass(old)
        if is_live(name):
            taken[item.name] = new
        elif section and any(live.startswith(f"{name}.") for live in LIVE):
            taken[item.name] = merged(old, new, f"{name}.")
    return dataclasses.replace(in_force, **taken)  # type: ignore[type-var]


def _of(settings: Any, name: str) -> Any:
    for part in name.split("."):
        settings = getattr(settings, part)
    return settings
