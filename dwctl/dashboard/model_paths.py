"""How a model's alias stands in the path of its page. Pure.

Most stand as they are: `/models/acme/chat 2`. What a path cannot hold as it is (empty and dot segments, control characters, what begins like an
address of ours) is written as `~` and Base64.
"""

from __future__ import annotations

import base64
import binascii
import re

OURS = "-"
"""The first segment of the addresses beside the models' own: `/models/-/new`."""

_CODED = "~"
_NOT_IN_A_PATH = re.compile(r"[\x00-\x1f\x7f-\x9f\\;]|^[~/]|//|/$|(^|/)\.{1,2}(/|$)")
_LONGEST = 300
"""Characters; a longer one might be more than a path may have, once it is percent-encoded."""


def to_path(alias: str) -> str:
    """What stands in the path for an alias."""
    is_ours = alias.partition("/")[0] == OURS
    if alias and not is_ours and len(alias) <= _LONGEST and not _NOT_IN_A_PATH.search(alias):
        return alias
    return _CODED + base64.urlsafe_b64encode(alias.encode()).decode().rstrip("=")


def from_path(text: str) -> str:
    """The alias that stands in a path; what is no code of ours is taken as it is."""
    if not text.startswith(_CODED):
        return text
    coded = text.removeprefix(_CODED)
    try:
        return base64.b64decode(coded + "=" * (-len(coded) % 4), b"-_", validate=True).decode()
    except (binascii.Error, ValueError):
        return text
