"""What a batch's metadata may be, what we keep beside the caller's pairs, and what of it is shown. Pure.

The caller's pairs and ours stand in one object, as users of the Rust product know it; what begins with `dw_` and who made the batch is for
ourselves.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dwctl.errors import Invalid

MOST_PAIRS, LONGEST_KEY, LONGEST_VALUE = 16, 64, 512
"""OpenAI's bounds, for the pairs that are the caller's own."""

_LONGEST_USER_AGENT = 256
INTERNAL = "dw_"
"""How names begin that are for ourselves."""

MAKER = "created_by"
"""Who made the batch: for ourselves, too."""

_OURS = frozenset(["created_by_email", "context_name", "context_type", "request_source", MAKER])
_SOURCE_NAMES = {
    "dw_source_name": "source_name",
    "dw_source_id": "source_id",
    "dw_external_key": "source_file",
    "dw_sync_id": "sync_id",
}


def is_shown(key: str) -> bool:
    """Whether a pair under that key is for the caller to see, and to search."""
    return key != MAKER and not key.startswith(INTERNAL)


def accepted(given: Mapping[str, str] | None) -> dict[str, str]:
    """The caller's own pairs; those under names of ours are dropped. Raises Invalid for too much."""
    own = {
        key: value
        for key, value in (given or {}).items()
        if key not in _OURS and not key.startswith(INTERNAL)
    }
    if len(own) > MOST_PAIRS:
        raise _too_much(f"more than {MOST_PAIRS} pairs")
    for key, value in own.items():
        if len(key) > LONGEST_KEY:
            raise _too_much(
                f"a key of more than {LONGEST_KEY} characters ('{key[:LONGEST_KEY]}...')"
            )
        if len(value) > LONGEST_VALUE:
            raise _too_much(f"a value of more than {LONGEST_VALUE} characters (of '{key}')")
    return own


def stored(
    own: Mapping[str, str], *, source: str, created_by: str, user_agent: str | None
) -> dict[str, str]:
    """What a batch keeps: the caller's pairs and ours."""
    agent = {"dw_user_agent": user_agent[:_LONGEST_USER_AGENT]} if user_agent else {}
    return {**own, "request_source": source, MAKER: created_by, **agent}


def shown(kept: Any) -> dict[str, str]:
    """What the caller sees of it."""
    return {
        key: value
        for key, value in _pairs(kept).items()
        if isinstance(value, str) and is_shown(key)
    }


def provenance(kept: Any) -> dict[str, str]:
    """The batch object's `dwext`: where the batch came from; empty where nobody knows."""
    pairs = _pairs(kept)
    found = {"source": pairs.get("request_source")}
    found |= {name: pairs.get(key) for key, name in _SOURCE_NAMES.items()}
    return {name: value for name, value in found.items() if isinstance(value, str)}


def _pairs(kept: Any) -> Mapping[str, Any]:
    """Rows that were written by hand may hold any JSON."""
    return kept if isinstance(kept, Mapping) else {}


def _too_much(what: str) -> Invalid:
    return Invalid(f"Invalid metadata: {what}", code="invalid_metadata", param="metadata")
