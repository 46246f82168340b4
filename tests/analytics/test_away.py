"""A database that hangs: once it is known to be away, no call waits for a look at it. In a process of its own, patched as ours are."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

SCRIPT = """
from gevent import monkey; monkey.patch_all()
import select, socket, sys, time
import gevent
from uuid import uuid4
from dwctl import config
from dwctl.analytics.recorder import Recorder
from dwctl.analytics.records import Kept
from tests.analytics.made import Made, final, opening

server = socket.create_server(("127.0.0.1", 0))
taken = []
def accept():
    while True:
        taken.append(server.accept()[0])
gevent.spawn(accept)
url = f"postgresql://u:p@127.0.0.1:{server.getsockname()[1]}/d"
recorder = Recorder(config.load({
    "DATABASE_URL": url, "DWCTL_RECORDER__SPOOL_DIR": sys.argv[1],
    "DWCTL_RECORDER__DATABASE_WAIT": "1s", "DWCTL_DATABASE__CONNECT_TIMEOUT": "60s"}))
recorder.start()
assert recorder.finish(final(Made(uuid4()))) is Kept.SPOOLED
assert recorder.away_since is not None
known = len(taken)
with gevent.Timeout(20):
    while len(taken) == known:
        gevent.sleep(0.01)
# The probe hangs now; a call is spooled while it does.
probe = taken[-1]
call = Made(uuid4())
assert recorder.open(opening(call)) is Kept.SPOOLED
assert recorder.finish(final(call)) is Kept.SPOOLED
probe.setblocking(False)
try:
    while probe.recv(4096):
        pass
    hung_up = True
except BlockingIOError:
    hung_up = False
assert not hung_up
recorder.stop(time.monotonic())
print("done")
"""


def test_calls_do_not_wait_for_a_probe_that_hangs(tmp_path: Path) -> None:
    root = Path(__file__).resolve().parents[2]
    found = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(tmp_path)],
        cwd=root, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert found.stdout.endswith("done\n"), found.stderr
