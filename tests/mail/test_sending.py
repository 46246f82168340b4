"""Mails that wait are sent once, by whatever way the settings name, and say nothing in the log."""

from __future__ import annotations

import email
import email.policy
import logging
import stat
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
from flask import Flask

from dwctl import clock, config
from dwctl.config import Email, Settings
from dwctl.db import db
from dwctl.mail import outbox, sending
from dwctl.mail.outbox import Composed, Mail
from dwctl.mail.sending import Sending
from dwctl.mail.templates import Templates
from dwctl.web import current
from tests import certificates
from tests.mail.server import MailServer

VALUES = {"name": "Alice", "email": "alice@mail.example", "link": "https://x.example/?a=1&b=2", "minutes": "30"}  # fmt: skip
TO = "alice@mail.example"


@pytest.fixture(autouse=True)
def plain_composing(app: Flask, sql: psycopg.Connection) -> Iterator[None]:
    """These mails are filled with what was put in; identity's own composing has its own tests."""
    composer = outbox.composer_of("password_reset")
    outbox._COMPOSERS.clear()
    sql.execute("TRUNCATE outgoing_mails")
    with app.app_context():
        yield
    if composer:
        outbox.composed_by("password_reset", composer)


def put(to: str = TO, *, template: str = "password_reset", left_s: float = 600, **more: Any) -> None:  # fmt: skip
    expires_at = clock.now() + timedelta(seconds=left_s)
    outbox.put(db.session(), Mail(template, to, {**VALUES, **more.pop("values", {})}, expires_at, **more))  # fmt: skip
    db.session.commit()


def sender(**settings: Any) -> Sending:
    parts = current.parts()
    changed: Settings = replace(parts.settings, email=Email(**settings))
    return Sending(parts.connections, lambda: changed, parts.sealer)


def by_smtp(server: MailServer, **more: Any) -> Sending:
    return sender(**{"type": "smtp", "host": "127.0.0.1", "port": server.port, "use_tls": False, "timeout": 5.0, **more})  # fmt: skip


def waiting(sql: psycopg.Connection) -> list[tuple[Any, ...]]:
    return sql.execute("SELECT attempts, due_at > now() FROM outgoing_mails").fetchall()


def test_a_mail_is_a_file_that_only_we_can_read(tmp_path: Path, sql: psycopg.Connection) -> None:
    put(reply_to="boss@mail.example")
    sends = sender(path=str(tmp_path / "out"), from_name="Ünser Team")
    assert sends.send_next() is True
    assert sends.send_next() is False
    (file,) = (tmp_path / "out").iterdir()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700
    mail = email.message_from_bytes(file.read_bytes(), policy=email.policy.default)
    assert (mail["To"], mail["Reply-To"]) == (TO, "boss@mail.example")
    assert mail["From"].addresses[0].display_name == "Ünser Team"
    text, html = (mail.get_body((kind,)) for kind in ("plain", "html"))
    assert "https://x.example/?a=1&b=2" in text.get_content()
    assert 'href="https://x.example/?a=1&amp;b=2"' in html.get_content()
    assert waiting(sql) == []
    assert dict(sends.sent) == {"password_reset": 1}


def test_a_server_takes_it(sql: psycopg.Connection) -> None:
    put()
    with MailServer() as server:
        assert by_smtp(server).send_next()
    assert server.recipients == [f"<{TO}>"]
    assert server.mails[0]["Auto-Submitted"] == "auto-generated"
    assert waiting(sql) == []


