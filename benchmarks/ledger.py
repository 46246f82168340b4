"""A ledger of ten million entries: what a balance, a grant, a page of entries and a reservation take, and how long it takes to sum all of it up.

.venv/bin/python -m benchmarks.ledger [entries]
"""

from __future__ import annotations

import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import psycopg
from psycopg.types.json import Json

from benchmarks import report
from dwctl import sql
from dwctl.billing import ledger, verification
from dwctl.clock import uuid7
from dwctl.local.postgres import EmbeddedPostgres
from tests.applications import migrate

ENTRIES = 10_000_000
ACCOUNTS = 1_000
READS = 2_000
HOLDS = 500
GROUP = 64
_FAST = {"fsync": "off", "max_wal_size": "8GB", "maintenance_work_mem": "512MB"}
_INDEXES = """
SELECT indexrelid::regclass::text, pg_get_indexdef(indexrelid) FROM pg_index
 WHERE indrelid = 'credits_transactions'::regclass AND NOT indisprimary
"""
# Every tenth entry is a grant of 10; the others are calls of a thousandth.
_ENTRIES = """
INSERT INTO credits_transactions (user_id, transaction_type, amount, source_id, created_at)
SELECT lpad(to_hex(n %% %(accounts)s + 1), 32, '0')::uuid, CASE WHEN n %% 10 = 0 THEN 'admin_grant' ELSE 'usage' END,
       CASE WHEN n %% 10 = 0 THEN 10 ELSE 0.001 END, 'benchmark-' || n, now() - (%(entries)s - n) * interval '0.2 seconds'
  FROM generate_series(1, %(entries)s) n
"""
_BALANCES = """
INSERT INTO user_balance_checkpoints (user_id, checkpoint_seq, balance)
SELECT user_id, max(seq), sum(CASE transaction_type WHEN 'admin_grant' THEN amount ELSE -amount END) FROM credits_transactions GROUP BY user_id
"""


def main() -> int:
    """Fill, measure, print."""
    entries = int(sys.argv[1]) if sys.argv[1:] else ENTRIES
    report.begin(f"ledger: {entries:,} entries of {ACCOUNTS:,} accounts")
    with _database() as connection:
        began = time.monotonic()
        _fill(connection, entries)
        report.figure("to fill it", time.monotonic() - began, "s")
        _print_reads(connection)
        _print_reservations(connection)
        began = time.monotonic()
        found = list(verification.findings(connection))
        report.figure("credits verify", time.monotonic() - began, "s")
        report.proven("everything adds up", holds=not found, what=f"{len(found)} findings")
    return report.exit_code()


@contextmanager
def _database() -> Iterator[psycopg.Connection[Any]]:
    folder = Path(tempfile.mkdtemp(prefix="dwctl-benchmark-"))
    folder.chmod(0o755)
    server = EmbeddedPostgres(folder / "pg", settings=_FAST)
    try:
        url = server.start()
        migrate(url)
        with psycopg.connect(url, autocommit=True) as connection:
            yield connection
    finally:
        server.stop()
        shutil.rmtree(folder, ignore_errors=True)


def _fill(connection: psycopg.Connection[Any], entries: int) -> None:
    """Indexes are built afterwards, which takes a fraction of the time."""
    indexes = connection.execute(_INDEXES).fetchall()
    for name, _ in indexes:
        connection.execute(f"DROP INDEX {name}")  # type: ignore[arg-type]
    connection.execute(_ENTRIES, {"entries": entries, "accounts": ACCOUNTS})
    for _, definition in indexes:
        connection.execute(definition)  # type: ignore[arg-type]
    connection.execute(_BALANCES)
    connection.execute("ANALYZE credits_transactions, user_balance_checkpoints")


def _account(n: int) -> UUID:
    return UUID(int=n % ACCOUNTS + 1)


def _print_reads(connection: psycopg.Connection[Any]) -> None:
    times = _times(READS, lambda n: ledger.balance(connection, _account(n)))
    report.figure("a balance, p50", statistics.median(times), "ms", digits=3)
    report.below("a balance, p95", _p95(times), "ms", 1, digits=3)
    page = "SELECT * FROM credits_transactions WHERE user_id = %s ORDER BY seq DESC LIMIT 100"
    times = _times(READS // 10, lambda n: connection.execute(page, (_account(n),)).fetchall())
    report.figure("the newest 100 entries of an account, p95", _p95(times), "ms", digits=2)


def _print_reservations(connection: psycopg.Connection[Any]) -> None:
    me = uuid4()
    for size in (1, GROUP):
        ids = [[uuid7() for _ in range(size)] for _ in range(HOLDS)]
        times = _times(HOLDS, lambda n, ids=ids: _exchange(connection, me, ids[n - 1] if n else [], ids[n]))  # type: ignore[misc]  # fmt: skip
        _exchange(connection, me, ids[-1], [])
        name = f"hold, and let go of, {size} of one account, p50 for each call"
        report.figure(name, statistics.median(times) / size, "ms", digits=3)


def _exchange(
    connection: psycopg.Connection[Any], me: UUID, let_go: list[UUID], ids: list[UUID]
) -> None:
    wanted = [
        {"id": str(id), "user_id": str(_account(0)), "amount": "0.001", "is_bounded": True, "of_balance": True}
        for id in ids
    ]  # fmt: skip
    values = {"me": me, "let_go": let_go, "wanted": Json(wanted), "lasts_s": 60}
    connection.execute(sql.load("dwctl.billing")["hold_credit"], values)


def _times(count: int, act: Callable[[int], object]) -> list[float]:
    """In milliseconds."""
    found = []
    for n in range(count):
        began = time.perf_counter()
        act(n)
        found.append((time.perf_counter() - began) * 1000)
    return found


def _p95(times: list[float]) -> float:
    return statistics.quantiles(times, n=20)[-1]


if __name__ == "__main__":
    sys.exit(main())
