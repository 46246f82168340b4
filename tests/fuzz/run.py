"""Sends cases, waits until everything has ended, and names the rules that were broken."""

from __future__ import annotations

import contextlib
import http.client
import re
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

import orjson

from tests.fuzz.answers import Answer, OddUpstream, as_text
from tests.fuzz.asks import NATIVE, PLAIN, SANITISED, TRUSTED, Ask, ask_of
from tests.gateway import UPSTREAM_KEY, Account, Gateway
from tests.processes import eventually

CALLERS = 12
ENDS_WITHIN_S = 90.0
"""How long after the last case everything must have come to rest: held and background calls, retries, time-outs."""
MOST_ATTEMPTS = 4
TERMINAL_EVENTS = ("response.completed", "response.failed", "response.incomplete")
ENDED = ("completed", "failed", "canceled")

KNOWN: tuple[tuple[str, str], ...] = ()
"""Broken rules that are known and not yet mended: a pattern of the finding, and where that is written down. Empty when all is well."""


@dataclass(frozen=True)
class Seen:
    """What the caller of a case saw. `broken`: why the answer is not whole; None when it is."""

    ask: Ask
    status: int | None
    headers: dict[str, str]
    body: bytes
    broken: str | None

    @property
    def id(self) -> UUID | None:
        with contextlib.suppress(ValueError):
            return UUID(self.headers.get("x-request-id", ""))
        return None


@dataclass(frozen=True)
class Finding:
    """A rule that a case has broken; `case` None: nobody knows which."""

    case: int | None
    rule: str
    detail: str

    def __str__(self) -> str:
        return f"{self.rule} [case {self.case}]: {self.detail}"


