"""OpenTelemetry's variables as settings: which is which, and how their lists are written.

They are read where traces are exported; elsewhere they may be meant for other programs on the machine, and stop nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from urllib.parse import unquote

from marshmallow import fields

from dwctl.settings.sources import Written

SAMPLERS = (
    "always_on",
    "always_off",
    "traceidratio",
    "parentbased_always_on",
    "parentbased_always_off",
    "parentbased_traceidratio",
)
# A variable of traces goes before that of all signals.
_VARIABLES: tuple[tuple[str, str], ...] = (
    ("OTEL_EXPORTER_OTLP_ENDPOINT", "endpoint"),
    ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "traces_endpoint"),
    ("OTEL_EXPORTER_OTLP_HEADERS", "headers"),
    ("OTEL_EXPORTER_OTLP_TRACES_HEADERS", "headers"),
    ("OTEL_EXPORTER_OTLP_PROTOCOL", "protocol"),
    ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "protocol"),
    ("OTEL_EXPORTER_OTLP_TIMEOUT", "timeout"),
    ("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "timeout"),
    ("OTEL_SERVICE_NAME", "service_name"),
    ("OTEL_RESOURCE_ATTRIBUTES", "resource_attributes"),
    ("OTEL_TRACES_SAMPLER", "sampler"),
    ("OTEL_TRACES_SAMPLER_ARG", "sampler_arg"),
    ("OTEL_BSP_MAX_QUEUE_SIZE", "queue_size"),
)
_SWITCH = "enable_otel_export"


def take_variables(written: Written, environ: Mapping[str, str]) -> None:
    """Read the variables over what is written, where they are meant for us."""
    if environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        written.put(_SWITCH, "false", "OTEL_SDK_DISABLED")
        return
    if environ.get("OTEL_TRACES_EXPORTER", "").strip().lower() == "none":
        written.put(_SWITCH, "false", "OTEL_TRACES_EXPORTER")
        return
    if not _is_on(written, environ):
        return
    for variable, name in _VARIABLES:
        # Empty is the same as not there, by OpenTelemetry's rules.
        if value := environ.get(variable, "").strip():
            if name == "timeout" and value.isdecimal():
                value = f"{int(value) / 1000:g}s"  # milliseconds, by the same rules
            written.put(f"otel.{name}", value, variable)


def pairs(text: str) -> dict[str, str]:
    """`key=value,key=value`, percent-encoded. Raises ValueError for what is no such list."""
    found: dict[str, str] = {}
    for part in text.split(","):
        if not part.strip():
            continue
        key, sign, value = part.partition("=")
        if not sign or not key.strip():
            raise ValueError("a pair without a name")
        found[unquote(key.strip())] = unquote(value.strip())
    return found


def rules(
    protocol: str, headers: str | None, resource_attributes: str | None
) -> Iterator[tuple[str, bool]]:
    """What must hold where traces are exported: text of what is wrong, and whether all is well."""
    yield (
        "otel.protocol: only http/protobuf is spoken here, which collectors listen for at port 4318 (not grpc at 4317, not http/json)",
        protocol == "http/protobuf",
    )
    yield "otel.headers: must be name=value pairs, percent-encoded", _are_headers(headers or "")
    yield (
        "otel.resource_attributes: must be key=value pairs, percent-encoded",
        _are_pairs(resource_attributes or ""),
    )


def _is_on(written: Written, environ: Mapping[str, str]) -> bool:
    try:
        said = written.find(_SWITCH)
    except KeyError:
        said = None
    if said is not None:
        return said in fields.Boolean.truthy
    endpoints = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
    given = any(environ.get(variable, "").strip() for variable in endpoints)
    return given or bool(written.origin("otel.endpoint") or written.origin("otel.traces_endpoint"))


def _are_pairs(text: str) -> bool:
    try:
        pairs(text)
    except ValueError:
        return False
    return True


def _are_headers(text: str) -> bool:
    if not _are_pairs(text):
        return False
    return all(
        key.isascii() and value.isprintable() and value.isascii()
        for key, value in pairs(text).items()
    )
