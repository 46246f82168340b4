"""How a call runs: at once or from the queue, streamed or in one piece, with the caller or in the background."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Any

import msgspec

from dwctl.protocols.errors import InvalidRequest

_REALTIME = frozenset({"auto", "default", "priority"})


class Tier(StrEnum):
    """Where a call runs: at once in the web process, or by a worker from the queue. The values are the stored ones."""

    REALTIME = "priority"
    FLEX = "flex"


class Mode(msgspec.Struct, frozen=True):
    """What a request says about how it is run. `of_batch`: it is a line of a batch, which says so for all of them."""

    tier: Tier = Tier.REALTIME
    stream: bool = False
    background: bool = False
    of_batch: bool = False


def read_tier(content: Mapping[str, Any]) -> Tier:
    """The tier that a request asks for. Raises InvalidRequest for one that there is not."""
    value = content.get("service_tier")
    if value is None or (isinstance(value, str) and value in _REALTIME):
        return Tier.REALTIME
    if value == "flex":
        return Tier.FLEX
    raise InvalidRequest(
        "`service_tier` must be one of auto, default, priority, flex.",
        param="service_tier",
        code="unsupported_value",
    )


def read_flag(content: Mapping[str, Any], name: str) -> bool:
    """A member that is true or false (or absent: false). Raises InvalidRequest."""
    value = content.get(name)
    if value is not None and not isinstance(value, bool):
        raise InvalidRequest(f"`{name}` must be true or false.", param=name, code="invalid_type")
    return value is True


def unsupported(param: str, message: str, code: str = "unsupported_parameter") -> InvalidRequest:
    """The refusal of what one protocol does not know."""
    return InvalidRequest(message, param=param, code=code)
