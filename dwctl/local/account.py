"""The account that a local PostgreSQL runs under.

PostgreSQL refuses to run as root, and containers often know nobody else, so for root this is
`postgres` or else `nobody`: both have the passwd entry that initdb needs, and no account is made.
"""

import os
import pwd
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

ADVICE = "Install postgresql or set DATABASE_URL."
LESSER_USERS = ("postgres", "nobody")
COMMAND_TIMEOUT_S = 120.0


class PostgresUnavailable(Exception):
    """dwctl's own PostgreSQL cannot be had; the message says why, and what to do instead."""


@dataclass(frozen=True, slots=True)
class Account:
    """Who the server is. For everyone but root this is the current user."""

    name: str
    uid: int
    gid: int

    @property
    def differs(self) -> bool:
        return self.uid != os.geteuid()

    def run(self, argv: Sequence[str | Path]) -> subprocess.CompletedProcess[str]:
        """Run one command to its end as this account, in a session of its own.

        The environment is nearly empty: our secrets are none of the server's business, and PG*
        variables would bend its tools. The new session keeps Ctrl-C away from the server.
        """
        return subprocess.run(
            argv,
            user=self.uid if self.differs else None,
            group=self.gid if self.differs else None,
            extra_groups=[] if self.differs else None,
            umask=0o077,
            cwd="/",
            env=_environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            start_new_session=True,
            timeout=COMMAND_TIMEOUT_S,
            check=False,
        )

    def own(self, path: Path) -> None:
        if self.differs:
            os.chown(path, self.uid, self.gid, follow_symlinks=False)

    def can_enter(self, folder: Path) -> bool:
        return self.run(["/bin/sh", "-c", 'cd -- "$0"', folder]).returncode == 0


def choose(data: Path) -> Account:
    """The account for this data folder: its owner if it is there, else the best that there is."""
    if os.geteuid() != 0:
        return Account(str(os.geteuid()), os.geteuid(), os.getegid())
    if data.exists():
        owner = data.stat()
        return Account(f"uid {owner.st_uid}", owner.st_uid, owner.st_gid)
    for name in LESSER_USERS:
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        return Account(name, entry.pw_uid, entry.pw_gid)
    raise PostgresUnavailable(
        f"PostgreSQL refuses to run as root, and there is no user {' or '.join(LESSER_USERS)}. "
        "Start dwctl as another user or set DATABASE_URL."
    )


def _environment() -> dict[str, str]:
    kept = {name: os.environ[name] for name in ("PATH", "LD_LIBRARY_PATH") if name in os.environ}
    return {"PATH": os.defpath, **kept, "LC_ALL": "C.UTF-8"}
