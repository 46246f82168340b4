"""`flask --app wsgi`, as the Procfile's release line calls it, with settings that are wrong."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.processes import ROOT, inherited


def release(**environ: str) -> subprocess.CompletedProcess[str]:
    flask = str(Path(sys.executable).with_name("flask"))
    return subprocess.run(
        [flask, "--app", "wsgi", "db", "upgrade"],
        cwd=ROOT,
        env=inherited() | environ,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def test_a_database_that_is_away_is_one_line() -> None:
    done = release(DATABASE_URL="postgresql://u:hunter2@127.0.0.1:1/x")
    assert done.returncode == 1
    assert done.stderr.startswith("Error: The database does not answer: ")
    assert "Traceback" not in done.stderr
    assert "hunter2" not in done.stderr


def test_a_wrong_setting_is_one_line() -> None:
    done = release(DWCTL_OUTBOUND__ENDPOINTS="publik")
    assert done.returncode == 1
    assert (
        done.stderr
        == "dwctl: outbound.endpoints: must be one of public, private, any (DWCTL_OUTBOUND__ENDPOINTS)\n"
    )
