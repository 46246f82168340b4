"""What the request log shows of what was said in a call: why nothing (`Withheld`), in which calls (`is_among`), how much (`cut`). Pure."""

from __future__ import annotations

from enum import StrEnum
from uuid import UUID

from dwctl.analytics.records import text_of

_RANDOM_BITS = 62  # of a UUID, at its end


class Withheld(StrEnum):
    """Why the request log shows no bodies of a call (its column `bodies`)."""

    ZERO_RETENTION = "zero_data_retention"
    """Its account or key wants nothing to be kept."""
    OFF = "off"
    """By a setting."""
    NOT_STORED = "not_stored"
    """Its caller said `store: false`."""
    NOT_SAMPLED = "not_sampled"
    """It is not among the share that is shown."""
    SHED = "shed"
    """Too much waited to be written."""


def withheld(
    id: UUID, *, zero_retention: bool, shows_bodies: bool, share: float
) -> Withheld | None:
    """Why nothing is shown of a request, by what is set for its account, its key and the gateway; None: it is shown."""
    if zero_retention:
        return Withheld.ZERO_RETENTION
    if not shows_bodies:
        return Withheld.OFF
    return None if is_among(id, share) else Withheld.NOT_SAMPLED


def is_among(id: UUID, share: float) -> bool:
    """Whether a request is among that share of all: by the random end of its id, so that every process says the same."""
    return (id.int & ((1 << _RANDOM_BITS) - 1)) < share * (1 << _RANDOM_BITS)


def cut(body: bytes, most: int) -> str:
    """A body as it is shown: its first `most` bytes (0: all), with a mark where something was cut off."""
    if not most or len(body) <= most:
        return text_of(body)
    # A character that the cut goes through is left out.
    begins = body[:most].decode("utf-8", "ignore").encode()
    return f"{text_of(begins)}… [cut: {len(body)} bytes in all]"
