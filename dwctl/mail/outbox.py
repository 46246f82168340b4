"""Writes down a mail in the transaction that wants it sent."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

import orjson
from sqlalchemy.orm import Session

from dwctl.mail.tables import OutgoingMail
from dwctl.web import current


@dataclass(frozen=True, slots=True)
class Mail:
    """A mail that is to be sent before `expires_at`, later it would be of no use. `template` is a name in `mail/templates`."""

    template: str
    to: str
    values: Mapping[str, str]
    expires_at: datetime
    reply_to: str | None = None


def put(session: Session, mail: Mail) -> None:
    """Have the mail sent once the session's transaction is committed. Needs an application context. Raises Undecryptable without secret_key."""
    session.add(
        OutgoingMail(
            template=mail.template,
            recipient=mail.to,
            reply_to=mail.reply_to,
            values_sealed=current.parts().sealer.seal(orjson.dumps(dict(mail.values)).decode()),
            expires_at=mail.expires_at,
        )
    )
