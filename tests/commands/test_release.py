"""`flask --app wsgi`, as the Procfile's release line calls it, with settings that are wrong."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_a_wrong_setting_is_one_line() -> None:
    flask = str(Path(sys.executable).with_name("flask"))
    done = subprocess.run(
        [flask, "--app", "wsgi", "db", "upgrade"],
        cwd=ROOT,
        env=os.environ | {"DWCTL_OUTBOUND__ENDPOINTS": "publik"},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 1
    assert (
        done.stderr
        == "dwctl: outbound.endpoints: must be one of public, private, any (DWCTL_OUTBOUND__ENDPOINTS)\n"
    )
