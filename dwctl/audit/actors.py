"""Who acts: the caller of the request at hand, or whoever runs a command. None: the system itself."""

from __future__ import annotations

import getpass
import os
import re
import socket
from dataclasses import asdict, dataclass
from uuid import UUID

import click
import orjson
from flask import g, has_request_context, request

from dwctl.access.caller import Caller
from dwctl.clock import uuid7
from dwctl.printable import printable
from dwctl.web import proxies, request_id

WAYS = ("session", "api_key", "proxy_header", "sign_in", "command")
"""How an actor was known. `sign_in`: nobody yet, somebody who registers, signs in, or comes by trusted header for the first time."""

_CONVERTER = re.compile(r"<(?:[^:<>]+:)?(\w+)>")
_COMMAND = "dwctl.audit.request_id"
_LONGEST_NAME = 255


@dataclass(frozen=True, slots=True)
class Actor:
    """As the triggers read it. `request` groups what was changed together; `route` is the path with its parameters' names, or the command."""

    through: str
    request: UUID
    route: str
    id: UUID | None = None
    name: str | None = None
    api_key: UUID | None = None
    address: str | None = None
    method: str | None = None

    def as_setting(self) -> str:
        """The value of `dwctl.actor`."""
        return orjson.dumps(asdict(self)).decode()


def current() -> Actor | None:
    """The actor at this moment."""
    if has_request_context():
        return _of_request()
    command = click.get_current_context(silent=True)
    return None if command is None else _of_command(command)


def _of_request() -> Actor:
    caller: Caller | None = g.get("caller")
    rule = "" if request.url_rule is None else request.url_rule.rule
    return Actor(
        through="sign_in" if caller is None else caller.source,
        request=request_id.current(),
        route=_CONVERTER.sub(r"{\1}", rule),
        id=None if caller is None else caller.user_id,
        name=None if caller is None else caller.username[:_LONGEST_NAME],
        api_key=None if caller is None else caller.api_key_id,
        address=proxies.origin_in(request.environ).client or None,
        method=request.method,
    )


def _of_command(command: click.Context) -> Actor:
    return Actor(
        through="command",
        request=command.find_root().meta.setdefault(_COMMAND, uuid7()),
        route=command.command_path,
        name=printable(_operator())[:_LONGEST_NAME],
        address=printable(socket.gethostname())[:_LONGEST_NAME] or None,
    )


def _operator() -> str:
    """The operating system's name of whoever runs the command, and who has become that by sudo."""
    try:
        name = getpass.getuser()
    except (OSError, KeyError):  # A container may run as a number that has no name.
        name = f"uid {os.getuid()}"
    before = os.environ.get("SUDO_USER")
    return f"{name} (sudo by {before})" if before and before != name else name
