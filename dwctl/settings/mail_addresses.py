"""What can be written to: the form of one e-mail address, for settings and for mails."""

from __future__ import annotations

import re

_PART = r"[^\s\x00-\x1f\x7f-\x9f@<>()\[\],;:\\\"]"

FORM = rf"{_PART}{{1,64}}@{_PART}{{1,255}}"
"""What RFC 5321 lets stand without quotes, and letters of any script (RFC 6531)."""

_ADDRESS = re.compile(FORM)


def is_address(text: str) -> bool:
    """Whether this is one address, to which a mail can be sent."""
    return _ADDRESS.fullmatch(text) is not None and text.isprintable()
