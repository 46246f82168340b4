"""Sends the mails that wait, in every worker: some at a time, each claimed with a lease.

No duty: a duty holds a transaction while it runs, and a mail server may take its time. Claiming, composing and settling are transactions
of their own; between them nothing is held. A worker that dies in the middle leaves its mail to the end of the lease, so a mail is sent at
least once, and twice only where the worker died between the server's yes and ours.
"""

from __future__ import annotations

import logging
import random
import smtplib
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import gevent
import orjson
import psycopg
from gevent.event import Event
from psycopg.rows import class_row

from dwctl import clock, sql
from dwctl.config import ConfigError, Settings
from dwctl.db import Connections, DatabaseAway
from dwctl.encryption import Sealer
from dwctl.mail import message, outbox, transports
from dwctl.mail.message import Undeliverable
from dwctl.mail.outbox import Composed
from dwctl.mail.templates import Templates
from dwctl.wakeups import Wakeups

log = logging.getLogger(__name__)

CHANNEL = "outgoing_mails"
_QUERIES = sql.load("dwctl.mail")
_AT_ONCE = 4
_GIVEN_UP_AT_ONCE = 100
_LOOK_AT_LEAST_EVERY_S = 30.0
_AFTER_FAULT_S = 5.0
_FIRST_WAIT_S = 5.0
_LONGEST_WAIT_S = 900.0
_BEYOND_THE_CONVERSATION_S = 30.0


@dataclass(frozen=True, slots=True)
class Claimed:
    """A mail that this worker may send until its lease is over. `attempts` counts this one."""

    id: UUID
    template: str
    recipient: str
    reply_to: str | None
    values_sealed: str
    attempts: int


