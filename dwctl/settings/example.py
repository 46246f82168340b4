"""A configuration file with every setting, its default and what it means, to be filled in."""

from __future__ import annotations

import dataclasses
import json
import re
import textwrap
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from dwctl.settings import schema, shown

_ROW = re.compile(r"^\| `([a-z0-9_.]+)` \| [^|]+ \| [^|]+ \| (.+) \|$", re.MULTILINE)
_WIDE = 100


def meanings(document: Path) -> Mapping[str, str]:
    """What the documentation says of each setting; nothing where it is not at hand."""
    try:
        text = document.read_text("utf-8")
    except OSError:
        return {}
    return {name: _without_links(meaning) for name, meaning in _ROW.findall(text)}


def text(defaults: Any, meaning: Mapping[str, str]) -> str:
    """The whole file. Settings are commented out, so that it changes nothing and later defaults count."""
    head = "# Every setting of dwctl with its default. Take the # away in front of what is to differ.\n"
    return head + "\n".join(_section(defaults, meaning, "", 0)) + "\n"


def _section(section: Any, meaning: Mapping[str, str], prefix: str, depth: int) -> Iterator[str]:
    hints = schema.hints(type(section))  # type: ignore[arg-type]
    pad = "  " * depth
    for item in dataclasses.fields(section):
        name, found = f"{prefix}{item.name}", getattr(section, item.name)
        if dataclasses.is_dataclass(found):
            yield f"\n{pad}{item.name}:" if depth == 0 else f"{pad}{item.name}:"
            yield from _section(found, meaning, f"{name}.", depth + 1)
            continue
        for line in textwrap.wrap(
            meaning.get(name, ""), _WIDE, break_long_words=False, break_on_hyphens=False
        ):
            yield f"{pad}# {line}"
        written = shown.value(name, hints[item.name], found)
        yield f"{pad}#{item.name}:{_written(written)}"


def _written(value: Any) -> str:
    return "" if value is None else f" {json.dumps(value)}"


def _without_links(text: str) -> str:
    return re.sub(r"\[([^]]+)\]\([^)]+\)", r"\1", text).replace("\\|", "|")
