"""People ask for help: a mail to whoever runs the deployment."""

from __future__ import annotations

from typing import Any

from dwctl.access import guard
from dwctl.db import db
from dwctl.identity import support
from dwctl.identity.schemas import SupportRequest, SupportSent
from dwctl.web import current
from dwctl.web.schemas import Blueprint

blueprint = Blueprint("support", __name__, description="Requests for help")
guard.protect(blueprint)


@blueprint.route("/support/requests", methods=["POST"])
@blueprint.arguments(SupportRequest)
@blueprint.response(200, SupportSent)
def request_support(wanted: dict[str, str]) -> dict[str, Any]:
    """Ask for help by mail

    The message goes to `support_email`, with the caller's address to answer to. It is sent soon; the answer does not wait for a mail server.
    One account, and all of them together, can ask so many times an hour (`support.*`; 429 with `Retry-After` beyond that).
    """
    session, caller = db.session(), guard.identify()
    support.ask(session, caller, wanted["subject"], wanted["message"], current.settings())
    session.commit()
    return {"sent": True}
