"""The fault tests of batches with 20,000 lines each: workers killed, an upstream that fails, a cancel in the middle, a database that dies."""

from __future__ import annotations

import os
import subprocess
import sys
from types import ModuleType

from benchmarks.stage import ROOT

LINES = 20_000
MOST_S = 1800


def measure(report: ModuleType) -> None:
    """Say whether every line ended once and was paid once."""
    report.begin("chaos: what must be true whatever dies", f"{LINES:,} lines")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-n0", "tests/faults/test_batches.py"],
        cwd=ROOT,
        env=os.environ | {"DWCTL_TEST_LINES": str(LINES)},
        capture_output=True,
        text=True,
        timeout=MOST_S,
        check=False,
    )
    last = done.stdout.strip().splitlines()[-1:]
    report.proven("one end and one charge a line", holds=done.returncode == 0, what=" ".join(last))
