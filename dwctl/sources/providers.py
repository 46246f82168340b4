"""Which providers there are, by the name that a connection gives."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from dwctl.config import Settings
from dwctl.errors import DwctlError
from dwctl.sources.provider import Source, SourceRefused
from dwctl.sources.s3 import S3Source

Opener = Callable[[Mapping[str, Any], Settings], Source]

_OPENERS: Mapping[str, Opener] = {"s3": S3Source}


def open_source(provider: str, config: Mapping[str, Any], settings: Settings) -> Source:
    """A source by its provider's name and its unsealed configuration. Calls nobody yet. Raises SourceRefused for what cannot be right."""
    try:
        return _OPENERS[provider](config, settings)
    except DwctlError:
        raise
    except Exception as error:
        # What a provider's library thinks of a configuration may quote it.
        raise SourceRefused("the connection's configuration is not usable") from error
