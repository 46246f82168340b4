"""Real processes for tests: gunicorn web and worker, started as the Procfile does, watched, killed."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import requests

from tests.warm import Forked, Warm, may_be_warm

ROOT = Path(__file__).resolve().parent.parent

IMPATIENT = {
    "DWCTL_BACKGROUND_SERVICES__BATCH_DAEMON__BACKOFF_MS": "50",
    "DWCTL_BACKGROUND_SERVICES__BATCH_DAEMON__MAX_BACKOFF_MS": "100",
    "DWCTL_BACKGROUND_SERVICES__BATCH_DAEMON__CLAIM_INTERVAL_MS": "200",
}
"""Workers that try again after about 50 ms."""
HEARTBEAT_S, DEAD_AFTER_S = 0.5, 3.0
QUICK = IMPATIENT | {
    "DWCTL_DAEMONS__HEARTBEAT": f"{HEARTBEAT_S}s",
    "DWCTL_DAEMONS__DEAD_AFTER": f"{DEAD_AFTER_S}s",
    "DWCTL_SHUTDOWN__GRACE": "8s",
}
"""Processes that notice each other's death within a few seconds, and end within a few."""
GUNICORN = str(Path(sys.executable).with_name("gunicorn"))
WEB = [GUNICORN, "-c", "gunicorn.conf.py", "wsgi:app"]


_warm = Warm()


def free_port() -> int:
    """A port that nobody listens on now.

    Chosen below the ports that the system gives to whoever connects, and at random: several test processes choose at once, and what one of
    them has found free must still be so when its gunicorn listens.
    """
    while True:
        port = random.randrange(10_000, 32_000)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


def eventually(check: Callable[[], Any], timeout_s: float = 15, every_s: float = 0.02) -> Any:
    """The first true value of `check`; fails with its last value."""
    until = time.monotonic() + timeout_s
    while not (value := check()):
        assert time.monotonic() < until, f"still {value!r} after {timeout_s} s"
        time.sleep(every_s)
    return value


def inherited() -> dict[str, str]:
    """The environment without what is ours: to a process that begins, a variable of the tests is a setting that nobody knows."""
    return {k: v for k, v in os.environ.items() if not k.startswith(("DWCTL_", "DATABASE"))}


class Process:
    """One gunicorn with its workers, in a process group of its own."""

    def __init__(
        self, command: list[str], environ: dict[str, str], port: int, *, is_warm: bool = False
    ) -> None:
        """`is_warm`: forked from a process that has its modules (tests/warm.py), in a fifth of the CPU."""
        self.port = port
        self.url = f"http://127.0.0.1:{port}"
        self.log = Path(tempfile.mkstemp(prefix="dwctl-", suffix=".log")[1])
        whole = inherited() | environ | {"PORT": str(port)}
        self._popen: subprocess.Popen[bytes] | Forked
        if is_warm:
            self._popen = _warm.start(command, whole, self.log)
            return
        with self.log.open("w") as log:
            self._popen = subprocess.Popen(
                command,
                cwd=ROOT,
                env=whole,
                stdout=log,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )

    def wait_ready(self, path: str = "/healthz", timeout_s: float = 30) -> None:
        """Until it answers."""

        def answers() -> bool:
            assert self._popen.poll() is None, f"it ended:\n{self.output()}"
            try:
                return requests.get(self.url + path, timeout=5).ok
            except (requests.ConnectionError, requests.Timeout):
                return False

        eventually(answers, timeout_s, 0.05)

    @property
    def pid(self) -> int:
        """The gunicorn master's."""
        return self._popen.pid

    @property
    def lives(self) -> bool:
        """Whether it has not ended."""
        return self._popen.poll() is None

    def worker_pids(self) -> list[int]:
        """The processes that serve."""
        found = subprocess.run(
            ["pgrep", "-P", str(self.pid)], capture_output=True, text=True, check=False
        )
        return [int(pid) for pid in found.stdout.split()]

    def kill(self) -> None:
        """SIGKILL for master and workers at once: nothing of it can say goodbye."""
        if self._popen.poll() is None:
            os.killpg(self.pid, signal.SIGKILL)
        self._popen.wait(10)

    def terminate(self) -> None:
        """SIGTERM to the master, which passes it on; does not wait."""
        self._popen.send_signal(signal.SIGTERM)

    def wait(self, timeout_s: float = 40) -> int:
        """Its exit code."""
        return self._popen.wait(timeout_s)

    def stop(self) -> None:
        """Graceful, then not."""
        if self._popen.poll() is None:
            self.terminate()
            try:
                self._popen.wait(30)
            except subprocess.TimeoutExpired:
                self.kill()
        self.log.unlink(missing_ok=True)

    def output(self) -> str:
        """What it has printed so far."""
        return self.log.read_text(errors="replace") if self.log.exists() else ""


class Service:
    """Web and worker processes on one database."""

    def __init__(self, environ: dict[str, str], *, is_warm: bool = True) -> None:
        """`is_warm`: where that can be, its processes are (`Process`). Not where how they begin and end is what is tried."""
        self.environ = environ
        self._is_warm = is_warm
        self.webs: list[Process] = []
        self.workers: list[Process] = []
        self._booting: list[tuple[Process, str]] | None = None

    def __enter__(self) -> Service:
        return self

    def __exit__(self, *_exc: object) -> None:
        every = (*self.webs, *self.workers)
        for process in every:
            if process.lives:
                process.terminate()
        for process in every:
            process.stop()

    @contextlib.contextmanager
    def at_once(self) -> Iterator[None]:
        """What is started inside boots at the same time, and is ready at the end."""
        booting = self._booting = []
        try:
            yield
        finally:
            self._booting = None
        for process, path in booting:
            process.wait_ready(path)

    def _start(self, command: list[str], more: dict[str, str]) -> Process:
        environ = {"WEB_CONCURRENCY": "1"} | self.environ | more
        is_warm = self._is_warm and may_be_warm(environ)
        return Process(command, environ, free_port(), is_warm=is_warm)

    def _wait_ready(self, process: Process, path: str) -> Process:
        if self._booting is None:
            process.wait_ready(path)
        else:
            self._booting.append((process, path))
        return process

    @property
    def url(self) -> str:
        """The first web process."""
        return self.webs[0].url

    def start_web(self, **more: str) -> Process:
        """One more web process; ready when this returns."""
        process = self._start(WEB, more)
        self.webs.append(process)
        return self._wait_ready(process, "/readyz")

    def worker(self) -> Process:
        """One that lives; started if there is none."""
        self.workers = [worker for worker in self.workers if worker.lives]
        return self.workers[0] if self.workers else self.start_worker()

    def start_worker(self, **more: str) -> Process:
        """One more worker process; ready when this returns."""
        command = [GUNICORN, "-c", "dwctl/worker/gunicorn.conf.py", "--workers", "1", "dwctl.worker.app:app"]  # fmt: skip
        process = self._start(command, more)
        self.workers.append(process)
        return self._wait_ready(process, "/healthz")
