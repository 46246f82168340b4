"""The sources that a worker reads just now, kept open from one object to the next."""

from __future__ import annotations

from collections import OrderedDict
from uuid import UUID

from dwctl.config import Settings
from dwctl.sources import sealing
from dwctl.sources.provider import Source
from dwctl.sources.providers import open_source

_MOST = 16


class OpenSources:
    """By connection; a connection's configuration never changes."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._open: OrderedDict[UUID, Source] = OrderedDict()

    def of(self, connection_id: UUID, provider: str, config_sealed: str) -> Source:
        """The connection's source. Raises SourceRefused, Undecryptable."""
        source = self._open.pop(connection_id, None)
        if source is None:
            config = sealing.unseal(config_sealed, self._settings)
            source = open_source(provider, config, self._settings)
        self._open[connection_id] = source
        while len(self._open) > _MOST:
            # What is being read of it goes on; only its idle connections are closed.
            self._open.popitem(last=False)[1].close()
        return source

    def close(self) -> None:
        """Close them all."""
        while self._open:
            self._open.popitem()[1].close()
