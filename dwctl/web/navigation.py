"""How a browser came here, as far as it says (Fetch Metadata)."""

from __future__ import annotations

from flask import Request


def is_own_navigation(request: Request, *, same_site: bool) -> bool:
    """Whether the browser says that a person has followed a link of this site, or typed the address.

    `same_site`: links of other hosts of the same domain count, too.
    """
    said = request.headers.get
    sites = ("same-origin", "same-site", "none") if same_site else ("same-origin", "none")
    return (
        said("Sec-Fetch-Site") in sites
        and said("Sec-Fetch-Mode") == "navigate"
        and said("Sec-Fetch-Dest") == "document"
        and "Sec-Purpose" not in request.headers
    )