class Fuzz:
    """One seed against one gateway, whose models stand on an odd upstream."""

    def __init__(self, gateway: Gateway, upstream: OddUpstream, seed: int) -> None:
        self.gateway = gateway
        self.upstream = upstream
        self.seed = seed
        self.account: Account = gateway.account("999999999")
        self.seen: dict[int, Seen] = {}
        endpoint = gateway.endpoint(upstream.url)
        for alias, more in (
            (PLAIN, {}),
            (NATIVE, {"open_responses_adapter": False}),
            (TRUSTED, {"trusted": True}),
            (SANITISED, {"sanitize_responses": True}),
        ):
            gateway.flexible("upstream-model", alias=alias, endpoint=endpoint, **more)

    def run(self, numbers: Iterable[int], *, until: float | None = None) -> list[Finding]:
        """Send these cases (until that monotonic time, where one is given), wait, and look."""
        with ThreadPoolExecutor(CALLERS) as callers:
            for number, seen in callers.map(self._case, _while_time(numbers, until)):
                self.seen[number] = seen
        found = self._at_rest()
        for number, seen in self.seen.items():
            said = self.upstream.said.get(self._mark(number))
            found += [Finding(number, rule, detail) for rule, detail in broken_rules(seen, said)]
            found += [Finding(number, rule, detail) for rule, detail in self._left(number, seen)]
        found += self._whole()
        return [finding for finding in found if not _is_known(finding)]

    def report(self, found: list[Finding]) -> str:
        """What was found, the rarest rules last, with the ask and the answer of the first case of each rule."""
        counts = Counter(finding.rule for finding in found)
        lines = [f"seed {self.seed}, {len(self.seen)} cases, {len(found)} findings"]
        for rule, count in counts.most_common():
            of_rule = [finding for finding in found if finding.rule == rule]
            lines.append(
                f"\n== {rule}: {count}, cases {[finding.case for finding in of_rule[:12]]}"
            )
            for finding in of_rule[:3]:
                lines.append(f"   {finding.detail[:700]}")
                if finding.case is not None:
                    lines.append(
                        f"   replay: python -m tests.fuzz --seed {self.seed} --case {finding.case}"
                    )
                    lines += [f"   {line}" for line in self.explain(finding.case)]
        return "\n".join(lines)

    def explain(self, number: int) -> list[str]:
        """The ask, the upstream's answer to it and what the caller saw."""
        ask = ask_of(self.seed, number)
        said = self.upstream.said.get(self._mark(number))
        lines = [
            f"ask: POST {ask.path} strict={ask.strict} {str(dict(ask.headers))[:300]} {ask.body[:500]!r} ({len(ask.body)} bytes)",
            f"upstream: {as_text(said) if said else 'was not asked'}",
        ]
        if seen := self.seen.get(number):
            lines.append(
                f"seen: {seen.status} {seen.id} {seen.broken} {seen.body[-400:]!r} ({len(seen.body)} bytes)"
            )
        return lines

    def _mark(self, number: int) -> bytes:
        return f"fuzz-{self.seed}-{number}-".encode()

    def _case(self, number: int) -> tuple[int, Seen]:
        ask = ask_of(self.seed, number)
        web = self.gateway.service.webs[ask.strict]
        return number, send(web.port, ask, f"Bearer {self.account.key}", self._mark(number))

    # --- what is left behind

    def _at_rest(self) -> list[Finding]:
        """Nothing waits or runs, some time soon."""
        remains = (
            "SELECT 'request ' || state AS what, id FROM fusillade.requests WHERE state IN ('pending', 'claimed', 'processing') "
            "UNION ALL SELECT 'inflight', id FROM fusillade.inflight UNION ALL SELECT 'open_calls', id FROM fusillade.open_calls "
            "UNION ALL SELECT 'ready', id FROM fusillade.ready UNION ALL SELECT 'delayed', id FROM fusillade.delayed"
        )
        with contextlib.suppress(AssertionError):
            eventually(lambda: not self.gateway.all(remains), ENDS_WITHIN_S, 0.2)
        with contextlib.suppress(AssertionError):
            eventually(lambda: not self._spooled(), 20, 0.2)
        numbers = {seen.id: number for number, seen in self.seen.items()}
        return [
            Finding(numbers.get(row.id), "something is still in progress", f"{row.what} {row.id}")
            for row in self.gateway.all(remains)
        ]

    def _spooled(self) -> list[Path]:
        folder = Path(self.gateway.service.environ["DWCTL_RECORDER__SPOOL_DIR"])
        return [
            file
            for file in folder.rglob("*")
            if file.is_file() and file.stat().st_size and ".lock" not in file.name
        ]

    def _left(self, number: int, seen: Seen) -> Iterator[tuple[str, str]]:
        calls = self.upstream.calls[self._mark(number)]
        if seen.id is None:
            return
        left = self.gateway.left(seen.id)
        attempts = 1
        if left.request is not None:
            attempts = left.request.retry_attempt + 1
            if left.request.state in ("completed", "failed") and len(left.logs) != 1:
                yield (
                    "a call that ended has one log row",
                    f"{left.request.state}, {len(left.logs)} log rows, {left.request.error}",
                )
        if calls > min(attempts, MOST_ATTEMPTS):
            yield "upstream calls are bounded", f"{calls} calls for {attempts} attempts"
        if len(left.charges) > 1 or len(left.logs) > 1:
            yield (
                "charged and logged once",
                f"{len(left.charges)} charges, {len(left.logs)} log rows",
            )
        if left.charges and left.logs and left.charges[0].amount != left.logs[0].total_cost:
            yield (
                "a charge is its log row's cost",
                f"{left.charges[0].amount} and {left.logs[0].total_cost}",
            )
        if left.charges and not left.logs:
            yield "a charge has a log row", str(left.charges[0].amount)
        if left.logs and left.logs[0].total_cost and not left.charges:
            yield "a cost is charged", str(left.logs[0].total_cost)

    def _whole(self) -> Iterator[Finding]:
        gateway = self.gateway
        if spooled := self._spooled():
            yield Finding(None, "nothing lies in the spool", str(spooled))
        for row in gateway.unbalanced():
            yield Finding(None, "a balance is the sum of its entries", str(row))
        for process in (*gateway.service.webs, *gateway.service.workers):
            printed = process.output()
            for stack in stacks_of(printed):
                yield Finding(None, "no stack trace", stack)
            if UPSTREAM_KEY in printed or self.account.key in printed:
                yield Finding(None, "no key in a log", "")
            if not process.lives:
                yield Finding(None, "a process lives", printed[-900:])
        for web in gateway.service.webs:
            for path in ("/healthz", "/readyz"):
                if (status := gateway.session.get(web.url + path, timeout=20).status_code) != 200:
                    yield Finding(None, "a process is well", f"{path} {status}")
        plain = gateway.flexible("plain")
        for more in ({}, {"service_tier": "flex"}):
            answer = gateway.respond(plain, by=self.account, **more)
            if answer.status_code != 200:
                yield Finding(
                    None, "an honest call is answered afterwards", f"{more} {answer.text[:300]}"
                )


def stacks_of(printed: str) -> list[str]:
    """One for each last line of a stack trace: what was raised, and the end of where."""
    found: dict[str, str] = {}
    for stack in printed.split("Traceback (most recent call last):")[1:2000]:
        lines = stack.splitlines()
        end = next((n for n, line in enumerate(lines[1:], 1) if line[:1] not in ("", " ")), 0)
        found.setdefault(lines[end][:80], "\n   ".join(lines[max(0, end - 8) : end + 1])[-900:])
    return list(found.values())


