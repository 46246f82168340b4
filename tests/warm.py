"""Gunicorns that have their modules already: forked from a process that has loaded what a web or a worker process loads, and does nothing else.

Loading takes three quarters of a start, and the tests start hundreds. What is forked here is what the Procfile starts in all other respects: the
same arguments, settings and hooks, a session, a log and a life of its own, an end by the interpreter. As ours load when gevent has patched, it has
patched here too; gunicorn's master, which never does, is given back what is the system's own (`_as_in_a_master`).

    python -m tests.warm      a line of JSON in, a line out (`_serve`)
"""

from __future__ import annotations

import importlib
import json
import os
import select
import subprocess
import sys
import threading
import warnings
from functools import cache
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

ROOT = Path(__file__).resolve().parent.parent


_OURS = ("DWCTL_", "DATABASE_URL", "WEB_CONCURRENCY", "GUNICORN_CMD_ARGS")


def may_be_warm(environ: dict[str, str]) -> bool:
    """Where the system tells of the end of somebody else's child (Linux), and it is only we who read that environment: what Python and the
    libraries read, they have read when they are loaded. `DWCTL_TEST_COLD=1`: nowhere."""
    is_cold = os.environ.get("DWCTL_TEST_COLD") or not _tells_of_ends()
    return not is_cold and all(name.startswith(_OURS) for name in environ)


@cache
def _tells_of_ends() -> bool:
    try:
        os.close(os.pidfd_open(os.getpid()))
    except (AttributeError, OSError):  # another system; an old kernel, or one that forbids it
        return False
    return True


class Warm:
    """What forks them, for this process of tests; begun when it is first asked."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[str] | None = None

    def start(self, command: list[str], environ: dict[str, str], log: Path) -> Forked:
        """Run gunicorn with these arguments; its output goes to `log`."""
        return Forked(self, self.ask({"command": command, "environ": environ, "log": str(log)}))

    def ask(self, question: dict[str, Any]) -> int:
        """One line to it, and its answer."""
        with self._lock:
            if self._process is None:
                self._process = subprocess.Popen(
                    [sys.executable, "-m", "tests.warm"],
                    cwd=ROOT,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    text=True,
                )
            assert self._process.stdin is not None
            assert self._process.stdout is not None
            print(json.dumps(question), file=self._process.stdin, flush=True)
            return int(self._process.stdout.readline())


class Forked:
    """One of them, by the names of `subprocess.Popen`."""

    def __init__(self, warm: Warm, pid: int) -> None:
        self._warm = warm
        self._lock = threading.Lock()
        self.pid = pid
        self.returncode: int | None = None
        self._descriptor = os.pidfd_open(pid)
        self._ending = select.poll()
        self._ending.register(self._descriptor, select.POLLIN)

    def poll(self) -> int | None:
        """Its exit code; None while it runs."""
        return self._ended_within(0)

    def wait(self, timeout: float) -> int:
        """Its exit code; raises `subprocess.TimeoutExpired`."""
        code = self._ended_within(timeout)
        if code is None:
            raise subprocess.TimeoutExpired("gunicorn", timeout)
        return code

    def _ended_within(self, timeout_s: float) -> int | None:
        if self.returncode is None and self._ending.poll(timeout_s * 1000):
            with self._lock:
                if self.returncode is None:
                    self.returncode = self._warm.ask({"ended": self.pid})
                    os.close(self._descriptor)
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Nothing where it has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)


def _serve() -> None:
    """Answer until nobody asks any more: with the id of a process for what to run, with the exit code for one that has ended.

    Returns in a process that was forked, ready to run.
    """
    for line in sys.stdin:
        asked = json.loads(line)
        if "ended" in asked:
            answer = os.waitstatus_to_exitcode(os.waitpid(asked["ended"], 0)[1])
        else:
            answer = os.fork()
            if not answer:
                return _become(**asked)
        sys.stdout.write(f"{answer}\n")
        sys.stdout.flush()
    raise SystemExit


def _become(command: list[str], environ: dict[str, str], log: str) -> None:
    os.setsid()
    os.environ.clear()
    os.environ.update(environ)
    sys.argv = command
    nothing, output = os.open(os.devnull, os.O_RDONLY), os.open(log, os.O_WRONLY | os.O_APPEND)
    for source, descriptor in ((nothing, 0), (output, 1), (output, 2)):
        os.dup2(source, descriptor)
    os.close(nothing)
    os.close(output)


def _load() -> None:
    """What a web and a worker process import before they make their application."""
    from gevent import monkey
    from gevent._hub_local import get_hub_if_exists

    # (These two replace what gunicorn's master forks and ends by; its processes patch them.)
    monkey.patch_all(os=False, signal=False)
    warnings.filterwarnings("ignore", "Patching more than once")
    for name in ("dwctl.app", "dwctl.commands.main", "dwctl.worker.claims"):
        importlib.import_module(name)
    # (urllib3 tries whether there is IPv6, which makes a loop.)
    if hub := get_hub_if_exists():
        hub.destroy(destroy_loop=True)


def _as_in_a_master() -> None:
    from gevent import monkey
    from gunicorn import arbiter, sock

    def unpatched(module: ModuleType) -> SimpleNamespace:
        return SimpleNamespace(**vars(module) | monkey.saved.get(module.__name__, {}))

    for room in (arbiter, sock):
        for name in ("select", "socket", "time"):
            if isinstance(module := getattr(room, name, None), ModuleType):
                setattr(room, name, unpatched(module))


if __name__ == "__main__":
    _load()
    _serve()
    _as_in_a_master()
    from gunicorn.app.wsgiapp import run

    run()
