"""A collector of traces: a real HTTP server that reads what OpenTelemetry's exporters post, keeps it, or misbehaves."""

from __future__ import annotations

import gzip
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from tests.processes import eventually


@dataclass(frozen=True)
class Span:
    """One that was exported. `links`: (trace, span)."""

    name: str
    kind: int
    trace: str
    id: str
    parent: str
    links: list[tuple[str, str]]
    failed: bool
    attributes: dict[str, Any]
    resource: dict[str, Any] = field(repr=False, default_factory=dict)


class Collector:
    """Listens on a port of its own. `status` is what exporters are answered; while `hangs` is set they wait."""

    def __init__(self) -> None:
        self.spans: list[Span] = []
        self.paths: set[str] = set()
        self.headers: dict[str, str] = {}
        self.bytes = b""
        self.status = 200
        self.hangs = threading.Event()
        self.asked = 0
        self._done = threading.Event()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Collector:
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_exc: object) -> None:
        self._done.set()
        self._server.shutdown()
        self._server.server_close()

    def named(self, name: str, **attributes: Any) -> list[Span]:
        """Spans of that name that have these attributes, dots written as two underscores."""
        wanted = {key.replace("__", "."): value for key, value in attributes.items()}
        return [
            span
            for span in list(self.spans)
            if span.name == name and wanted.items() <= span.attributes.items()
        ]

    def one(self, name: str, **attributes: Any) -> Span:
        """The only one, some time soon."""
        found = eventually(lambda: self.named(name, **attributes))
        assert len(found) == 1, found
        return found[0]  # type: ignore[no-any-return]

    def of(self, trace: str) -> list[Span]:
        """A trace."""
        return [span for span in list(self.spans) if span.trace == trace]

    def _take(self, path: str, headers: dict[str, str], body: bytes) -> int:
        self.asked += 1
        if self.hangs.is_set():
            self._done.wait(60)
        if self.status != 200:
            return self.status
        self.paths.add(path)
        self.headers = headers
        self.bytes += body
        assert headers["content-type"] == "application/x-protobuf"
        if headers.get("content-encoding") == "gzip":
            body = gzip.decompress(body)
        self.spans += _spans(ExportTraceServiceRequest.FromString(body))
        return 200

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        collector = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                headers = {name.lower(): value for name, value in self.headers.items()}
                status = collector._take(self.path, headers, body)
                self.send_response(status)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *_arguments: object) -> None:
                pass

        return Handler


def _spans(request: ExportTraceServiceRequest) -> list[Span]:
    return [
        Span(
            span.name,
            span.kind,
            span.trace_id.hex(),
            span.span_id.hex(),
            span.parent_span_id.hex(),
            [(link.trace_id.hex(), link.span_id.hex()) for link in span.links],
            span.status.code == 2,
            _plain(span.attributes),
            _plain(group.resource.attributes),
        )
        for group in request.resource_spans
        for scope in group.scope_spans
        for span in scope.spans
    ]


def _plain(attributes: Any) -> dict[str, Any]:
    return {pair.key: _value(pair.value) for pair in attributes}


def _value(value: Any) -> Any:
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return [_value(part) for part in value.array_value.values]
    return getattr(value, kind)
