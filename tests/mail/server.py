"""A mail server on this machine: real sockets, TLS where asked for, and replies that a test chooses."""

from __future__ import annotations

import contextlib
import email
import email.policy
import socketserver
import ssl
import threading
from dataclasses import dataclass, field
from email.message import EmailMessage
from pathlib import Path
from typing import Any


@dataclass
class MailServer:
    """What has come in, and how it answers: `replies` by verb, in place of yes; `silent` says nothing at all."""

    certificate: Path | None = None
    implicit_tls: bool = False
    replies: dict[str, str] = field(default_factory=dict)
    silent: bool = False
    mails: list[EmailMessage] = field(default_factory=list)
    recipients: list[str] = field(default_factory=list)
    verbs: list[str] = field(default_factory=list)
    in_the_clear: list[str] = field(default_factory=list)

    def __enter__(self) -> MailServer:
        outer = self

        class Handler(socketserver.StreamRequestHandler):
            def handle(self) -> None:
                outer._converse(self)

        class Server(socketserver.ThreadingTCPServer):
            daemon_threads = True
            allow_reuse_address = True

        self._server = Server(("127.0.0.1", 0), Handler)
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    @property
    def port(self) -> int:
        port: int = self._server.server_address[1]
        return port

    def context(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        assert self.certificate
        context.load_cert_chain(self.certificate)
        return context

    def _converse(self, handler: Any) -> None:
        with contextlib.suppress(OSError, ValueError), contextlib.ExitStack() as stack:
            self._talk(handler.connection, stack)

    def _talk(self, connection: Any, stack: contextlib.ExitStack) -> None:
        secure = self.implicit_tls
        if secure:
            connection = stack.enter_context(
                self.context().wrap_socket(connection, server_side=True)
            )
        lines = connection.makefile("rb")

        def say(text: str) -> None:
            connection.sendall(text.encode() + b"\r\n")

        if self.silent:
            lines.read()
            return
        say("220 here")
        while line := lines.readline():
            verb = line.split(b" ")[0].strip().decode("latin-1").upper()
            self.verbs.append(verb)
            if not secure:
                self.in_the_clear.append(verb)
            if verb in self.replies:
                say(self.replies[verb])
            elif verb == "EHLO":
                offers = ["here", "SMTPUTF8", "8BITMIME", "AUTH PLAIN"]
                offers += ["STARTTLS"] if self.certificate and not secure else []
                for offer in offers[:-1]:
                    say(f"250-{offer}")
                say(f"250 {offers[-1]}")
            elif verb == "STARTTLS":
                say("220 go on")
                connection = stack.enter_context(
                    self.context().wrap_socket(connection, server_side=True)
                )
                lines, secure = connection.makefile("rb"), True
            elif verb == "AUTH":
                say("235 welcome")
            elif verb == "RCPT":
                self.recipients.append(line.partition(b":")[2].strip().decode("utf-8"))
                say("250 yes")
            elif verb == "DATA":
                say("354 go on")
                content = b""
                while (part := lines.readline()) not in (b".\r\n", b""):
                    content += part[1:] if part.startswith(b"..") else part
                self.mails.append(email.message_from_bytes(content, policy=email.policy.default))  # type: ignore[arg-type]
                say("250 taken")
            elif verb == "QUIT":
                say("221 bye")
                return
            else:
                say("250 yes")
