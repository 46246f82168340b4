"""The token that every form bears: nobody who cannot read our pages can send their forms.

The check of where a change comes from (`authentication.refuse_foreign_page`) stands before it; the token holds where a browser says nothing of that, and
against pages of the same site.
"""

from __future__ import annotations

import hashlib
import hmac

from flask import request

from dwctl.access import guard
from dwctl.access.caller import Caller
from dwctl.errors import Forbidden
from dwctl.identity import authentication
from dwctl.web import current

FIELD = "_token"
HEADER = "X-CSRF-Token"
_FORM = "application/x-www-form-urlencoded"
_SAFE = frozenset({"GET", "HEAD", "OPTIONS"})


class StaleForm(Forbidden):
    """This form was made for another sign-in, or long ago. Load the page again and send it once more; nothing was changed."""

    code = "stale_form"


def token() -> str:
    """The token for the caller at hand: it holds for one sign-in, as long as that does."""
    return _made(guard.identify(), _secrets()[0])


def insist() -> None:
    """Refuse a change that no form of ours has sent. Raises StaleForm, Forbidden."""
    if request.method in _SAFE:
        return
    authentication.refuse_foreign_page(request, current.settings())
    shown = request.headers.get(HEADER) or _in_form()
    caller = guard.identify()
    if not any(
        hmac.compare_digest(shown.encode(), _made(caller, secret).encode()) for secret in _secrets()
    ):
        raise StaleForm


def refuse_foreign() -> None:
    """For forms of whoever is not signed in: they could sign a visitor in as somebody else. Raises Forbidden."""
    authentication.refuse_foreign_page(request, current.settings())


def _in_form() -> str:
    """An upload is not read for its token: whoever sends one has script, and says it in the header."""
    return request.form.get(FIELD, "") if request.mimetype == _FORM else ""


def _made(caller: Caller, secret: str) -> str:
    sign_in = caller.login_session_id or caller.user_id
    key = hashlib.sha256(b"dwctl forms\0" + secret.encode()).digest()
    return hmac.new(key, str(sign_in).encode(), "sha256").hexdigest()[:32]


def _secrets() -> tuple[str, ...]:
    settings = current.settings()
    return (settings.secret_key or "", *settings.secret_key_previous)
