"""OpenAI's error envelope: the one place that makes it. Pure; no Flask in here.

{"error": {"message", "type", "param", "code"}}       always these four, `param` null where no field is to blame
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import orjson

_TYPES_BY_CODE = {
    "model_access_denied": "permission_error",
    "insufficient_credits": "insufficient_quota",
    "spend_cap_exceeded": "insufficient_quota",
}
_TYPES_BY_STATUS = {429: "rate_limit_error", 403: "permission_error"}


def error_object(message: str, type: str, code: str, param: str | None = None) -> dict[str, Any]:
    """The object inside the envelope."""
    return {"message": message, "type": type, "param": param, "code": code}


def wrap(error: dict[str, Any]) -> bytes:
    """An error object as a body of its own."""
    return orjson.dumps({"error": error})


def openai_error(
    message: str,
    code: str,
    status: int,
    param: str | None = None,
    more: Mapping[str, Any] = MappingProxyType({}),
) -> bytes:
    """The body of one of our own errors; its type follows from code and status. `more` are members beside the four."""
    return wrap({**error_object(message, type_of(code, status), code, param), **more})


def type_of(code: str, status: int) -> str:
    """What OpenAI calls the kind of error."""
    known = _TYPES_BY_CODE.get(code) or _TYPES_BY_STATUS.get(status)
    return known or ("invalid_request_error" if status < 500 else "internal_error")