@pytest.mark.parametrize("implicit", [False, True], ids=["STARTTLS", "TLS at once"])
def test_credentials_go_over_verified_tls_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sql: psycopg.Connection, implicit: bool
) -> None:
    certificate = certificates.for_localhost(tmp_path)
    account = {"username": "u", "password": "p", "use_tls": True}
    with MailServer(certificate, implicit_tls=implicit) as server:
        if implicit:
            monkeypatch.setattr("dwctl.mail.transports.IMPLICIT_TLS_PORT", server.port)
        put()
        assert by_smtp(server, **account, host="localhost").send_next()  # nobody vouches for it
        assert (server.mails, waiting(sql)) == ([], [(1, True)])
        assert "AUTH" not in server.verbs
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        sql.execute("UPDATE outgoing_mails SET due_at = now()")
        assert by_smtp(server, **account, host="127.0.0.1").send_next()  # not its name
        assert (server.mails, waiting(sql)) == ([], [(2, True)])
        sql.execute("UPDATE outgoing_mails SET due_at = now()")
        assert by_smtp(server, **account, host="localhost").send_next()
        assert len(server.mails) == 1
        assert "AUTH" in server.verbs
        assert {"AUTH", "MAIL", "RCPT", "DATA"}.isdisjoint(server.in_the_clear)


def test_nothing_goes_out_in_the_clear_where_tls_is_wanted(sql: psycopg.Connection) -> None:
    put()
    with MailServer() as server:
        assert by_smtp(server, use_tls=True).send_next()
    assert "MAIL" not in server.verbs
    assert waiting(sql) == [(1, True)]


@pytest.mark.parametrize(
    ("reply", "left"),
    [
        ({"MAIL": "451 later"}, [(1, True)]),
        ({"RCPT": "450 grey"}, [(1, True)]),
        ({"DATA": "421 busy"}, [(1, True)]),
        ({"MAIL": "550 not from you"}, [(1, True)]),
        ({"RCPT": "550 nobody here"}, []),
        ({"DATA": "554 spam"}, []),
    ],
    ids=["later", "grey", "busy", "our fault", "nobody", "spam"],
)
def test_what_is_refused_for_now_is_tried_again(
    sql: psycopg.Connection, caplog: pytest.LogCaptureFixture, reply: dict[str, str], left: list[Any]
) -> None:  # fmt: skip
    caplog.set_level(logging.INFO)
    put()
    with MailServer(replies=reply) as server:
        sends = by_smtp(server)
        assert sends.send_next()
    assert waiting(sql) == left
    assert (sum(sends.failed.values()), sum(sends.given_up.values())) == ((1, 0) if left else (0, 1))  # fmt: skip
    said = " ".join(str(vars(record)) for record in caplog.records if record.name == sending.__name__)  # fmt: skip
    assert "password_reset" in said
    assert TO not in said
    assert "x.example" not in said


def test_a_server_that_says_nothing_is_left(sql: psycopg.Connection) -> None:
    put()
    with MailServer(silent=True) as server:
        assert by_smtp(server, timeout=0.2).send_next()
    assert waiting(sql) == [(1, True)]


@pytest.mark.parametrize(
    "to",
    [
        "a@b.example\r\nBcc: c@d.example", "a@b.example\nX: y", "a@b.example, c@d.example", "<a@b.example>", "a b@c.example", "a@", "@b", "",
        "a@b.example>", "a,b@c.example", "x" * 300 + "\x00@y", "\u2028a@b.example", "=?utf-8?q?a?=@b.example\r\n",
    ],
    ids=range(13),
)  # fmt: skip
def test_what_is_no_address_gets_nothing(sql: psycopg.Connection, tmp_path: Path, to: str) -> None:
    put("placeholder@b.example")
    sends = sender(path=str(tmp_path))
    outbox.composed_by("password_reset", lambda *_: Composed(to, VALUES))
    assert sends.send_next()
    assert dict(sends.given_up) == {"password_reset": 1}
    assert list(tmp_path.iterdir()) == []
    assert waiting(sql) == []


def test_a_value_adds_no_header_and_no_element(tmp_path: Path) -> None:
    own = tmp_path / "templates"
    own.mkdir()
    (own / "password_reset.subject").write_text("Hello {{ name }}\n")
    evil = "x\r\nBcc: victim@x.example\r\n\r\n<script>alert(1)</script>"
    put(values={"name": evil})
    assert sender(path=str(tmp_path / "out"), templates_dir=str(own)).send_next()
    (file,) = (tmp_path / "out").iterdir()
    mail = email.message_from_bytes(file.read_bytes(), policy=email.policy.default)
    assert mail["Bcc"] is None
    assert mail["Subject"].startswith("Hello x Bcc: victim@x.example")
    html = mail.get_body(("html",)).get_content()
    assert "<script>" not in html
    assert "&lt;script&gt;" in html


