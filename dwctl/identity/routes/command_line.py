"""Sign-in of a command line that opens a browser and waits on a port of its own machine."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode

from flask import Response, render_template, request
from werkzeug.wrappers import Response as AnyResponse

from dwctl.access import guard
from dwctl.access.caller import Caller
from dwctl.db import db
from dwctl.errors import Invalid, Unauthenticated
from dwctl.identity import authentication, command_line, throttle
from dwctl.identity.command_line import Account
from dwctl.identity.sign_in_schemas import CodeExchange, CommandLineKeys, CommandLineQuery
from dwctl.web import current, described, html
from dwctl.web.navigation import is_own_navigation
from dwctl.web.schemas import Blueprint

blueprint = Blueprint(
    "command_line",
    __name__,
    description="Sign-in of a command line",
    template_folder="../templates",
)
guard.protect(blueprint)

exchange = Blueprint("command_line_exchange", __name__, description="Sign-in of a command line")
guard.open_to_all(exchange, reason="the code and its verifier are the credential")


def by_browser(_caller: Caller, **_path: Any) -> None:
    """Whoever is signed in by session or trusted header, for themselves; a request with an API key is refused, whatever it is for."""
    scheme = request.headers.get("Authorization", "").partition(" ")[0]
    if scheme.lower() == "bearer":
        raise Unauthenticated(
            "Authentication required: a command line is signed in by browser, not by API key",
            code="browser_needed",
        )


@blueprint.route("/auth/cli-callback", methods=["GET"])
@guard.checks(by_browser)
@blueprint.arguments(CommandLineQuery, location="query")
@blueprint.response(302, description="To `http://127.0.0.1:{port}/callback`.")
@blueprint.alt_response(200, description="A page that asks first.", content_type="text/html")
@described.says(headers={"Location": "Where to go on."})
def sign_command_line_in(query: dict[str, Any]) -> AnyResponse:
    """Give a command line on this machine two new API keys

    Its browser is sent on to `http://127.0.0.1:{port}/callback` with `state` and the keys in the query. With `code_challenge`, and where the
    browser does not say that the person came from here or by themselves, a page asks first; with `code_challenge`, the callback gets `state`
    and a `code` in place of keys, to be exchanged at `POST /authentication/cli-token`.
    """
    account = command_line.account_of(db.session(), guard.identify(), query["org"])
    if query["code_challenge"] or not _came_by_themselves():
        return _asking(account, query["port"])
    return _send_on(account, query)


@blueprint.route("/auth/cli-callback", methods=["POST"])
@guard.checks(by_browser)
@blueprint.arguments(CommandLineQuery, location="query")
@blueprint.response(302, description="To `http://127.0.0.1:{port}/callback`.")
@described.says(headers={"Location": "Where to go on."})
def confirm_command_line(query: dict[str, Any]) -> AnyResponse:
    """Do so after having asked: what the button of that page does"""
    account = command_line.account_of(db.session(), guard.identify(), query["org"])
    return _send_on(account, query)


@exchange.route("/cli-token", methods=["POST"])
@exchange.arguments(CodeExchange)
@exchange.response(200, CommandLineKeys)
@described.says(refusals=(401, 403, 429))
def exchange_code(given: dict[str, str]) -> dict[str, str]:
    """Exchange a command line's code for its keys; a code works once, within a minute"""
    session = db.session()
    limit = current.settings().auth.native.throttle.sign_ins_per_minute
    throttle.admit(session, "exchange a code", throttle.address_of(request), limit)
    try:
        told = command_line.exchange(session, given["code"], given["code_verifier"])
    except Invalid:
        # The code is used up by a wrong verifier, too.
        session.commit()
        raise
    session.commit()
    return told


def _send_on(account: Account, query: dict[str, Any]) -> Response:
    session, caller = db.session(), guard.identify()
    authentication.confirm(session, caller)
    challenge = query["code_challenge"]
    if challenge is None:
        told = command_line.make_keys(session, account)
    else:
        told = {"code": command_line.make_code(session, account, caller, challenge)}
    session.commit()
    told = {"state": query["state"], **told}
    response = Response(status=302)
    response.headers["Location"] = f"{_origin(query['port'])}/callback?{urlencode(told)}"
    del response.headers["Content-Type"]
    response.headers["Cache-Control"] = "no-store"
    response.headers["Pragma"] = "no-cache"
    response.headers["Referrer-Policy"] = "no-referrer"
    return response


def _asking(account: Account, port: int) -> Response:
    shown = render_template(
        "command_line.html",
        title=current.settings().metadata.title,
        name=account.name,
        email=account.person.email,
        organization=account.organization,
    )
    # Browsers hold the redirection after a form to the rule for forms.
    response = html.page(shown, forms_lead_to=_origin(port))
    response.headers["Cache-Control"] = "no-store"
    return response


def _origin(port: int) -> str:
    return f"http://127.0.0.1:{port}"


def _came_by_themselves() -> bool:
    """Whether this is no page's doing: the person typed or opened the address, or followed a link of ours; or it is no browser at all.

    A browser that does not say (an old one, or over plain http) is known by what it calls itself: for an image it asks for no HTML.
    """
    said = request.headers.get
    if "Sec-Fetch-Site" in request.headers:
        return is_own_navigation(request, same_site=False)
    return not (said("User-Agent", "").startswith("Mozilla/") or "text/html" in said("Accept", ""))
