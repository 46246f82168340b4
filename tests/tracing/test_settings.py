"""OpenTelemetry's variables: which switch traces on, which are refused, how their lists are read."""

import pytest

from dwctl import config
from dwctl.config import ConfigError, Otel
from dwctl.settings import shown
from dwctl.settings.otel import pairs
from dwctl.tracing.setup import endpoint_of

URL = "http://collector.example:4318"
ON = {"OTEL_EXPORTER_OTLP_ENDPOINT": URL}


def read(**environ: str) -> config.Settings:
    return config.load(environ)


@pytest.mark.parametrize(
    ("environ", "on"),
    [
        ({}, False),
        (ON, True),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": URL}, True),
        ({"DWCTL_OTEL__ENDPOINT": URL}, True),
        ({"DWCTL_ENABLE_OTEL_EXPORT": "true"}, True),
        (ON | {"DWCTL_ENABLE_OTEL_EXPORT": "false"}, False),
        (ON | {"OTEL_SDK_DISABLED": "true"}, False),
        (ON | {"DWCTL_ENABLE_OTEL_EXPORT": "true", "OTEL_SDK_DISABLED": "TRUE"}, False),
        (ON | {"OTEL_SDK_DISABLED": "no"}, True),
        (ON | {"OTEL_TRACES_EXPORTER": "none"}, False),
        ({"OTEL_SERVICE_NAME": "dwctl"}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": " "}, False),
    ],
)
def test_traces_are_exported_where_that_is_said(environ: dict[str, str], on: bool) -> None:
    assert read(**environ).exports_traces == on


@pytest.mark.parametrize(
    ("variable", "value", "name"),
    [
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc", "otel.protocol"),
        ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "http/json", "otel.protocol"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "collector:4317", "otel.endpoint"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "no pair", "otel.headers"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "a=b%0d%0aevil: yes", "otel.headers"),
        ("OTEL_RESOURCE_ATTRIBUTES", "=x", "otel.resource_attributes"),
        ("OTEL_TRACES_SAMPLER", "sometimes", "otel.sampler"),
        ("OTEL_TRACES_SAMPLER_ARG", "1.5", "otel.sampler_arg"),
        ("OTEL_TRACES_SAMPLER_ARG", "nan", "otel.sampler_arg"),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "soon", "otel.timeout"),
        ("OTEL_BSP_MAX_QUEUE_SIZE", "0", "otel.queue_size"),
    ],
)
def test_a_bad_variable_stops_the_start_only_where_traces_are_exported(
    variable: str, value: str, name: str
) -> None:
    with pytest.raises(ConfigError) as refusal:
        read(**(ON | {"DWCTL_ENABLE_OTEL_EXPORT": "true", variable: value}))
    assert name in str(refusal.value)
    assert "evil" not in str(refusal.value)
    assert not read(DWCTL_ENABLE_OTEL_EXPORT="false", **{variable: value}).exports_traces


def test_variables_of_traces_go_before_those_of_all_signals_and_before_the_file() -> None:
    found = read(
        **ON,
        OTEL_EXPORTER_OTLP_HEADERS="a=b",
        OTEL_EXPORTER_OTLP_TRACES_HEADERS="authorization=Basic%20eA%3D%3D, x=1%2C2",
        OTEL_EXPORTER_OTLP_TIMEOUT="2500",
        OTEL_TRACES_SAMPLER="parentbased_traceidratio",
        OTEL_TRACES_SAMPLER_ARG="0.25",
        DWCTL_OTEL__SERVICE_NAME="written",
        OTEL_SERVICE_NAME="given",
    )
    assert found.otel == Otel(
        endpoint=URL,
        headers="authorization=Basic%20eA%3D%3D, x=1%2C2",
        timeout=2.5,
        sampler="parentbased_traceidratio",
        sampler_arg=0.25,
        service_name="given",
    )
    assert pairs(found.otel.headers or "") == {
        "authorization": "Basic eA==",
        "x": "1,2",
    }


def test_headers_are_a_secret() -> None:
    assert shown.is_secret("otel.headers", config.kinds()["otel.headers"])


@pytest.mark.parametrize(
    ("base", "traces", "url"),
    [
        (None, None, "http://localhost:4318/v1/traces"),
        ("http://c:4318", None, "http://c:4318/v1/traces"),
        ("http://c:4318/", None, "http://c:4318/v1/traces"),
        ("http://c/otlp", None, "http://c/otlp/v1/traces"),
        ("http://c/v1/traces", None, "http://c/v1/traces"),
        ("http://c", "http://d/exactly/here", "http://d/exactly/here"),
    ],
)
def test_spans_are_posted_where_the_rules_say(
    base: str | None, traces: str | None, url: str
) -> None:
    assert endpoint_of(base, traces) == url
