"""What a browser is called by people, out of what it calls itself."""

from __future__ import annotations

import re
from typing import Final

_PRODUCTS: Final = {
    "Edg": "Edge",
    "EdgA": "Edge",
    "EdgiOS": "Edge",
    "OPR": "Opera",
    "SamsungBrowser": "Samsung Internet",
    "Firefox": "Firefox",
    "FxiOS": "Firefox",
    "Chrome": "Chrome",
    "CriOS": "Chrome",
    "Safari": "Safari",
}
"""By their tokens. All but Firefox also say that they are those that stand behind them here."""
_SYSTEMS: Final = {
    "Windows": "Windows",
    "iPhone": "iPhone",
    "iPad": "iPad",
    "Android": "Android",
    "CrOS": "ChromeOS",
    "Macintosh": "macOS",
    "Linux": "Linux",
}
"""The same: Android says Linux, too."""
_TOKEN = re.compile(r"(?<![A-Za-z])([A-Za-z]++)/(\d+)")
_COMMENT = re.compile(r"\(([^()]*)\)")


def name_of(user_agent: str) -> str:
    """As "Chrome 156 on Linux"; the text itself where it is not that of a known browser: programs say shortly what they are."""
    if not user_agent.startswith("Mozilla/"):
        return user_agent
    versions = dict(_TOKEN.findall(user_agent))
    comment = _COMMENT.search(user_agent)
    product = next((token for token in _PRODUCTS if token in versions), None)
    if product is None or comment is None:
        return user_agent
    # Safari's own number is that of WebKit.
    version = versions.get("Version", "") if product == "Safari" else versions[product]
    system = next((name for token, name in _SYSTEMS.items() if token in comment[1]), None)
    shown = f"{_PRODUCTS[product]} {version}".rstrip()
    return shown if system is None else f"{shown} on {system}"
