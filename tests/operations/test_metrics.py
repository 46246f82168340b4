"""The metrics page of real processes: one gunicorn with several of them tells one story."""

import os
import signal
import socket

import psycopg
import pytest
import requests
from prometheus_client.parser import text_string_to_metric_families

from dwctl.operations import siblings
from tests.processes import Process, Service, eventually

PATH = "/internal/metrics"


def numbers(process: Process | Service) -> dict[tuple[str, ...], float]:
    """Sample name and label values, by the names of the labels, to value."""
    page = requests.get(process.url + PATH, timeout=10)
    assert page.status_code == 200
    assert page.headers["content-type"].startswith("text/plain")
    return {
        (sample.name, *(value for _, value in sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(page.text)
        for sample in family.samples
    }


def served(process: Process | Service, path: str) -> float:
    return numbers(process).get(("dwctl_http_requests_total", path, "GET", "200"), 0)


def test_requests_are_counted_by_method_route_and_status(service: Service):
    before = numbers(service)
    for path in ("/healthz", "/healthz", "/nothing", "/nothing/else"):
        requests.get(service.url + path, timeout=5)
    requests.post(service.url + "/ai/v1/chat/completions", json={}, timeout=5)
    after = numbers(service)
    total = "dwctl_http_requests_total"
    for key, count in {
        (total, "/healthz", "GET", "200"): 2,
        (total, "unmatched", "GET", "404"): 2,
        (total, "/ai/v1/chat/completions", "POST", "401"): 1,
    }.items():
        assert after[key] - before.get(key, 0) == count


def test_no_path_and_no_method_of_a_callers_own_becomes_a_label(service: Service):
    for path in ("/nothing/sk-secret", "/ai/v1/files/sk-secret", "/ai/v1/chat/completions/sk-secret"):  # fmt: skip
        requests.post(service.url + path, timeout=5)
        requests.request("SK-SECRET", service.url + path, timeout=5)
    found = numbers(service)
    assert [key for key in found if "secret" in str(key).lower()] == []


def test_strangers_are_counted_by_reason(service: Service):
    before = numbers(service)
    for authorization in ("", "Bearer sk-" + "k" * 5000, "Bearer other"):
        requests.post(
            service.url + "/ai/v1/chat/completions",
            data=b'{"model": "' + b"m" * 8000,
            headers={"Authorization": authorization},
            timeout=5,
        )
    after = numbers(service)
    total = "dwctl_strangers_refused_total"
    for reason, count in (("unauthenticated", 1), ("invalid_api_key", 2)):
        assert after[total, reason] - before.get((total, reason), 0) == count
    assert {key[1] for key in after if key[0] == total} == {"unauthenticated", "invalid_api_key"}


def test_the_page_stays_readable_whatever_a_model_is_called(
    service: Service, sql: psycopg.Connection
):
    alias = 'odd "\\ \n\r\x1b[31m\u2028\x85' + "x" * 200
    sql.execute(
        "INSERT INTO deployed_models (model_name, alias, created_by, is_composite) SELECT %s, %s, id, true FROM users LIMIT 1",
        (alias, alias),
    )

    def is_shown() -> bool:
        page = requests.get(service.url + PATH, timeout=10)
        assert all(line.isprintable() for line in page.text.split("\n"))
        return any(
            key[0] == "dwctl_model_info" and "x" * 200 in str(key) for key in numbers(service)
        )

    eventually(is_shown)


def test_durations_fall_into_buckets_that_add_up(service: Service):
    requests.get(service.url + "/healthz", timeout=5)
    found = numbers(service)
    name, key = "dwctl_http_requests_duration_seconds", ("/healthz", "GET", "200")
    buckets = [
        value
        for (sample, *labels), value in found.items()
        if sample == name + "_bucket" and labels[0] == "/healthz"
    ]
    assert max(buckets) == found[(name + "_count", *key)] > 0
    assert found[(name + "_sum", *key)] > 0


@pytest.mark.parametrize(
    "name",
    [
        ("onwards_requests_inflight",),
        ("dwctl_analytics_batched_records_total",),
        ("dwctl_recorder_depth",),
        ("dwctl_recorder_spooled_total",),
        ("dwctl_db_pool_connections_max", "main"),
        ("dwctl_db_pool_connections_in_use", "main"),
    ],
    ids=lambda name: name[0],
)
def test_what_an_operator_watches_is_there(service: Service, name: tuple[str, ...]):
    assert name in numbers(service)


def test_the_page_asking_is_the_only_request_pending(service: Service):
    pending = {
        key: n for key, n in numbers(service).items() if key[0] == "dwctl_http_requests_pending"
    }
    assert {key: n for key, n in pending.items() if n} == {
        ("dwctl_http_requests_pending", PATH, "GET"): 1
    }


def test_the_page_can_be_switched_off(service: Service):
    process = service.start_web(DWCTL_ENABLE_METRICS="false")
    assert requests.get(process.url + PATH, timeout=5).status_code == 404


def test_whichever_process_is_asked_the_page_counts_for_all_of_them(service: Service):
    process = service.start_web(WEB_CONCURRENCY="2")
    eventually(lambda: len(process.worker_pids()) == 2)
    for _ in range(40):
        # Each on a connection of its own, so any process may take it.
        requests.get(process.url + "/healthz", timeout=5)
    eventually(lambda: all(served(process, "/healthz") == 40 for _ in range(5)))
    # What a process that ended has counted stays in the sum, also if it could not say goodbye.
    for number in (signal.SIGTERM, signal.SIGKILL):
        ended = process.worker_pids()[0]
        os.kill(ended, number)
        eventually(lambda ended=ended: len({*process.worker_pids()} - {ended}) == 2)
        process.wait_ready("/health")
        eventually(lambda: served(process, "/healthz") == 40)


def test_what_a_dead_gunicorn_left_behind_is_removed(tmp_path):
    uid = os.getuid()
    dead = tmp_path / f"dwctl-metrics-{uid}-999999999-123"
    alive = tmp_path / f"dwctl-metrics-{uid}-{os.getpid()}-{siblings._started(os.getpid())}"
    dead.mkdir()
    alive.mkdir()
    siblings.Siblings(list, alive).start()
    assert (dead.exists(), alive.exists()) == (False, True)


def test_connections_that_are_refused_are_counted_by_reason(service: Service):
    key = ("dwctl_connections_refused_total", "malformed_request")
    before = numbers(service).get(key, 0)
    host, port = service.url.removeprefix("http://").split(":")
    for _ in range(3):
        with socket.create_connection((host, int(port)), timeout=5) as caller:
            caller.sendall(b"nonsense\r\n\r\n")
            assert caller.recv(4096).startswith(b"HTTP/1.1 400 ")
    eventually(lambda: numbers(service).get(key, 0) == before + 3)
