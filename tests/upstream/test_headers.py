import pytest

from dwctl import config
from dwctl.upstream.headers import to_caller, to_upstream

STAYS = """
    connection keep-alive proxy-authenticate proxy-authorization te trailer upgrade transfer-encoding authorization
    x-api-key api-key sec-fetch-site sec-fetch-mode origin referer cookie if-modified-since if-none-match if-match
    if-unmodified-since if-range model-override sec-ch-ua sec-ch-ua-platform host content-length accept-encoding
    x-fusillade-request-id x-onwards-model x-doubleword-user x-dwctl-anything x-forwarded-for x-forwarded-proto
    forwarded expect idempotency-key traceparent tracestate content-encoding proxy-connection content-type
    openai-organization openai-project x-original-url x-rewrite-url x-http-method-override range via x-real-ip
    x-client-ip x-custom x-stainless-lang x-request-id
"""


@pytest.mark.parametrize("name", STAYS.split())
def test_what_is_not_on_the_list_stays_here(name: str) -> None:
    assert to_upstream([(name, "x"), (name.title(), "x"), (name.upper(), "x")]) == []


@pytest.mark.parametrize("name", ["User-Agent", "Accept", "OpenAI-Beta", "X-Session"])
def test_what_is_on_it_passes_in_its_order_and_once(name: str) -> None:
    kept = to_upstream([(name, "1"), ("Cookie", "c"), ("x-b", "2"), (name.upper(), "3")], also={"x-b", "x-session"})  # fmt: skip
    assert kept == [(name.lower(), "1, 3"), ("x-b", "2")]


@pytest.mark.parametrize("value", ["a\r\nb: c", "a\nb", "a\x00", "a\x7f", "x" * 4097])
def test_a_value_that_no_server_expects_stays_here(value: str) -> None:
    assert to_upstream([("user-agent", value), ("accept", "a\tb")]) == [("accept", "a\tb")]


def test_a_header_that_the_connection_header_names_is_removed() -> None:
    sent = [("X-Hop", "1"), ("Connection", "close, x-hop"), ("X-End", "2")]
    assert to_upstream(sent, also={"x-hop", "x-end"}) == [("x-end", "2")]


def test_a_callers_header_cannot_stand_beside_our_credential() -> None:
    assert to_upstream([("x-Key", "theirs")], also={"x-key"}, credential="X-Key") == []


def test_trace_context_is_ours_or_none() -> None:
    ours = [("traceparent", "00-ours-01")]
    assert to_upstream([("Traceparent", "00-theirs-01")], trace=ours) == ours


@pytest.mark.parametrize("name", [*STAYS.split(), "X_Api_Key", "X-Amz-Security-Token", "x-goog-api-key", "Cookie2", "x-auth", "a b", "a:b", "\u017fession"])  # fmt: skip
def test_a_setting_cannot_name_what_speaks_for_us(name: str) -> None:
    if name in ("x-custom", "x-stainless-lang"):
        made = config.load({"DWCTL_UPSTREAM__PASSED_HEADERS": name.title()})
        assert made.upstream.passed_headers == (name,)
        return
    with pytest.raises(config.ConfigError, match=r"upstream\.passed_headers"):
        config.load({"DWCTL_UPSTREAM__PASSED_HEADERS": f"x-fine,{name}"})


def test_only_headers_on_the_list_come_back() -> None:
    upstream = [
        ("content-type", "text/html"),
        ("cache-control", "no-cache"),
        ("openai-processing-ms", "12"),
        ("openai-version", "a"),
        ("openai-version", "b"),
        ("openai-organization", "org-ours"),
        ("openai-anything", "x"),
        ("x-request-id", "req-1"),
        ("set-cookie", "a=b"),
        ("server", "nginx"),
        ("alt-svc", "h3"),
        ("x-ratelimit-remaining-requests", "7"),
        ("transfer-encoding", "chunked"),
        ("content-encoding", "gzip"),
        ("content-length", "7"),
        ("retry-after", "7"),
    ]
    assert to_caller(200, upstream) == [
        ("cache-control", "no-cache"),
        ("openai-processing-ms", "12"),
        ("openai-version", "a"),
        ("x-upstream-request-id", "req-1"),
    ]


@pytest.mark.parametrize(
    ("status", "passes"), [(429, True), (503, True), (200, False), (500, False)]
)
def test_retry_after_comes_back_where_it_means_something(status: int, passes: bool) -> None:
    assert bool(to_caller(status, [("retry-after", "7")])) is passes


def test_control_characters_do_not_come_back() -> None:
    """Gunicorn refuses an answer with them, which was charged by then."""
    upstream = [("openai-version", "a\x01b\x7f"), ("x-request-id", "\x1b[31mreq\t1\xe4")]
    assert to_caller(200, upstream) == [
        ("openai-version", "ab"),
        ("x-upstream-request-id", "[31mreq\t1\xe4"),
    ]
