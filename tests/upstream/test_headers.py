import pytest

from dwctl.upstream.headers import to_caller, to_upstream

REMOVED = """
    connection keep-alive proxy-authenticate proxy-authorization te trailer upgrade transfer-encoding authorization
    x-api-key api-key sec-fetch-site sec-fetch-mode origin referer cookie if-modified-since if-none-match if-match
    if-unmodified-since if-range model-override sec-ch-ua sec-ch-ua-platform host content-length accept-encoding
    x-fusillade-request-id x-onwards-model x-doubleword-user x-dwctl-anything x-forwarded-for x-forwarded-proto
    forwarded expect idempotency-key traceparent tracestate content-encoding proxy-connection
"""


@pytest.mark.parametrize("name", REMOVED.split())
def test_what_is_not_the_upstreams_business_is_removed(name: str) -> None:
    assert to_upstream([(name, "x"), (name.title(), "x"), (name.upper(), "x")]) == []


@pytest.mark.parametrize(
    "name",
    [
        "Content-Type",
        "User-Agent",
        "Accept",
        "X-Custom",
        "OpenAI-Beta",
        "x-stainless-lang",
        "Te-st",
    ],
)
def test_everything_else_passes_in_its_order(name: str) -> None:
    kept = to_upstream([(name, "1"), ("Cookie", "c"), ("b", "2"), ("b", "3")])
    assert kept == [(name.lower(), "1"), ("b", "2"), ("b", "3")]


def test_a_header_that_the_connection_header_names_is_removed() -> None:
    sent = [("X-Hop", "1"), ("Connection", "close, x-hop"), ("X-End", "2")]
    assert to_upstream(sent) == [("x-end", "2")]


def test_a_callers_header_cannot_stand_beside_our_credential() -> None:
    assert to_upstream([("x-Goog-Api-Key", "theirs")], credential="X-Goog-Api-Key") == []


def test_trace_context_is_ours_or_none() -> None:
    ours = [("traceparent", "00-ours-01")]
    assert to_upstream([("Traceparent", "00-theirs-01")], trace=ours) == ours


def test_only_headers_on_the_list_come_back() -> None:
    upstream = [
        ("content-type", "application/json"),
        ("cache-control", "no-cache"),
        ("openai-processing-ms", "12"),
        ("openai-organization", "org-ours"),
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
        ("content-type", "application/json"),
        ("cache-control", "no-cache"),
        ("openai-processing-ms", "12"),
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