def send(port: int, ask: Ask, credential: str, mark: bytes) -> Seen:
    """Send it on a connection of its own and read as much as its caller wants. `mark`: goes to the upstream as the caller's program."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        connection.putrequest("POST", f"/ai/v1{ask.path}", skip_accept_encoding=True)
        headers = {"authorization": credential if ask.authorization is None else ask.authorization}
        headers |= {"content-type": "application/json", "content-length": str(len(ask.body))}
        headers["user-agent"] = mark.decode()
        headers |= {name.lower(): value for name, value in ask.headers}
        for name, value in headers.items():
            connection.putheader(name, value.encode("latin-1"))
        connection.endheaders(ask.body)
        if ask.patience == 0:
            return Seen(ask, None, {}, b"", "left")
        answer = connection.getresponse()
        found = {name.lower(): value for name, value in answer.getheaders()}
        if ask.patience is not None:
            return Seen(ask, answer.status, found, answer.read(ask.patience), "left")
        try:
            return Seen(ask, answer.status, found, answer.read(), None)
        except http.client.IncompleteRead as cut:
            return Seen(ask, answer.status, found, cut.partial, "the answer is cut")
    except (OSError, http.client.HTTPException) as error:
        return Seen(ask, None, {}, b"", repr(error))
    finally:
        connection.close()


def broken_rules(seen: Seen, said: Answer | None) -> Iterator[tuple[str, str]]:
    """Rules about what a caller sees, whose upstream has said `said` (None: it was not asked)."""
    shown = seen.body + repr(seen.headers).encode()
    if UPSTREAM_KEY.encode() in shown:
        whose = "a trusted" if seen.ask.model_is(TRUSTED) else "an untrusted"
        yield f"{whose} upstream's credential is never shown", f"{seen.status} {seen.body[-300:]!r}"
    if seen.broken == "left":
        return
    if seen.status is None or seen.broken:
        yield "an answer comes, whole", str(seen.broken)
        return
    if seen.id is None:
        yield "an answer has an x-request-id", f"{seen.status} {seen.headers}"
    kind = seen.headers.get("content-type", "").partition(";")[0]
    if not (200 <= seen.status < 300 or 400 <= seen.status < 600):
        yield "a status is a success or an error", str(seen.status)
    elif seen.status == 500 and not (said and said.status == 500):
        yield "no internal error", seen.body[:300].decode("utf-8", "replace")
    elif seen.status < 300 and not seen.body.strip():
        yield "an answer is not empty", f"{seen.status} {kind!r}"
    elif seen.status < 300 and seen.ask.quoted and kind != "text/event-stream":
        return
    elif seen.status < 300 and kind == "text/event-stream":
        yield from _broken_stream(seen)
    elif kind != "application/json":
        yield "an answer is JSON or a stream", f"{seen.status} {kind!r} {seen.body[:200]!r}"
    else:
        yield from _broken_json(seen)


def _broken_json(seen: Seen) -> Iterator[tuple[str, str]]:
    try:
        body = orjson.loads(seen.body.strip())
    except ValueError:
        yield "an answer is JSON", f"{seen.status} {seen.body[:300]!r}"
        return
    if seen.status is not None and seen.status >= 400 and not _is_error(body):
        yield "an error is OpenAI's envelope", f"{seen.status} {seen.body[:300]!r}"


def _is_error(body: Any) -> bool:
    error = body.get("error") if isinstance(body, dict) else None
    return (
        isinstance(error, dict)
        and isinstance(error.get("message"), str)
        and {"message", "type", "param", "code"} <= set(error)
    )


def _broken_stream(seen: Seen) -> Iterator[tuple[str, str]]:
    body = seen.body.replace(b"\r\n", b"\n")
    if not body.endswith(b"\n\n"):
        yield "a stream ends with a whole frame", repr(body[-200:])
    frames = [frame for frame in body.split(b"\n\n") if frame.strip()]
    data = [_data(frame) for frame in frames]
    said = [piece for piece in data if piece is not None]
    if said.count(b"[DONE]") != 1 or said[-1] != b"[DONE]":
        yield (
            "a stream has one end, [DONE]",
            f"{said.count(b'[DONE]')} of them, {seen.body[-300:]!r}",
        )
    kinds = []
    for piece in said:
        if piece == b"[DONE]":
            continue
        try:
            event = orjson.loads(piece)
        except ValueError:
            if not seen.ask.quoted:
                yield "an event is JSON", repr(piece[:300])
            continue
        kinds.append(event.get("type") if isinstance(event, dict) else None)
    if seen.ask.surface == "/responses":
        ends = [kind for kind in kinds if kind in TERMINAL_EVENTS]
        if len(ends) != 1 or kinds[-1] not in TERMINAL_EVENTS:
            yield "a stream of events has one terminal event, last", repr(kinds[-6:])


def _data(frame: bytes) -> bytes | None:
    found = [
        line[5:].removeprefix(b" ") for line in frame.split(b"\n") if line.startswith(b"data:")
    ]
    return b"\n".join(found) if found else None


def _while_time(numbers: Iterable[int], until: float | None) -> Iterator[int]:
    for number in numbers:
        if until is not None and time.monotonic() > until:
            return
        yield number


def _is_known(finding: Finding) -> bool:
    return any(re.search(pattern, str(finding)) for pattern, _ in KNOWN)
