"""Spans on their way: sent at the end, dropped and counted where they cannot be, and thinned out as the sampler says."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from dwctl import config
from dwctl.tracing.setup import tracer_for
from dwctl.tracing.tracer import Tracer
from tests.collector import Collector

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


@pytest.fixture
def collector() -> Iterator[Collector]:
    with Collector() as running:
        yield running


def tracer(collector: Collector, **environ: str) -> Tracer:
    given = {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url, "OTEL_EXPORTER_OTLP_TIMEOUT": "300"}
    made = tracer_for(config.load(given | environ), "web")
    assert made is not None
    return made


def make(tracer: Tracer, count: int, parent: str | None = None) -> None:
    for number in range(count):
        tracer.server(f"GET /{number}", parent, {}).end()
    tracer.put_away()


def soon() -> float:
    return time.monotonic() + 5


def test_what_waits_is_sent_before_the_process_ends(collector: Collector) -> None:
    sending = tracer(collector)
    sending.start()
    make(sending, 200)
    sending.stop(soon())
    assert len(collector.spans) == sending.exporting.sent == 200
    assert len({span.trace for span in collector.spans}) == 200
    assert sending.exporting.depth == 0


def test_what_finds_the_queue_full_is_dropped_and_counted(collector: Collector) -> None:
    sending = tracer(collector, OTEL_BSP_MAX_QUEUE_SIZE="10")
    make(sending, 25)
    sending.start()
    sending.stop(soon())
    assert (len(collector.spans), dict(sending.exporting.dropped)) == (10, {"queue_full": 15})


def test_what_the_collector_refuses_is_dropped_and_counted(collector: Collector) -> None:
    collector.status = 400
    sending = tracer(collector)
    sending.start()
    make(sending, 3)
    sending.stop(soon())
    assert (sending.exporting.sent, dict(sending.exporting.dropped)) == (0, {"not_taken": 3})


def test_a_collector_that_is_away_is_told_of_now_and_then(
    collector: Collector, caplog: pytest.LogCaptureFixture
) -> None:
    collector.status = 400
    sending = tracer(collector)
    sending.start()
    make(sending, 640)
    sending.stop(soon())
    assert collector.asked == 10
    assert 0 < len(caplog.records) <= 4
    assert "400" in caplog.text


def test_without_a_collector_spans_are_dropped_and_counted(collector: Collector) -> None:
    sending = tracer(collector, OTEL_EXPORTER_OTLP_ENDPOINT="http://127.0.0.1:1")
    sending.start()
    make(sending, 3)
    sending.stop(soon())
    assert sum(sending.exporting.dropped.values()) == 3


@pytest.mark.parametrize(
    ("sampler", "argument", "flags", "kept"),
    [
        ("always_off", "1", "01", 0),
        ("always_on", "0", "00", 5),
        ("parentbased_always_on", "1", "00", 0),
        ("parentbased_always_off", "1", "01", 5),
        ("parentbased_traceidratio", "0", "01", 5),
        ("traceidratio", "0", "01", 0),
        ("parentbased_traceidratio", "0", None, 0),
        ("parentbased_traceidratio", "1", None, 5),
    ],
)
def test_the_sampler_is_the_one_that_is_named(
    collector: Collector, sampler: str, argument: str, flags: str | None, kept: int
) -> None:
    sending = tracer(collector, OTEL_TRACES_SAMPLER=sampler, OTEL_TRACES_SAMPLER_ARG=argument)
    sending.start()
    make(sending, 5, None if flags is None else f"00-{TRACE}-{PARENT}-{flags}")
    sending.stop(soon())
    assert len(collector.spans) == kept
    assert not sending.exporting.dropped


def test_what_a_service_is_called(collector: Collector) -> None:
    sending = tracer(
        collector,
        OTEL_RESOURCE_ATTRIBUTES="service.name=other,team=a%20b",
        OTEL_SERVICE_NAME="mine",
    )
    sending.start()
    make(sending, 1)
    sending.stop(soon())
    resource = collector.spans[0].resource
    assert (resource["service.name"], resource["team"], resource["dwctl.role"]) == (
        "mine",
        "a b",
        "web",
    )
