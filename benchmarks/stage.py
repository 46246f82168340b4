"""What every benchmark stands on: a PostgreSQL of its own (fsync on), a migrated database with one paying account, gunicorn as in production.

Everything listens on 127.0.0.1 or a Unix socket, lives in a temporary folder, and is gone when the `with` block ends, also after Ctrl-C.
"""

from __future__ import annotations

import hashlib
import os
import resource
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from decimal import Decimal
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import psycopg

from dwctl.local.postgres import EmbeddedPostgres

ROOT = Path(__file__).resolve().parent.parent
BIN = Path(sys.executable).parent
SECRET = "sk-benchmark-0123456789abcdef"
GRANT = Decimal(1_000_000)
INPUT_PRICE = Decimal("0.000001")
OUTPUT_PRICE = Decimal("0.000002")
MOST_S = 90
FILES = 18_000

_ACCOUNT = """
WITH account AS (
    INSERT INTO users (username, email, external_user_id) VALUES ('benchmark', 'benchmark@example.com', 'benchmark') RETURNING id
), key AS (
    INSERT INTO api_keys (name, secret_hash, secret_prefix, user_id, created_by) SELECT 'benchmark', %(hash)s, 'sk-', id, id FROM account
), entry AS (
    INSERT INTO credits_transactions (user_id, transaction_type, amount, source_id)
    SELECT id, 'admin_grant', %(grant)s, 'benchmark' FROM account RETURNING user_id, seq, amount
), balance AS (
    INSERT INTO user_balance_checkpoints (user_id, checkpoint_seq, balance) SELECT user_id, seq, amount FROM entry
), endpoint AS (
    INSERT INTO inference_endpoints (name, url, created_by) SELECT 'benchmark', %(url)s, id FROM account
)
SELECT id FROM account
"""
_MODEL = """
WITH model AS (
    INSERT INTO deployed_models (model_name, alias, type, created_by, hosted_on, batch_capacity)
    SELECT %(name)s, %(alias)s, 'CHAT', e.created_by, e.id, %(batch_capacity)s FROM inference_endpoints e RETURNING id
), open_to_everyone AS (
    INSERT INTO deployment_groups (deployment_id, group_id) SELECT id, '00000000-0000-0000-0000-000000000000' FROM model
)
INSERT INTO model_tariffs (deployed_model_id, name, input_price_per_token, output_price_per_token, api_key_purpose)
SELECT id, 'realtime', %(input)s, %(output)s, 'realtime' FROM model
"""


