"""Texts from outside, made fit for a line: of a log, of a terminal, of a metrics page. Pure."""

from __future__ import annotations

import re

MARK = "…"
"""Stands where a text was cut."""

# Control characters (escape sequences and line ends begin with one), line and paragraph separators, lone surrogates, and what turns the
# direction of writing or is not seen at all. Joiners stay: scripts and emoji are written with them.
_UNFIT = re.compile(
    "[\x00-\x1f\x7f-\x9f\xad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\ud800-\udfff\U000e0000-\U000e007f]"
)


def printable(text: str, most: int | None = None) -> str:
    r"""The text with everything escaped (`\x1b`, `\u202e`) that would do something instead of being seen.

    Longer than `most` characters it is cut, and ends with MARK.
    """
    if most is not None and len(text) > most:
        text = text[: most - len(MARK)] + MARK
    if text.isprintable():
        return text
    shown = _UNFIT.sub(_escaped, text)
    return shown if most is None or len(shown) <= most else shown[: most - len(MARK)] + MARK


def _escaped(found: re.Match[str]) -> str:
    return found[0].encode("unicode_escape").decode("ascii")
