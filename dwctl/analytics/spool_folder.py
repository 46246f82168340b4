"""Where spool files lie, and that nobody else can write there: what is in them is charged.

Imported before gevent patches (by gunicorn's master, which stops the start): knows files and settings only.
"""

from __future__ import annotations

import os
import stat
import tempfile
from pathlib import Path

from dwctl.config import ConfigError, Settings

_OTHERS_MAY_WRITE = 0o022


def of(settings: Settings) -> Path:
    """The folder, made if need be: `recorder.spool_dir`, else in the user's state folder, else (not usable) in the temporary one.

    Raises ConfigError with what is wrong: it cannot be written, or somebody else could write into it.
    """
    given = settings.recorder.spool_dir
    if given:
        folder = Path(given)
        if fault := _fault_of(folder):
            raise ConfigError(f"recorder.spool_dir: {given} {fault}")
        return folder
    state = Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state")
    # Anybody may make a folder in the temporary one: its name is ours, and it is used only if it is, too.
    temporary = Path(tempfile.gettempdir(), f"dwctl-spool-{os.geteuid()}")
    faults = []
    for folder in (state / "dwctl" / "spool", temporary):
        fault = _fault_of(folder)
        if fault is None:
            return folder
        faults.append(f"{folder} {fault}")
    raise ConfigError("recorder.spool_dir is not set, and " + ", ".join(faults))


def is_our_file(found: os.stat_result) -> bool:
    """Whether a file in it was written by us alone: a regular one, ours, under one name, closed to others."""
    ours = stat.S_ISREG(found.st_mode) and found.st_uid == os.geteuid()
    return ours and found.st_nlink == 1 and not found.st_mode & _OTHERS_MAY_WRITE


def _fault_of(folder: Path) -> str | None:
    """Make the folder if need be; what is wrong with it, or None."""
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        found = folder.lstat()
    except OSError:
        return "cannot be made"
    if stat.S_ISLNK(found.st_mode):
        return "is a symbolic link: name the folder itself"
    if not stat.S_ISDIR(found.st_mode):
        return "is not a folder"
    if found.st_uid != os.geteuid():
        return "belongs to somebody else"
    if found.st_mode & _OTHERS_MAY_WRITE:
        return "can be written by others: make it yours alone (chmod 700)"
    if not os.access(folder, os.W_OK | os.X_OK):
        return "is not writable"
    return None
