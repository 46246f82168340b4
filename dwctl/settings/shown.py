"""Settings as people and programs are shown them: in the way they are written, secrets masked."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from typing import Any

from dwctl.settings import schema
from dwctl.settings.kinds import Duration, duration_text

MASK = "***"
_SECRET = re.compile(r"(?:^|_)(?:secret|password|token|encryption_key|api_key)(?:_|$)")
_USERINFO = re.compile(r"(://)[^/?#\s]*@")
# Up to the last @: whoever looks for what is wrong with it may have a password there whose / and # are not escaped.
_DATABASE_USERINFO = re.compile(r"(postgres[\w+]*://)\S*@")
_QUERY = re.compile(
    r"([?&][^=&\s]*(?:password|passwd|secret|token|api_?key)=)[^&\s]*", re.IGNORECASE
)
_MASKED = (
    (_DATABASE_USERINFO, rf"\1{MASK}@"),
    (_USERINFO, rf"\1{MASK}@"),
    (_QUERY, rf"\1{MASK}"),
)
_SECRET_ALL_THE_SAME = frozenset({"otel.headers"})
_TEXTS = (str, tuple[str, ...])


def is_secret(name: str, kind: Any) -> bool:
    """Whether the value of a setting with that name and kind is nobody's business."""
    if name in _SECRET_ALL_THE_SAME:
        return True
    return schema.plain(kind)[0] in _TEXTS and bool(_SECRET.search(name.rpartition(".")[2]))


def value(name: str, kind: Any, found: Any) -> Any:
    """The value as JSON and YAML have it. Of a URL the name and password are masked, also those in its query."""
    if is_secret(name, kind):
        return MASK if found else _plain(found)
    if schema.plain(kind)[0] == Duration and found is not None:
        return duration_text(found)
    return _plain(found)


def _plain(found: Any) -> Any:
    if dataclasses.is_dataclass(found) and not isinstance(found, type):
        found = {item.name: getattr(found, item.name) for item in dataclasses.fields(found)}
    if isinstance(found, Mapping):
        return {
            str(key): MASK if part and _SECRET.search(str(key)) else _plain(part)
            for key, part in found.items()
        }
    if isinstance(found, tuple | list):
        return [_plain(part) for part in found]
    if found is None or isinstance(found, bool | int | float):
        return found
    text = str(found)
    for pattern, masked in _MASKED:
        text = pattern.sub(masked, text)
    return text
