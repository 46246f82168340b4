"""Mixed traffic for 20 minutes, with aborts, faults and streams: does memory stay, is every call over, does the money add up?

    python -m benchmarks.soak [--minutes 20] [--seed 1]

Callers of every kind go on until the time is over: plain and streamed, flex and in the background, chains of responses, some that hang
up at any moment, upstreams that fail, break off and talk nonsense. One call each `_GAP_S` a caller, so that the machine is not the limit.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import random
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import requests

from benchmarks import measure, report
from benchmarks.stage import GRANT, SECRET, Gunicorn, Stage
from tests.fake_upstream import FakeUpstream

_CALLERS = 12
_GAP_S = 0.25
_TIMEOUT_S = 60
_WARM = 0.25
"""Of the time: what memory is compared with is its value then (after 5 of 20 minutes)."""
_GROWTH_PERCENT = 10
_EVERY_S = 2.0
_HONEST = ("ok", "chunks-40+gap-10ms", "tools", "reasoning", "big-64", "usage-500-200")
_ODD = (
    "fail-500", "fail-429", "cut", "cut-reset", "reset", "half", "error-in-stream", "error-first", "error-in-200", "wrong-json", "empty",
    "no-done", "slow-300ms", "usage-each", "no-usage", "sse-anyway", "json-anyway", "html",
)  # fmt: skip
_STATES = "SELECT state, count(*) FROM fusillade.requests GROUP BY state"
_OPEN = (
    "SELECT count(*) FROM fusillade.requests WHERE state NOT IN ('completed', 'failed', 'canceled')"
)
_MONEY = """
SELECT (SELECT coalesce(sum(amount), 0) FROM credits_transactions WHERE transaction_type = 'usage'),
       (SELECT %(grant)s - balance FROM user_balance_checkpoints WHERE checkpoint_seq > 0),
       (SELECT coalesce(sum(cost), 0) FROM (SELECT cost FROM model_rollups WHERE grain = 0 AND NOT of_all UNION ALL SELECT cost FROM usage_deltas) sums),
       (SELECT count(*) FROM credits_transactions WHERE transaction_type = 'usage'),
       (SELECT count(DISTINCT source_id) FROM credits_transactions WHERE transaction_type = 'usage')
