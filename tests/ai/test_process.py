"""What a process does about garbage: little while it loads, and while it serves."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.processes import ROOT

_PROGRAM = """
import gc, runpy, weakref
from dwctl.ai.process import rarely_collect_garbage

runpy.run_path({settings!r})["post_fork"](None, None)
rarely_collect_garbage()
assert gc.isenabled()
assert gc.get_freeze_count() > 10_000


class Node:
    pass


node = Node()
node.itself = node
seen = weakref.ref(node)
del node
kept = [[] for _ in range(100_000)]
print("freed" if seen() is None else "kept")
"""


@pytest.mark.parametrize("settings", ["gunicorn.conf.py", "dwctl/worker/gunicorn.conf.py"])
def test_garbage_is_collected_from_when_a_process_serves(settings: str) -> None:
    program = _PROGRAM.format(settings=str(ROOT / settings))
    ended = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False, timeout=60)  # fmt: skip
    assert (ended.stdout, ended.stderr) == ("freed\n", "")
