"""What `dwctl up` prints when everything answers: where to look, how to sign in, and lines that work when they are copied."""

from __future__ import annotations

import json
import shutil
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import click
import requests
from rich.console import Console
from rich.rule import Rule

from dwctl.commands import demo_calls
from dwctl.local.demo_upstream import CHAT_MODEL
from dwctl.local.postgres import default_data_dir
from dwctl.upstream import outbound
from dwctl.upstream.addresses import Policy, Purpose

_LOOK_EVERY_S = 0.1
_IN_A_ROW = 3
_WORKER_PATIENCE_S = 20.0
_OURS = Policy(Purpose.ENDPOINTS, "any")


@dataclass(frozen=True, slots=True)
class Announcement:
    """`probe` is where this machine reaches the web process. `password` is there at the very first start, `api_key` with the demo.

    is_quiet: no call was ever made, and the demo begins with some.
    """

    url: str
    probe: str
    data_dir: Path
    email: str
    password: str | None
    api_key: str | None
    is_quiet: bool = False

    def as_json(self) -> str:
        """One line for scripts."""
        shown = {
            "url": self.url,
            "email": self.email,
            "password": self.password,
            "api_key": self.api_key,
            "data_dir": str(self.data_dir),
        }
        return json.dumps(shown)

    def print_to(self, console: Console) -> None:
        """The block for people. Lines to be copied are never broken."""
        console.print()
        console.print(Rule("dwctl is ready", style="green"))
        self._facts(console)
        if self.api_key:
            self._examples(console)
        self._commands(console)
        console.print(Rule(style="green"))

    def _facts(self, console: Console) -> None:
        facts = {"Open": self.url, "API": f"{self.url}/ai/v1", "Sign in as": self.email}
        facts["Data"] = f"{self.data_dir} (Ctrl-C stops everything, the data stays)"
        if self.password:
            facts["Password"] = f"{self.password}   (shown this once, stored nowhere)"
        for name, value in facts.items():
            console.print(f"  {name:<11}{value}", soft_wrap=True)

    def _examples(self, console: Console) -> None:
        chat: dict[str, Any] = {
            "model": CHAT_MODEL,
            "messages": [{"role": "user", "content": "Hello"}],
        }
        hello = {"model": CHAT_MODEL, "input": "Hello"}
        for title, path, body in (
            ("Ask the demo model:", "chat/completions", chat),
            ("Streaming:", "responses", {**hello, "stream": True}),
            ("Flex (waits for a worker):", "responses", {**hello, "service_tier": "flex"}),
            (
                "In the background (answers at once, fetch it by its id):",
                "responses",
                {**hello, "background": True},
            ),
        ):
            self._example(console, title, self._curl(path, body))
        fetch = f"curl -s {self.url}/ai/v1/responses/ID -H 'Authorization: Bearer {self.api_key}'"
        console.print(f"  {fetch}", soft_wrap=True)

    def _example(self, console: Console, title: str, line: str) -> None:
        console.print(f"\n{title}", style="bold")
        console.print(f"  {line}", soft_wrap=True)

    def _commands(self, console: Console) -> None:
        dwctl = _this_program(self.data_dir)
        if not self.api_key:
            self._example(console, "Is everything in order?", f"curl -s {self.url}/readyz")
            console.print("\nNext, in another terminal:", style="bold")
            console.print(f"  {dwctl} endpoints --help", soft_wrap=True)
            console.print(f"  {dwctl} keys create {self.email} first-key", soft_wrap=True)
        self._example(
            console, "See calls as they finish, in another terminal:", f"{dwctl} requests tail"
        )

    def _curl(self, path: str, body: dict[str, Any]) -> str:
        option = "-sN" if body.get("stream") else "-s"
        return (
            f"curl {option} {self.url}/ai/v1/{path} -H 'Authorization: Bearer {self.api_key}' "
            f"-H 'Content-Type: application/json' -d '{json.dumps(body)}'"
        )


class Announcer:
    """Waits until everything answers, then prints, once."""

    def __init__(self, announcement: Announcement, out: IO[str], *, as_json: bool) -> None:
        self._announcement = announcement
        self._out = out
        self._as_json = as_json
        self._said = False

    def wait_and_announce(self) -> None:
        """Returns when it is printed; runs in a thread of its own."""
        self._wait()
        if self._announcement.is_quiet and self._announcement.api_key:
            demo_calls.make(self._announcement.probe, self._announcement.api_key)
        self._said = True
        if self._as_json:
            click.echo(self._announcement.as_json(), file=self._out)
        else:
            console = Console(file=self._out, highlight=False, markup=False, emoji=False)
            self._announcement.print_to(console)

    def rescue_password(self) -> None:
        """A start that failed after the administrator was made must not take the password with it."""
        if not self._said and self._announcement.password:
            text = f"The administrator was made: {self._announcement.email}, password {self._announcement.password}"
            click.echo(text, err=True)

    def _wait(self) -> None:
        """Until any web process is ready, whichever answers, and a worker is there (but not for ever)."""
        began = time.monotonic()
        ready = 0
        while ready < _IN_A_ROW:
            time.sleep(_LOOK_EVERY_S)
            workers = _workers_of(self._announcement.probe)
            late = time.monotonic() - began > _WORKER_PATIENCE_S
            ready = ready + 1 if workers or (workers == 0 and late) else 0


def _workers_of(url: str) -> int | None:
    """How many workers are alive; None while the web process is not ready."""
    try:
        with outbound.session(_OURS) as session:
            answer = session.get(f"{url}/readyz", timeout=10)
        return int(answer.json()["checks"]["workers"]["alive"]) if answer.ok else None
    except (requests.RequestException, ValueError, KeyError, TypeError):
        return None


def _this_program(data_dir: Path) -> str:
    """How to call this program again from a terminal in the same folder."""
    program = Path(sys.argv[0])
    known = shutil.which("dwctl")
    name = "dwctl" if known and Path(known).samefile(program) else _short(program)
    return name if data_dir == default_data_dir() else f"{name} --data-dir {data_dir}"


def _short(program: Path) -> str:
    try:
        return str(program.resolve().relative_to(Path.cwd()))
    except ValueError:
        return str(program)
