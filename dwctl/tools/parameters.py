"""What a tool takes: a JSON Schema of an object, checked when it is stored. Nothing that it refers to is fetched."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from dwctl.errors import Invalid

MAX_BYTES = 65_536

_DRAFTS: Mapping[str, str] = {
    "json-schema.org/draft/2020-12/schema": "Draft202012Validator",
    "json-schema.org/draft/2019-09/schema": "Draft201909Validator",
    "json-schema.org/draft-07/schema": "Draft7Validator",
    "json-schema.org/draft-06/schema": "Draft6Validator",
    "json-schema.org/draft-04/schema": "Draft4Validator",
}
"""Validators by `$schema`, without scheme and fragment. The first holds where nothing is said."""
_LONGEST_REASON = 300


def check(schema: Mapping[str, Any]) -> None:
    """Raise Invalid, with the reason, for what is no JSON Schema, describes something other than an object, or needs another document."""
    if len(orjson.dumps(schema)) > MAX_BYTES:
        raise _invalid(f"is larger than {MAX_BYTES >> 10} KiB")
    if schema.get("type", "object") != "object":
        raise _invalid('describes no object: a tool is called with one, so its type is "object"')
    # Only here: it takes a process 6 MiB, and most never see a tool.
    import jsonschema_rs

    try:
        getattr(jsonschema_rs, _draft(schema.get("$schema")))(dict(schema), retriever=_refuse)
    except jsonschema_rs.ValidationError as error:
        place = "/".join(map(str, error.instance_path)) or "its top"
        raise _invalid(f"is no JSON Schema, at {place}: {error.message[:_LONGEST_REASON]}") from None  # fmt: skip
    except (ValueError, RecursionError) as error:
        raise _invalid(f"is no JSON Schema: {str(error)[:_LONGEST_REASON]}") from None


def _draft(said: Any) -> str:
    if said is None:
        return next(iter(_DRAFTS.values()))
    found = _DRAFTS.get(str(said).partition("://")[2].removesuffix("#"))
    if found is None:
        raise _invalid(f"names a $schema that is not known here; known are {', '.join(_DRAFTS)}")
    return found


def _refuse(uri: str) -> Any:
    raise ValueError(f"{uri} is another document")


def _invalid(reason: str) -> Invalid:
    return Invalid(f"parameters {reason}", param="parameters")