"""


class Caller:
    """One of those who call, with a connection of its own; `came` counts how its calls ended."""

    def __init__(self, url: str, seed: int) -> None:
        self.came: Counter[str] = Counter()
        self._url = url
        self._random = random.Random(seed)
        self._session = requests.Session()
        self._session.headers["authorization"] = f"Bearer {SECRET}"
        self._last_id: str | None = None

    def run(self, until: float) -> None:
        """Call until then."""
        kinds: list[tuple[Callable[[], str], int]] = [
            (self._chat, 6),
            (self._chat_stream, 6),
            (self._respond, 4),
            (self._respond_stream, 4),
            (self._embed, 2),
            (self._flex, 2),
            (self._background, 2),
            (self._leave, 4),
            (self._nonsense, 2),
        ]
        calls, weights = zip(*kinds, strict=True)
        while time.monotonic() < until:
            call = self._random.choices(calls, weights)[0]
            try:
                self.came[call()] += 1
            except requests.RequestException:
                self.came["lost"] += 1
            time.sleep(self._random.random() * 2 * _GAP_S)

    def _model(self) -> str:
        return self._random.choice(_HONEST if self._random.random() < 0.7 else _ODD)

    def _post(self, path: str, body: Any, **more: Any) -> requests.Response:
        more.setdefault("timeout", _TIMEOUT_S)
        if isinstance(body, bytes):
            return self._session.post(f"{self._url}/ai/v1{path}", data=body, **more)
        return self._session.post(f"{self._url}/ai/v1{path}", json=body, **more)

    def _messages(self) -> list[dict[str, str]]:
        return [{"role": "user", "content": "word " * self._random.choice((5, 50, 500, 20_000))}]

    def _chat(self) -> str:
        body = {"model": self._model(), "messages": self._messages()}
        return f"chat {self._post('/chat/completions', body).status_code}"

    def _chat_stream(self) -> str:
        body = {"model": self._model(), "messages": self._messages(), "stream": True}
        return f"chat stream {self._read(self._post('/chat/completions', body, stream=True))}"

    def _respond(self) -> str:
        body: dict[str, Any] = {"model": self._model(), "input": self._messages()}
        if self._last_id and self._random.random() < 0.5:
            body["previous_response_id"] = self._last_id
        answer = self._post("/responses", body)
        self._last_id = answer.json()["id"] if answer.status_code == 200 else None
        return f"responses {answer.status_code}"

    def _respond_stream(self) -> str:
        body = {"model": self._model(), "input": "Tell me a story.", "stream": True}
        return f"responses stream {self._read(self._post('/responses', body, stream=True))}"

    def _embed(self) -> str:
        return f"embeddings {self._post('/embeddings', {'model': 'ok', 'input': ['one', 'two']}).status_code}"

    def _flex(self) -> str:
        stream = self._random.random() < 0.5
        body = {"model": self._random.choice(_HONEST), "input": "Hello", "service_tier": "flex"}
        answer = self._post("/responses", body | {"stream": stream}, stream=stream)
        return f"flex {self._read(answer) if stream else answer.status_code}"

    def _background(self) -> str:
        stream = self._random.random() < 0.5
        body = {"model": self._model(), "input": "Hello", "background": True, "stream": stream}
        answer = self._post("/responses", body, stream=stream)
        if stream or answer.status_code != 202:
            return f"background {self._read(answer)}"
        where = f"{self._url}/ai/v1/responses/{answer.json()['id']}"
        for _ in range(100):
            state = self._session.get(where, timeout=_TIMEOUT_S).json().get("status")
            if state not in ("queued", "in_progress"):
                return f"background {state}"
            time.sleep(0.2)
        return "background not over"

    def _leave(self) -> str:
        """Hang up after some bytes, or after some time without any."""
        body = {"model": self._model(), "messages": self._messages(), "stream": True}
        if self._random.random() < 0.3:
            body["model"] = "hold"
            with contextlib.suppress(requests.RequestException):
                self._post("/chat/completions", body, timeout=self._random.random() + 0.05)
            return "left"
        answer = self._post("/chat/completions", body, stream=True)
        for _ in itertools.islice(answer.iter_content(64), self._random.randrange(20)):
            pass
        answer.close()
        return "left"

    def _nonsense(self) -> str:
        body = self._random.choice(
            (b"", b"{", b"[]", b'{"model":"ok"}', b'{"model":1}', b"\xff" * 100, b"[" * 5000)
        )
        return f"nonsense {self._post('/chat/completions', body).status_code}"

    def _read(self, answer: requests.Response) -> str:
        whole = b"".join(answer.iter_content(65536))
        if answer.status_code != 200:
            return str(answer.status_code)
        return "complete" if b"[DONE]" in whole else "cut"


class Memory:
    """Samples of what processes hold, until `stop`."""

    def __init__(self, processes: dict[str, Gunicorn]) -> None:
        self._pids = {name: process.pid for name, process in processes.items()}
        self._began = time.monotonic()
        self._samples: dict[str, list[tuple[float, int, int]]] = {name: [] for name in processes}
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._over.set()
        self._thread.join()

    def around(self, name: str, moment: float, window_s: float) -> tuple[float, float]:
        """Mean resident bytes and open descriptors of a process in the seconds before a moment (since the start)."""
        found = [
            (size, files)
            for at, size, files in self._samples[name]
            if moment - window_s <= at <= moment
        ]
        sizes, files = zip(*found, strict=True)
        return sum(sizes) / len(sizes), sum(files) / len(files)

    def _run(self) -> None:
        while not self._over.wait(_EVERY_S):
            at = time.monotonic() - self._began
            for name, pid in self._pids.items():
                files = sum(1 for _ in Path(f"/proc/{pid}/fd").iterdir())
                self._samples[name].append((at, measure.rss_bytes(pid), files))


def main() -> int:
    """Run, and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=20.0)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    seconds = options.minutes * 60
    report.begin(
        "soak: mixed traffic with aborts, faults and streams",
        f"{_CALLERS} callers for {options.minutes:g} minutes, one web and one worker process, seed {options.seed}",
    )
    models = {name: name for name in (*_HONEST, *_ODD, "hold")}
    with (
        FakeUpstream() as upstream,
        Stage(upstream.url, models, batch_capacity=20, most_s=int(seconds) + 180) as stage,
    ):
        processes = {"web": stage.web(), "worker": stage.worker()}
        memory = Memory(processes)
        callers = _press(processes["web"].url, seconds, options.seed)
        memory.stop()
        upstream.release()
        came = sum((caller.came for caller in callers), Counter())
        for kind, count in sorted(came.items()):
            report.figure(kind, count, "calls", digits=0)
        window = min(60.0, seconds * 0.1)
        for name in processes:
            _compare(memory, name, seconds, window)
        _check_rows(stage)
    return report.exit_code()


def _press(url: str, seconds: float, seed: int) -> list[Caller]:
    until = time.monotonic() + seconds
    callers = [Caller(url, seed * 1000 + n) for n in range(_CALLERS)]
    threads = [threading.Thread(target=caller.run, args=(until,)) for caller in callers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return callers


def _compare(memory: Memory, name: str, seconds: float, window: float) -> None:
    size, files = memory.around(name, seconds * _WARM, window)
    size_after, files_after = memory.around(name, seconds, window)
    report.figure(f"{name}: memory when warm", size / 1024**2, "MiB")
    report.figure(f"{name}: memory at the end", size_after / 1024**2, "MiB")
    report.at_most(f"{name}: growth of memory", 100 * (size_after / size - 1), "%", _GROWTH_PERCENT)
    report.figure(f"{name}: descriptors when warm", files, "")
    report.figure(f"{name}: descriptors at the end", files_after, "")


def _check_rows(stage: Stage) -> None:
    """Every call is over within a minute of the last, and the money is the same in all books."""
    until = time.monotonic() + 60
    with stage.connect() as database:
        while True:
            row = database.execute(_OPEN).fetchone()
            assert row is not None
            if row[0] == 0 or time.monotonic() > until:
                break
            time.sleep(0.5)
        report.proven("calls that are not over", holds=row[0] == 0, what=f"{row[0]:,}")
        for state, count in database.execute(_STATES).fetchall():
            report.figure(f"rows {state}", count, "", digits=0)
        money = database.execute(_MONEY, {"grant": GRANT}).fetchone()
        assert money is not None
        ledger, taken, rolled_up, charges, sources = money
        report.proven(
            "ledger = balance taken = roll-up, each call charged once",
            holds=ledger == taken == rolled_up and charges == sources,
            what=f"${ledger.normalize():f}",
        )


if __name__ == "__main__":
    sys.exit(main())
