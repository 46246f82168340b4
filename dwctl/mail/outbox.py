"""Writes down a mail in the transaction that wants it sent."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import orjson
import psycopg
from sqlalchemy.orm import Session

from dwctl.config import Settings
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


@dataclass(frozen=True, slots=True)
class Composed:
    """To whom a mail goes, and what its template is filled with."""

    to: str
    values: Mapping[str, str]


Composer = Callable[[psycopg.Connection[Any], Settings, Composed], Composed | None]
"""Makes of what was put in what is sent, in a transaction of its own, which is committed before the mail leaves; None: nothing is sent."""

_COMPOSERS: dict[str, Composer] = {}


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


def composed_by(template: str, composer: Composer) -> None:
    """Have mails of this template composed when they are sent, at each attempt: for what depends on the recipient, and must cost the one who asks nothing that depends on it."""
    _COMPOSERS[template] = composer


def composer_of(template: str) -> Composer | None:
    """Who composes mails of this template, if anybody does."""
    return _COMPOSERS.get(template)
