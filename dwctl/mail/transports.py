"""How a mail leaves: into a folder, or to a server by SMTP.

The server is waited for by a greenlet that holds nothing else: each step of the conversation has a time-out, the whole has another, and
the server's name is resolved in the threads for that. Certificates are verified, and nothing goes out in the clear where TLS is wanted.
"""

from __future__ import annotations

import os
import smtplib
import socket
import ssl
from email.message import EmailMessage
from pathlib import Path
from typing import Protocol
from uuid import UUID

import gevent

from dwctl import resolver, threads
from dwctl.config import Email
from dwctl.mail.message import Envelope, Undeliverable

IMPLICIT_TLS_PORT = 465
STEPS = 4
"""How many times as long as one step a whole conversation may take."""


class Transport(Protocol):
    """Where mails go."""

    def deliver(self, id: UUID, envelope: Envelope, mail: EmailMessage) -> None:
        """Hand the mail over. Raises Undeliverable where trying again is of no use, anything else where it may be."""


def of(settings: Email) -> Transport:
    """The transport that the settings name."""
    return Smtp(settings) if settings.type == "smtp" else Folder(Path(settings.path))


class Folder:
    """Each mail is a file `ID.eml`, readable by us alone; one that is written twice is there once."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def deliver(self, id: UUID, envelope: Envelope, mail: EmailMessage) -> None:
        """Write the file, or replace it."""
        threads.in_files(self._write, f"{id}.eml", mail.as_bytes())

    def _write(self, name: str, content: bytes) -> None:
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        unfinished = self._folder / f".{name}.{os.getpid()}"
        unfinished.unlink(missing_ok=True)
        descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
        unfinished.replace(self._folder / name)


class Smtp:
    """A conversation for each mail."""

    def __init__(self, settings: Email) -> None:
        self._settings = settings

    def deliver(self, id: UUID, envelope: Envelope, mail: EmailMessage) -> None:
        """Say it to the server; OSError or SMTPException where it did not take it now."""
        too_long = TimeoutError("the mail server took too long")
        with gevent.Timeout(self._settings.timeout * STEPS, too_long):
            self._converse(envelope, mail)

    def _converse(self, envelope: Envelope, mail: EmailMessage) -> None:
        server = self._connect()
        try:
            if self._settings.use_tls and self._settings.port != IMPLICIT_TLS_PORT:
                server.starttls(context=ssl.create_default_context())
            if self._settings.username is not None:
                server.login(self._settings.username, self._settings.password or "")
            server.send_message(mail, envelope.sender, [envelope.recipient])
        except smtplib.SMTPRecipientsRefused as error:
            if all(_is_final(code) for code, _text in error.recipients.values()):
                raise Undeliverable("the mail server refused the recipient") from None
            raise
        except smtplib.SMTPDataError as error:
            if _is_final(error.smtp_code):
                raise Undeliverable("the mail server refused the mail") from None
            raise
        finally:
            # It has been taken by now, or will not be: parting politely is worth no error.
            server.close()

    def _connect(self) -> smtplib.SMTP:
        settings = self._settings
        host = settings.host or ""
        if settings.use_tls and settings.port == IMPLICIT_TLS_PORT:
            context = ssl.create_default_context()
            return _ImplicitTls(host, settings.port, timeout=settings.timeout, context=context)
        return _Plain(host, settings.port, timeout=settings.timeout)


class _Plain(smtplib.SMTP):
    def _get_socket(self, host: str, port: int, timeout: float) -> socket.socket:
        return _connected(host, port, timeout)


class _ImplicitTls(smtplib.SMTP_SSL):
    def _get_socket(self, host: str, port: int, timeout: float) -> ssl.SSLSocket:
        return self.context.wrap_socket(_connected(host, port, timeout), server_hostname=host)


def _connected(host: str, port: int, timeout_s: float) -> socket.socket:
    """A connection to the first of the host's addresses that answers. Raises OSError."""
    fault: OSError = OSError("the name has no address")
    for *_, address in resolver.addresses(host, port, timeout_s=timeout_s):
        try:
            return socket.create_connection(address[:2], timeout_s)
        except OSError as error:
            fault = error
    raise fault


def _is_final(code: int) -> bool:
    return 500 <= code <= 599
