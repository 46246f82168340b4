"""What processes and the database have used: CPU time and memory from /proc, bytes from PostgreSQL's own books."""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import Any

import psycopg

_TICK_S = 1 / os.sysconf("SC_CLK_TCK")
_KIB = 1024


def cpu_s(pid: int) -> float:
    """CPU seconds of one process, all its threads."""
    fields = _stat(pid)
    return (int(fields[11]) + int(fields[12])) * _TICK_S


def run_s(pid: int) -> float:
    """CPU seconds of a process of one thread, to the nanosecond: for differences that `cpu_s`, which counts in hundredths, cannot show."""
    return int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) / 1e9


def family_cpu_s(pid: int) -> float:
    """CPU seconds of a process, of its children, and of those of its children that have ended."""
    own = _stat(pid)
    ended_too = sum(int(ticks) for ticks in own[11:15]) * _TICK_S
    return ended_too + sum(_cpu_or_none(child) for child in _children(pid))


def rss_bytes(pid: int) -> int:
    """Resident memory."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * _KIB
    raise ValueError(f"{pid} has no memory")


def machine() -> str:
    """Cores, processor, system and load: figures mean nothing without it."""
    model = "unknown processor"
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    busy = os.getloadavg()[0]
    return (
        f"{os.cpu_count()} cores, {model}, Linux {platform.release()}, "
        f"Python {platform.python_version()}, load {busy:.1f}"
    )


def database_bytes(connection: psycopg.Connection[Any]) -> int:
    """Size of all our tables with their indexes and large values."""
    return _one(
        connection,
        "SELECT sum(pg_total_relation_size(c.oid)) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace "
        "WHERE c.relkind = 'r' AND n.nspname IN ('public', 'fusillade')",
    )


def wal_position(connection: psycopg.Connection[Any]) -> int:
    """How many bytes of write-ahead log were ever written."""
    return _one(connection, "SELECT pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')")


def _one(connection: psycopg.Connection[Any], query: str) -> int:
    row = connection.execute(query).fetchone()
    assert row is not None
    return int(row[0])


def _stat(pid: int) -> list[str]:
    """/proc/PID/stat from its third field on; the second may contain anything."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def _children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def _cpu_or_none(pid: int) -> float:
    try:
        return cpu_s(pid)
    except OSError:
        return 0.0  # it has just ended, and counts with its parent
