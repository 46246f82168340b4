"""Display names for people who come without one (`Quiet Lantern 4821`), and the names that nobody may have."""

from __future__ import annotations

import re
import secrets

_DELETED = re.compile("deleted-[0-9a-f]{8}-", re.IGNORECASE)

_ADJECTIVES = (
    "Amber Bold Brisk Bright Calm Candid Clear Clever Curious Daring Early Gentle Golden Keen Kind Lively Lucid Mellow Merry "
    "Nimble Patient Polite Prompt Quick Quiet Rapid Ready Robust Silver Smart Steady Sunny Swift Tidy Upbeat Vivid Warm Witty"
)
_NOUNS = (
    "Anchor Aurora Beacon Bridge Canyon Cedar Comet Compass Delta Ember Falcon Fjord Forest Garden Glacier Harbor Heron Island "
    "Kestrel Lantern Maple Meadow Meteor Orchard Otter Pebble Pioneer Prairie Quartz Raven River Saddle Sparrow Summit Thicket Willow"
)


def random_display_name() -> str:
    """An adjective, a noun, four digits."""
    number = 1000 + secrets.randbelow(9000)
    return f"{secrets.choice(_ADJECTIVES.split())} {secrets.choice(_NOUNS.split())} {number}"


def is_of_the_deleted(name: str) -> bool:
    """Whether an account gets such a name when it is deleted (`deleted-<its id>`): whoever had it could keep that one from being deleted."""
    return _DELETED.match(name) is not None