def test_an_address_of_another_script_is_written_to(sql: psycopg.Connection) -> None:
    put("用户@例子.example")
    with MailServer() as server:
        assert by_smtp(server).send_next()
    assert server.recipients == ["<用户@例子.example>"]


def test_a_mail_that_came_too_late_is_given_up(sql: psycopg.Connection, tmp_path: Path) -> None:
    put(left_s=-1)
    put("other@mail.example", left_s=600)
    sql.execute("UPDATE outgoing_mails SET due_at = now() + interval '1 minute', attempts = 1")
    sends = sender(path=str(tmp_path))
    sends.give_up()
    assert len(waiting(sql)) == 2  # somebody may be sending it
    sql.execute("UPDATE outgoing_mails SET due_at = now()")
    sends.give_up()
    assert len(waiting(sql)) == 1
    assert dict(sends.given_up) == {"password_reset": 1}


def test_whoever_lost_its_lease_settles_nothing(sql: psycopg.Connection, tmp_path: Path) -> None:
    put()
    one, two = sender(path=str(tmp_path)), sender(path=str(tmp_path))
    claimed = one._claim()
    assert claimed
    assert two._claim() is None
    sql.execute("UPDATE outgoing_mails SET due_at = now()")
    assert two._claim()
    one._settle("done", claimed)
    assert waiting(sql) == [(2, True)]


def test_single_templates_are_overridden(tmp_path: Path, app: Flask) -> None:
    (tmp_path / "password_reset.subject").write_text("Neues Passwort")
    settings = replace(current.settings(), email=Email(templates_dir=str(tmp_path)))
    words = Templates(settings).fill("password_reset", VALUES)
    assert words.subject == "Neues Passwort"
    assert "within 30 minutes" in words.text


@pytest.mark.parametrize("text", ["{{ name", "{% if %}", "{{ a + }}"])
def test_a_broken_template_stops_the_start(tmp_path: Path, text: str) -> None:
    (tmp_path / "password_reset.html").write_text(text)
    settings = replace(current.settings(), email=Email(templates_dir=str(tmp_path)))
    with pytest.raises(config.ConfigError, match=r"email\.templates_dir: password_reset\.html"):
        Templates(settings)


def test_a_template_reaches_no_inside(tmp_path: Path, sql: psycopg.Connection) -> None:
    (tmp_path / "password_reset.txt").write_text("{{ name.__class__.__mro__ }}{{ missing }}")
    put()
    assert sender(path=str(tmp_path / "out"), templates_dir=str(tmp_path)).send_next()
    assert waiting(sql) == [(1, True)]
    assert not (tmp_path / "out").exists()


def test_the_wait_grows_to_a_bound() -> None:
    waits = [sending.wait_s(attempts) for attempts in (1, 2, 3, 10, 1000)]
    assert 4 <= waits[0] <= 6
    assert waits == sorted(waits[:4]) + waits[4:]
    assert all(wait <= 1000 for wait in waits)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("TYPE", "smtp"), ("TYPE", "post"), ("PORT", "0"), ("PORT", "70000"), ("TIMEOUT", "0"), ("TIMEOUT", "2h"), ("USERNAME", "u"), ("PASSWORD", "p"),
        ("FROM_EMAIL", "nobody"), ("FROM_EMAIL", "a@b\nc"), ("REPLY_TO", "x y@z"), ("FROM_NAME", "a\r\nBcc: b"), ("TEMPLATES_DIR", "/nowhere/at/all"), ("PATH", ""), ("SUBJECT", "x"),
    ],
)  # fmt: skip
def test_a_bad_setting_stops_the_start_with_its_name(name: str, value: str) -> None:
    with pytest.raises(config.ConfigError, match=r"email\."):
        config.load({f"DWCTL_EMAIL__{name}": value})
