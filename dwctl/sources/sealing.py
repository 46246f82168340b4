"""A connection's configuration at rest: JSON, sealed with `connections.encryption_key`, else `secret_key`.

The former keys of both open what they sealed, so either can be rotated.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from dwctl.config import Settings
from dwctl.encryption import Sealer
from dwctl.errors import Invalid


def seal(config: Mapping[str, Any], settings: Settings) -> str:
    """What the table keeps. Raises Invalid where no key is configured."""
    if not (settings.connections.encryption_key or settings.secret_key):
        raise Invalid(
            "No connection can be stored: neither connections.encryption_key nor secret_key is set"
        )
    return sealer(settings).seal(orjson.dumps(config).decode())


def unseal(sealed: str, settings: Settings) -> dict[str, Any]:
    """The configuration again. Raises Undecryptable."""
    config: dict[str, Any] = orjson.loads(sealer(settings).open(sealed))
    return config


def sealer(settings: Settings) -> Sealer:
    """What seals and opens them."""
    own = settings.connections
    return Sealer(
        [
            *filter(None, (own.encryption_key, settings.secret_key)),
            *own.encryption_key_previous,
            *settings.secret_key_previous,
        ]
    )