class Stage:
    """Database, account and processes. `models`: alias to the name that the upstream knows (its traits, see upstream.py)."""

    def __init__(
        self,
        upstream_url: str,
        models: dict[str, str],
        *,
        batch_capacity: int | None = None,
        most_s: int = MOST_S,
        postgres: dict[str, str] | None = None,
    ) -> None:
        self._upstream_url = upstream_url
        self._models = models
        self._batch_capacity = batch_capacity
        self._most_s = most_s
        self._folder = Path(tempfile.mkdtemp(prefix="dwctl-benchmark-"))
        self._folder.chmod(0o755)  # started by root, PostgreSQL runs under another account
        self._server = EmbeddedPostgres(self._folder / "pg", settings=postgres)
        self._processes: list[Gunicorn] = []
        self.url = ""

    def __enter__(self) -> Self:
        _bound_this_program(self._most_s)
        try:
            self._set_up()
        except BaseException:
            self._tear_down()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        signal.alarm(0)
        self._tear_down()

    def web(self, **settings: str) -> Gunicorn:
        """One web process with the production settings."""
        return self._start("gunicorn.conf.py", "wsgi:app", "/readyz", settings)

    def worker(self, **settings: str) -> Gunicorn:
        """One worker process with the production settings."""
        return self._start(
            "dwctl/worker/gunicorn.conf.py", "dwctl.worker.app:app", "/healthz", settings
        )

    def hello(self) -> Gunicorn:
        """A bare WSGI application under the web processes' gunicorn settings."""
        return self._start("benchmarks/hello.conf.py", "benchmarks.hello:app", "/", {})

    def hello_before(self) -> Gunicorn:
        """The same under gunicorn's own gevent worker class."""
        return self._start("benchmarks/hello_before.conf.py", "benchmarks.hello:app", "/", {})

    def connect(self) -> psycopg.Connection[Any]:
        """A connection of the benchmark's own, each statement committed at once; it leaves the queue's rows to us, as dwctl's own do."""
        return psycopg.connect(self.url, autocommit=True, options="-c dwctl.queue=own")

    @property
    def postmaster(self) -> int:
        """The database server's first process; the others are its children."""
        pid = self._server.pid
        assert pid is not None
        return pid

    def _set_up(self) -> None:
        self.url = self._server.start()
        environ = self.environ()
        flask = [str(BIN / "flask"), "--app", "wsgi", "db", "upgrade"]
        done = subprocess.run(
            flask, cwd=ROOT, env=environ, capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise SystemExit(f"the migrations failed:\n{done.stdout}{done.stderr}")
        with self.connect() as connection:
            connection.execute(
                _ACCOUNT,
                {
                    "hash": hashlib.sha256(SECRET.encode()).digest(),
                    "grant": GRANT,
                    "url": self._upstream_url,
                },
            )
            for alias, name in self._models.items():
                values = {"alias": alias, "name": name, "batch_capacity": self._batch_capacity}
                prices = {"input": INPUT_PRICE, "output": OUTPUT_PRICE}
                connection.execute(_MODEL, values | prices)

    def _tear_down(self) -> None:
        for process in self._processes:
            process.stop()
        self._server.stop()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _start(
        self, config: str, application: str, probe: str, settings: dict[str, str]
    ) -> Gunicorn:
        log = self._folder / f"gunicorn-{len(self._processes)}.log"
        process = Gunicorn(config, application, self.environ(**settings), log)
        self._processes.append(process)
        process.wait_ready(probe)
        return process

    def environ(self, **settings: str) -> dict[str, str]:
        """What its processes run with, and these settings."""
        (self._folder / "config.yaml").touch()  # whatever the checkout's own says
        ours = ("DWCTL_", "DATABASE_", "PORT", "WEB_CONCURRENCY", "GUNICORN_")
        inherited = {k: v for k, v in os.environ.items() if not k.startswith(ours)}
        return inherited | {
            "DATABASE_URL": self.url,
            "WEB_CONCURRENCY": "1",
            "DWCTL_CONFIG": str(self._folder / "config.yaml"),
            "DWCTL_SECRET_KEY": "a-secret-key-for-benchmarks",
            "DWCTL_RECORDER__SPOOL_DIR": str(self._folder / "spool"),
            "DWCTL_LOG_LEVEL": "warning",
            **settings,
        }


class Gunicorn:
    """One gunicorn with one worker process, in a process group of its own."""

    def __init__(self, config: str, application: str, environ: dict[str, str], log: Path) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = int(probe.getsockname()[1])
        self.url = f"http://127.0.0.1:{self.port}"
        self._log = log
        command = [str(BIN / "gunicorn"), "-c", config, "--bind", f"127.0.0.1:{self.port}"]
        with log.open("w") as output:
            self._process = subprocess.Popen(
                [*command, "--workers", "1", application],
                cwd=ROOT,
                env=environ,
                stdout=output,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )

    def wait_ready(self, path: str) -> None:
        """Until it answers 200."""
        until = time.monotonic() + 30
        while not self._answers(path):
            if self._process.poll() is not None or time.monotonic() > until:
                raise SystemExit(f"gunicorn is not ready:\n{self._log.read_text()}")
            time.sleep(0.05)

    @property
    def pid(self) -> int:
        """The process that serves: gunicorn's only worker."""
        master = self._process.pid
        children = Path(f"/proc/{master}/task/{master}/children").read_text()
        return int(children.split()[0])

    def stop(self) -> None:
        """End it, gracefully for some seconds."""
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(8)
            except subprocess.TimeoutExpired:
                os.killpg(self._process.pid, signal.SIGKILL)
                self._process.wait()

    def _answers(self, path: str) -> bool:
        try:
            with urllib.request.urlopen(self.url + path, timeout=5) as answer:
                return bool(answer.status == 200)
        except (urllib.error.URLError, OSError):
            return False


def _bound_this_program(most_s: int) -> None:
    """End it after a while whatever happens, and let it (and what it starts) open many sockets."""
    for number in (signal.SIGTERM, signal.SIGALRM):
        signal.signal(number, _end)
    signal.alarm(most_s)
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = FILES if hard == resource.RLIM_INFINITY else min(FILES, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


def _end(number: int, _frame: Any) -> None:
    raise SystemExit(f"ended by {signal.Signals(number).name}")
