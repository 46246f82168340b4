"""Calls in figures: what a page of a real process shows after calls that succeed, stream, are refused, or fail."""

import pytest
import requests
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from dwctl.ai import genai
from tests.gateway import Gateway
from tests.processes import eventually

DURATION = "gen_ai_server_request_duration_seconds"
FIRST = "gen_ai_server_time_to_first_token_seconds"
EACH = "gen_ai_server_time_per_output_token_seconds"
TOKENS = "gen_ai_client_token_usage"


def samples(url: str) -> list[Sample]:
    page = requests.get(url + "/internal/metrics", timeout=10).text
    return [s for family in text_string_to_metric_families(page) for s in family.samples]


def value(url: str, name: str, **labels: str) -> float:
    """The sum of the samples that have these labels."""
    return sum(
        sample.value
        for sample in samples(url)
        if sample.name == name and labels.items() <= sample.labels.items()
    )


@pytest.fixture(scope="module")
def called(stage: Gateway) -> str:
    """A page after a walk; the alias of the model."""
    alias = stage.model("usual", alias="counted")
    assert stage.chat(alias).ok
    assert stage.chat(alias, stream=True).text.endswith("data: [DONE]\n\n")
    assert stage.post("/embeddings", {"model": alias, "input": "a"}).ok
    assert stage.respond(alias).ok
    for name in ("no-such-model", "nor-this-one" + "x" * 300):
        assert stage.chat(name).status_code == 404
    eventually(lambda: value(stage.url, DURATION + "_count", error_type="404") == 2)
    return alias


@pytest.mark.parametrize(("operation", "calls"), [("chat", 2), ("embeddings", 1), ("responses", 1)])
def test_calls_are_counted_by_operation(
    stage: Gateway, called: str, operation: str, calls: int
) -> None:
    labels = {"gen_ai_operation_name": operation, "gen_ai_request_model": called}
    assert value(stage.url, DURATION + "_count", error_type="", **labels) == calls


def test_names_that_callers_make_up_are_one_label(stage: Gateway, called: str) -> None:
    models = {
        sample.labels["gen_ai_request_model"]
        for sample in samples(stage.url)
        if sample.name == DURATION + "_count"
    }
    assert models == {called, "(unknown)"}


def test_labels_say_who_served_and_where_callers_find_this_server(
    stage: Gateway, called: str
) -> None:
    [sample] = [
        sample
        for sample in samples(stage.url)
        if sample.name == EACH + "_count" and sample.labels["gen_ai_operation_name"] == "responses"
    ]
    provider = stage.all("SELECT name FROM inference_endpoints")[0].name
    assert sample.labels == {
        "gen_ai_operation_name": "responses",
        "gen_ai_provider_name": provider,
        "gen_ai_request_model": called,
        "gen_ai_response_model": "usual",
        "request_origin": "api",
        "batch_sla": "",
        "server_address": "localhost",
        "server_port": "3001",
    }


def test_only_streams_have_a_first_token(stage: Gateway, called: str) -> None:
    assert value(stage.url, FIRST + "_count", gen_ai_request_model=called) == 1
    bounds = {
        float(sample.labels["le"])
        for sample in samples(stage.url)
        if sample.name == FIRST + "_bucket"
    }
    assert bounds == {*genai.FIRST_TOKEN_S, float("inf")}


def test_tokens_are_those_of_the_log(stage: Gateway, called: str) -> None:
    for kind, column in (("input", "prompt_tokens"), ("output", "completion_tokens")):
        logged = stage.one(f"SELECT sum({column})::int AS n FROM http_analytics").n
        labels = {"gen_ai_token_type": kind, "gen_ai_request_model": called}
        assert value(stage.url, TOKENS + "_sum", **labels) == logged > 0


def test_what_was_deducted_is_what_the_ledger_has_in_cents(stage: Gateway, called: str) -> None:
    cents = float(stage.charged(stage.alice.id) * 100)
    assert value(stage.url, "dwctl_credits_deducted_total", model=called) == pytest.approx(cents)
    assert cents > 0


def test_an_upstream_that_says_nothing_of_usage_is_counted(stage: Gateway, called: str) -> None:
    alias = stage.model("no-usage", alias="silent")
    assert stage.chat(alias).ok
    name = "dwctl_usage_extraction_failures_total"
    labels = {"endpoint": "chat/completions", "reason": "missing_usage"}
    assert value(stage.url, name, **labels) == 1


def test_every_record_has_its_lag(stage: Gateway, called: str) -> None:
    logged = stage.one("SELECT count(*) AS n FROM http_analytics").n
    assert value(stage.url, "dwctl_analytics_lag_seconds_count") == logged
    assert value(stage.url, "dwctl_analytics_batch_duration_seconds_count") > 0


def test_a_new_model_is_read_because_of_its_notification(stage: Gateway) -> None:
    before = value(stage.url, "dwctl_cache_sync_total", source="listen_notify")
    stage.model("usual", alias="another")
    assert value(stage.url, "dwctl_cache_sync_total", source="listen_notify") > before
    assert value(stage.url, "dwctl_cache_sync_lag_seconds_count", table="deployed_models") > 0


def test_models_are_shown_as_they_are_set_up(stage: Gateway) -> None:
    alias = stage.model("usual", requests_per_second=7.5, capacity=3, throughput=2.5)
    group = "00000000-0000-0000-0000-000000000000"
    # What the snapshot does not know is asked for once a minute, and was not there the last time.
    for name, expected in {"rate_limit_rps": 7.5, "concurrency_limit": 3}.items():
        assert value(stage.url, f"dwctl_model_{name}", model=alias) == expected
    assert (
        value(
            stage.url, "dwctl_model_group_info", model=alias, group_id=group, group_name="Everyone"
        )
        == 1
    )
    keys = stage.one(
        "SELECT count(*) AS n FROM api_keys WHERE secret_hash IS NOT NULL AND NOT is_deleted"
    ).n
    assert value(stage.url, "dwctl_model_api_key_count", model=alias) == keys > 0


def test_what_the_sums_of_usage_still_lack_is_shown(stage: Gateway, called: str) -> None:
    # Nobody adds them up here: that is a worker's duty.
    eventually(lambda: value(stage.url, "dwctl_usage_deltas") >= 4)
    assert value(stage.url, "dwctl_usage_deltas_oldest_seconds") > 0
