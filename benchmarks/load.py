"""Load on one URL for a while, or a number of calls: by wrk where it is installed, else by a generator of our own (slower: it tells its share).

The fixed number always comes from our own generator, which answers for every single call.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from benchmarks.client import Answer, Connection, Lost, request
from benchmarks.stage import SECRET

# Both generators send what a small chat client sends.
_SCRIPT = """
wrk.method = "POST"
wrk.body = [==[%s]==]
wrk.headers["authorization"] = "Bearer %s"
wrk.headers["content-type"] = "application/json"
done = function(summary, latency, _)
    local e = summary.errors
    io.write(string.format('\\n{"answers":%%d,"us":%%d,"faults":%%d,"p50_us":%%d,"p99_us":%%d}\\n', summary.requests, summary.duration,
        e.connect + e.read + e.write + e.status + e.timeout, latency:percentile(50), latency:percentile(99)))
end
"""


@dataclass(frozen=True, slots=True)
class Load:
    """What was answered. `share`: of one core, what our own generator took (None for wrk)."""

    answers: int
    faults: int
    seconds: float
    p50_ms: float
    p99_ms: float
    share: float | None = None

    @property
    def per_s(self) -> float:
        """Answers a second."""
        return self.answers / self.seconds


def generator() -> str:
    """Which one is used."""
    return shutil.which("wrk") or "a generator of our own"


def chat(alias: str, **members: object) -> bytes:
    """A chat request of 946 bytes, unless `members` make it longer."""
    content = {
        "model": alias,
        "messages": [
            {"role": "system", "content": "You are a helpful assistant."},
            {"role": "user", "content": ""},
        ],
        "temperature": 0.5,
        **members,
    }
    missing = 946 - len(json.dumps(content))
    text = "What does the fox say to the dog? " * 30
    content["messages"][1]["content"] = text[: max(20, missing)]  # type: ignore[index]
    return json.dumps(content).encode()


def press(url: str, body: bytes, connections: int, seconds: float) -> Load:
    """As many calls as go through in that time."""
    if shutil.which("wrk"):
        return _wrk(url, body, connections, seconds)
    return asyncio.run(_run(url, body, connections, until=time.monotonic() + seconds))


def send(url: str, body: bytes, connections: int, calls: int) -> Load:
    """Exactly so many calls, each answered or counted as a fault."""
    return asyncio.run(_run(url, body, connections, calls=calls))


def _wrk(url: str, body: bytes, connections: int, seconds: float) -> Load:
    with tempfile.TemporaryDirectory() as folder:
        script = Path(folder) / "chat.lua"
        script.write_text(_SCRIPT % (body.decode(), SECRET))
        command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds:g}s", "-s", str(script), url]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    seen = json.loads(done.stdout.strip().splitlines()[-1])
    return Load(
        answers=seen["answers"],
        faults=seen["faults"],
        seconds=seen["us"] / 1e6,
        p50_ms=seen["p50_us"] / 1000,
        p99_ms=seen["p99_us"] / 1000,
    )


async def _run(
    url: str, body: bytes, connections: int, *, calls: int | None = None, until: float = 0.0
) -> Load:
    message = request(url, body)
    answers: list[Answer] = []
    faults = 0
    left = calls

    async def caller() -> None:
        nonlocal left, faults
        connection = await Connection.open(url)
        while left if left is not None else time.monotonic() < until:
            if left is not None:
                left -= 1
            try:
                answer = await connection.call(message)
            except Lost:
                faults += 1
                connection = await Connection.open(url)
                continue
            if answer.status in (200, 202):
                answers.append(answer)
            else:
                faults += 1
        connection.close()

    began, used = time.monotonic(), _cpu_s()
    await asyncio.gather(*(caller() for _ in range(connections)))
    seconds, used = time.monotonic() - began, _cpu_s() - used
    times = sorted(answer.seconds for answer in answers) or [0.0]
    return Load(
        answers=len(answers),
        faults=faults,
        seconds=seconds,
        p50_ms=times[len(times) // 2] * 1000,
        p99_ms=times[len(times) * 99 // 100] * 1000,
        share=used / seconds,
    )


def _cpu_s() -> float:
    times = os.times()
    return times.user + times.system
