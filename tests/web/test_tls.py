"""TLS of gunicorn's own, for who has no router in front."""

from __future__ import annotations

from pathlib import Path

import requests

from tests.certificates import for_localhost
from tests.processes import GUNICORN, Process, eventually, free_port

APP = """
def app(environ, start_response):
    start_response("200 OK", [("content-length", "5")])
    return [b"hello"]
"""


def test_our_worker_class_speaks_tls(tmp_path: Path) -> None:
    certificate = for_localhost(tmp_path)
    (tmp_path / "tls_app.py").write_text(APP)
    port = free_port()
    command = [GUNICORN, "-c", "/dev/null", "-k", "dwctl.web.server.Server"]
    command += ["--certfile", str(certificate), "--keyfile", str(certificate)]
    command += ["--no-control-socket", "-b", f"127.0.0.1:{port}", "tls_app:app"]
    process = Process(command, {"PYTHONPATH": str(tmp_path)}, port)

    def answer() -> bytes | None:
        assert process.lives, process.output()
        try:
            with requests.get(
                f"https://localhost:{port}/", verify=str(certificate), timeout=5
            ) as r:
                return r.content
        except requests.ConnectionError:
            return None

    try:
        assert eventually(answer, 10) == b"hello"
    finally:
        process.stop()
