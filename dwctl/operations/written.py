"""Settings as people ask for them: what is in force, where it is written, what it may be, and whether a restart would change it."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Any

from dwctl import config
from dwctl.config import Loaded, Settings
from dwctl.settings import live, schema, shown
from dwctl.settings.bounds import BOUNDS

DEFAULT = "default"


def rows(in_force: Settings, loaded: Loaded) -> Iterator[dict[str, Any]]:
    """Every setting of a running process. `loaded` is what is written now; secrets are never shown."""
    for name in config.names():
        found = described(loaded, name)
        written, running = (
            config.value_of(settings, name) for settings in (loaded.settings, in_force)
        )
        value = shown.value(name, config.kinds()[name], running)
        yield {**found, "value": value, "waits_for_restart": written != running}


def row(loaded: Loaded, name: str) -> dict[str, Any]:
    """A setting, what is written of it, and where."""
    kind = config.kinds()[name]
    return {
        "setting": name,
        "value": shown.value(name, kind, config.value_of(loaded.settings, name)),
        "source": loaded.origins.get(name, DEFAULT),
    }


def described(loaded: Loaded, name: str) -> dict[str, Any]:
    """The same with its default, what it may be, and when a change takes effect."""
    return {**row(loaded, name), **_by_the_code(name)}


@cache
def _by_the_code(name: str) -> dict[str, Any]:
    """What nothing that is written can change."""
    default = config.value_of(config.Settings(), name)
    return {
        "default": shown.value(name, config.kinds()[name], default),
        "allowed": _allowed(name),
        "takes_effect": "at once" if live.is_live(name) else "after a restart",
    }


def _allowed(name: str) -> str | None:
    if name in BOUNDS:
        return BOUNDS[name].text
    if name in config.CHOICES:
        return ", ".join(config.CHOICES[name])
    return "true, false" if schema.plain(config.kinds()[name])[0] is bool else None
