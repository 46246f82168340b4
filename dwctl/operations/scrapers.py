"""Who is shown the metrics page: whoever has the token (`metrics_token`); without one, programs on this machine that call us directly."""

from __future__ import annotations

import hmac
from ipaddress import ip_address

from flask import request

from dwctl.errors import Forbidden, Unauthenticated
from dwctl.web import current, proxies
from dwctl.web.proxies import Origin


def insist() -> None:
    """Raises Unauthenticated or Forbidden for everybody else."""
    token = current.settings().metrics_token
    if token is None:
        if not _is_on_this_machine(proxies.origin_in(request.environ)):
            raise Forbidden(
                "This page is shown on the machine itself. Set metrics_token, and send it as `Authorization: Bearer ...`.",
                code="metrics_closed",
            )
        return
    scheme, _, sent = request.headers.get("Authorization", "").partition(" ")
    # Bytes of a header are Latin-1 here.
    given = sent.strip().encode("latin-1", "replace")
    if scheme.lower() != "bearer" or not hmac.compare_digest(given, token.encode()):
        raise Unauthenticated("The metrics token is missing or wrong (setting metrics_token).")


def _is_on_this_machine(origin: Origin) -> bool:
    if origin.forwarded:
        return False  # A router on this machine calls for somebody else.
    try:
        return not origin.peer or ip_address(origin.client).is_loopback
    except ValueError:
        return False
