"""A tracer where the settings want one. OpenTelemetry's libraries (90 ms, 15 MB) are imported here, inside, and nowhere else."""

from __future__ import annotations

import logging
import os
import socket
from typing import TYPE_CHECKING

from dwctl import __version__
from dwctl.config import Settings
from dwctl.sampling import Sample
from dwctl.settings.otel import pairs

if TYPE_CHECKING:
    from opentelemetry.sdk.trace.sampling import Sampler

    from dwctl.tracing.tracer import Tracer

_DEFAULT = "http://localhost:4318"
_PATH = "/v1/traces"
_LINES_PER_MINUTE = 2


def tracer_for(settings: Settings, role: str) -> Tracer | None:
    """None where traces are not exported. `role`: web or worker. Call it after forking: each process has an id of its own."""
    if not settings.exports_traces:
        return None
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider

    from dwctl.tracing.exporting import Exporting
    from dwctl.tracing.tracer import Tracer

    _quieten()
    otel = settings.otel
    exporter = OTLPSpanExporter(
        endpoint=endpoint_of(otel.endpoint, otel.traces_endpoint),
        headers=pairs(otel.headers or ""),
        timeout=otel.timeout,
    )
    exporting = Exporting(exporter, otel.queue_size)
    provider = TracerProvider(
        sampler=_sampler(otel.sampler, otel.sampler_arg),
        resource=Resource(_resource(settings, role)),
        shutdown_on_exit=False,
    )
    provider.add_span_processor(exporting)
    return Tracer(provider, exporting, forwards=otel.forward_to_upstream)


def endpoint_of(base: str | None, traces: str | None) -> str:
    """Where spans are posted: one for traces is used as it is, below a base they have a path of their own."""
    if traces is not None:
        return traces
    base = (base or _DEFAULT).rstrip("/")
    return base if base.endswith(_PATH) else base + _PATH


class _Sometimes(logging.Filter):
    """A collector that is away would be told of with each group of spans, several times."""

    def __init__(self) -> None:
        super().__init__()
        self._sample = Sample(_LINES_PER_MINUTE)

    def filter(self, record: logging.LogRecord) -> bool:
        return self._sample.take() is not None


def _quieten() -> None:
    for name in list(logging.root.manager.loggerDict):
        logger = logging.getLogger(name)
        if name.startswith("opentelemetry.exporter") and not logger.filters:
            logger.addFilter(_Sometimes())


def _sampler(name: str, ratio: float) -> Sampler:
    from opentelemetry.sdk.trace import sampling

    roots = {
        "always_on": sampling.ALWAYS_ON,
        "always_off": sampling.ALWAYS_OFF,
        "traceidratio": sampling.TraceIdRatioBased(ratio),
    }
    root = roots[name.removeprefix("parentbased_")]
    return sampling.ParentBased(root) if name.startswith("parentbased_") else root


def _resource(settings: Settings, role: str) -> dict[str, str | int]:
    attributes: dict[str, str | int] = {
        "telemetry.sdk.language": "python",
        "telemetry.sdk.name": "opentelemetry",
        "service.version": __version__,
        "service.instance.id": f"{socket.gethostname()}-{os.getpid()}",
        "process.pid": os.getpid(),
        "host.name": socket.gethostname(),
        "dwctl.role": role,
        **pairs(settings.otel.resource_attributes or ""),
    }
    # By OpenTelemetry's rules a name that is given goes before one among the attributes.
    default = type(settings.otel)().service_name
    if settings.otel.service_name != default or "service.name" not in attributes:
        attributes["service.name"] = settings.otel.service_name
    return attributes