class Sending:
    """The mails that this process sends. `sent`, `failed` (attempts) and `given_up` count by template; `waiting` is of all processes."""

    def __init__(
        self, connections: Connections, in_force: Callable[[], Settings], sealer: Sealer
    ) -> None:
        """Raises ConfigError for templates of the operator's that are none."""
        self.sent: Counter[str] = Counter()
        self.failed: Counter[str] = Counter()
        self.given_up: Counter[str] = Counter()
        self.waiting = 0
        self._connections = connections
        self._in_force = in_force
        self._sealer = sealer
        self._use(in_force())
        self._wakes = [Event() for _ in range(_AT_ONCE)]
        self._greenlets: list[gevent.Greenlet] = []

    def start(self, wakeups: Wakeups) -> None:
        """Begin. Before the wake-ups do."""
        wakeups.subscribe(CHANNEL, lambda _payload: self._wake(), self._wake)
        self._greenlets = [gevent.spawn(self._run, wake) for wake in self._wakes]

    def stop(self) -> None:
        """End; a mail in the middle is sent by another worker when its lease is over."""
        gevent.killall(self._greenlets)

    def _use(self, settings: Settings) -> None:
        self._settings = settings
        self._templates = Templates(settings)
        self._transport = transports.of(settings.email)
        self._lease_s = transports.STEPS * settings.email.timeout + _BEYOND_THE_CONVERSATION_S

    def _follow(self) -> None:
        """Send by the settings as they are now; templates that are none leave those before in use."""
        settings = self._in_force()
        if settings is self._settings:
            return
        try:
            self._use(settings)
        except ConfigError as error:
            log.error("mail templates not read again", extra={"reason": str(error)})

    def send_next(self) -> bool:
        """Send one mail that is due; whether there was one."""
        self._follow()
        claimed = self._claim()
        if claimed is None:
            return False
        try:
            composed = self._composed(claimed)
            if composed is not None:
                self._deliver(claimed, composed)
                self.sent[claimed.template] += 1
                log.info("mail sent", extra=_names(claimed))
            self._settle("done", claimed)
        except Undeliverable as error:
            self.given_up[claimed.template] += 1
            log.warning("mail given up", extra={**_names(claimed), "reason": str(error)})
            self._settle("done", claimed)
        except (DatabaseAway, psycopg.Error):
            raise  # the mail is due again when its lease is over
        except Exception as error:
            self.failed[claimed.template] += 1
            log.warning("mail not sent", extra={**_names(claimed), "reason": _reason(error)})
            self._settle("put_off", claimed, wait_s=wait_s(claimed.attempts))
        return True

    def give_up(self) -> None:
        """Delete mails that nobody has use for any more."""
        with self._connections.transaction() as connection:
            values = {"most": _GIVEN_UP_AT_ONCE}
            gone = connection.execute(_QUERIES["give_up"], values).fetchall()
        for id, template, attempts in gone:
            self.given_up[template] += 1
            names = {"id": str(id), "template": template, "attempts": attempts}
            log.warning("mail given up", extra={**names, "reason": "it came too late"})

    def _wake(self) -> None:
        for wake in self._wakes:
            wake.set()

    def _run(self, wake: Event) -> None:
        while True:
            wake.clear()
            try:
                rest_s = 0.0 if self.send_next() else self._outlook()
            except (DatabaseAway, psycopg.OperationalError):
                rest_s = _AFTER_FAULT_S
            except Exception:
                log.exception("mails not sent")
                rest_s = _AFTER_FAULT_S
            if rest_s > 0:
                wake.wait(rest_s)

    def _outlook(self) -> float:
        """Give up what is too late; seconds until something may be due."""
        self.give_up()
        with self._connections.transaction() as connection:
            row = connection.execute(_QUERIES["outlook"]).fetchone()
        self.waiting, next_s = row or (0, None)
        if next_s is None:
            return _LOOK_AT_LEAST_EVERY_S
        # What is due and was not claimed is being claimed, or too late.
        return min(max(float(next_s), 1.0), _LOOK_AT_LEAST_EVERY_S)

    def _claim(self) -> Claimed | None:
        with self._connections.transaction() as connection:
            cursor = connection.cursor(row_factory=class_row(Claimed))
            return cursor.execute(_QUERIES["claim"], {"lease_s": self._lease_s}).fetchone()

    def _composed(self, claimed: Claimed) -> Composed | None:
        values = orjson.loads(self._sealer.open(claimed.values_sealed))
        written = Composed(claimed.recipient, values)
        composer = outbox.composer_of(claimed.template)
        if composer is None:
            return written
        with self._connections.transaction() as connection:
            return composer(connection, self._settings, written)

    def _deliver(self, claimed: Claimed, composed: Composed) -> None:
        envelope, mail = message.build(
            self._templates.fill(claimed.template, composed.values),
            to=composed.to,
            reply_to=claimed.reply_to,
            id=claimed.id,
            at=clock.now(),
            settings=self._settings.email,
        )
        self._transport.deliver(claimed.id, envelope, mail)

    def _settle(self, statement: str, claimed: Claimed, **values: Any) -> None:
        names = {"id": claimed.id, "attempts": claimed.attempts}
        with self._connections.transaction() as connection:
            connection.execute(_QUERIES[statement], {**names, **values})


def wait_s(attempts: int) -> float:
    """Seconds from a failed attempt to the next: doubled each time, a little more or less so that not all come at once."""
    return min(_FIRST_WAIT_S * 2.0 ** min(attempts - 1, 20), _LONGEST_WAIT_S) * random.uniform(0.9, 1.1)  # fmt: skip


def _names(claimed: Claimed) -> dict[str, Any]:
    return {
        "id": str(claimed.id),
        "template": claimed.template,
        "attempts": claimed.attempts,
    }


def _reason(error: Exception) -> str:
    """What went wrong, without what the error quotes: a server's answer may hold the address."""
    if isinstance(error, smtplib.SMTPResponseException):
        return f"{type(error).__name__} {error.smtp_code}"
    return type(error).__name__
