"""One mail as bytes of RFC 5322: a text and an HTML part, from whom the settings say."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from email.headerregistry import Address
from email.message import EmailMessage
from email.policy import SMTP, SMTPUTF8
from email.utils import format_datetime
from uuid import UUID

from dwctl.config import Email
from dwctl.mail.templates import Words
from dwctl.settings.mail_addresses import is_address


class Undeliverable(Exception):
    """Nobody will ever take this mail: its recipient is no address, or was refused for good."""


@dataclass(frozen=True, slots=True)
class Envelope:
    """From whom and to whom, as the mail server hears it."""

    sender: str
    recipient: str


def build(
    words: Words, *, to: str, reply_to: str | None, id: UUID, at: datetime, settings: Email
) -> tuple[Envelope, EmailMessage]:
    """The mail; the same `id` gives the same Message-ID, by which a mail that was sent twice is known. Raises Undeliverable.

    Nothing can add a header: the standard library refuses line breaks in values, and addresses are one each.
    """
    recipient = _address(to)
    is_ascii = all(part.isascii() for part in (to, settings.from_email, reply_to or ""))
    mail = EmailMessage(policy=SMTP if is_ascii else SMTPUTF8)
    sender = _address(settings.from_email, settings.from_name)
    try:
        mail["From"] = sender
        mail["To"] = recipient
        mail["Subject"] = words.subject
        mail["Date"] = format_datetime(at)
        mail["Message-ID"] = f"<{id}@{sender.domain}>"
        if reply_to or settings.reply_to:
            mail["Reply-To"] = _address(reply_to or settings.reply_to or "")
    except (ValueError, IndexError) as error:
        raise Undeliverable("a header cannot be written") from error
    mail["Auto-Submitted"] = "auto-generated"
    mail["X-Auto-Response-Suppress"] = "All"
    mail.set_content(words.text)
    mail.add_alternative(words.html, subtype="html")
    return Envelope(settings.from_email, to), mail


def _address(address: str, name: str = "") -> Address:
    """Raises Undeliverable for what is no single address."""
    if not is_address(address):
        raise Undeliverable("not an address")
    username, _, domain = address.partition("@")
    return Address(name, username, domain)
