"""Whether the server process of a data folder lives, as opposed to its pid."""

import os
from pathlib import Path

PROGRAMS = ("postgres", "postmaster")


def living_pid(data: Path) -> int | None:
    """The pid of the server that runs on this data folder; None unless it lives."""
    pid = _recorded_pid(data / "postmaster.pid")
    return pid if pid is not None and _serves(pid, data) else None


def clear_dead_locks(*lock_files: Path) -> None:
    """Remove lock files whose pid exists, for use when no server lives.

    It is then a zombie's or a stranger's, and PostgreSQL takes both for a running server. A killed
    server stays a zombie until init reaps it, which a container without an init never does; and
    after a restart of the container its pid may be somebody else's. Files whose pid is gone are
    left to PostgreSQL, as is its other guard, the shared memory that orphans of a killed server
    still hold.
    """
    for path in lock_files:
        pid = _recorded_pid(path)
        if pid is not None and _exists(pid):
            path.unlink(missing_ok=True)


def _recorded_pid(lock_file: Path) -> int | None:
    try:
        return int(lock_file.read_text().split("\n", 1)[0])
    except (FileNotFoundError, ValueError):
        return None


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def _serves(pid: int, data: Path) -> bool:
    """Whether this process is the server of `data`; in doubt yes, since its locks guard the data.

    The command line is what everyone may read, in any container; that of a zombie is empty.
    """
    if not Path("/proc/self/cmdline").exists():
        return _exists(pid)
    try:
        argv = Path(f"/proc/{pid}/cmdline").read_text(errors="surrogateescape").split("\0")
    except (FileNotFoundError, ProcessLookupError):
        return False
    if Path(argv[0]).name not in PROGRAMS:
        return False
    folder = Path(argv[argv.index("-D") + 1]) if "-D" in argv else data
    return not folder.is_absolute() or folder == data
