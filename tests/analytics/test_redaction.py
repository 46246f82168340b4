"""Secrets in what is about a call, by name and by form."""

from __future__ import annotations

import pytest

from dwctl.analytics.redaction import REDACTED, headers, hidden, is_secret, uri

KEY = "sk-4fTzc9Qm0gDYq3mP1Yl8wUu0vUe5rJ2nKx7bHsLaE6o"


@pytest.mark.parametrize(
    "name",
    [
        "authorization", "Authorization", "x-authorisation", "proxy-authorization", "cookie", "set-cookie", "x-api-key", "api-key", "apikey",
        "api_key", "x-goog-api-key", "ocp-apim-subscription-key", "x-functions-key", "x-auth", "x-auth-token", "access_token", "id_token",
        "x-amz-security-token", "x-amz-signature", "X-Amz-Credential", "sig", "key", "client_secret", "password", "passwd", "x-session-id",
        "sessionid", "session", "x-session", "PHPSESSID", "pass", "user_pwd", "keys", "x-keys", "auth_tokens", "mykey", "sign", "otp", "x-hub-signature-256", "www-authenticate", "jwt", "code",
    ],
)  # fmt: skip
def test_names_of_secrets(name: str) -> None:
    assert is_secret(name)


@pytest.mark.parametrize(
    "name",
    [
        "content-type", "accept", "user-agent", "x-request-id", "idempotency-key", "x-ratelimit-remaining-tokens", "max_tokens", "openai-beta",
        "x-error-code", "keyword", "monkey", "x-dwctl-served-by", "design", "authority", "x-stainless-arch", "turkey", "bypass",
        "total_tokens", "prompt-tokens",
    ],
)  # fmt: skip
def test_names_of_nothing_secret(name: str) -> None:
    assert not is_secret(name)


@pytest.mark.parametrize(
    ("text", "shown"),
    {
        "a key": (f"see {KEY}.", f"see {REDACTED}."),
        "two": (f"{KEY},{KEY}", f"{REDACTED},{REDACTED}"),
        "a project's": ("sk-proj-abcDEF_0123456789", REDACTED),
        "bearer": ("curl -H 'Bearer abcdef123'", f"curl -H '{REDACTED}'"),
        "bearer in a URL": ("?x=Bearer%20abcdef123&y=1", f"?x={REDACTED}&y=1"),
        "basic": ("BASIC dXNlcjpwYXNz==", REDACTED),
        "a signed token": ("t=eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.abc-_1 x", f"t={REDACTED} x"),
        "before an address": ("https://me:pw@host/p", f"https://{REDACTED}@host/p"),
        "nothing": ("risk-management and basic ideas, /a@b", "risk-management and basic ideas, /a@b"),
        "behind an underscore": (f"my_{KEY}", f"my_{REDACTED}"),
        "behind a byte that is spelt out": (f"/x%3D{KEY}", f"/x%3D{REDACTED}"),
        "a signed token with a certificate in it": (f"eyJ{'a' * 1900}.b.c", REDACTED),
        "in a URL's query": ("http://h/?a=1&api_key=abc#x <h?token=t>; rel=x", f"http://h/?a=1&api_key={REDACTED}#x <h?token={REDACTED}>; rel=x"),
        "no query": ("multipart/form-data; boundary=key=1; a;charset=x", "multipart/form-data; boundary=key=1; a;charset=x"),
        "short": ("sk-1 is a name", "sk-1 is a name"),
    }.values(),
)  # fmt: skip
def test_forms_of_secrets(text: str, shown: str) -> None:
    assert hidden(text) == shown


@pytest.mark.parametrize(
    ("query", "shown"),
    [
        ("", "/p"),
        ("a=1&b=2", "/p?a=1&b=2"),
        ("API-Key=x&b=2", f"/p?API-Key={REDACTED}&b=2"),
        ("access%5Ftoken=x;b", f"/p?access%5Ftoken={REDACTED};b"),
        ("pass%2577ord=x", f"/p?pass%2577ord={REDACTED}"),
        ("x+api-key=1&key", f"/p?x+api-key={REDACTED}&key"),
        ("token=a=b==", f"/p?token={REDACTED}"),
        (f"q={KEY}", f"/p?q={REDACTED}"),
        ("&&=;", "/p?&&=;"),
        (f"q={KEY.replace('-', '%2D')}&b=%20", f"/p?q={REDACTED}&b=%20"),
        (f"q={KEY.replace('-', '%252d')}", f"/p?q={REDACTED}"),
        (f"{KEY.replace('s', '%73')}=1&q=x%3D{KEY}", f"/p?{REDACTED}=1&q={REDACTED}"),
        ("next=%2Fx%3Fa%3D1%26api_key%3Dabc", f"/p?next={REDACTED}"),
        ("q=Bearer%09abcdef123&u=http%3A%2F%2Fme%3Apw%40h", f"/p?q={REDACTED}&u={REDACTED}"),
    ],
)
def test_queries(query: str, shown: str) -> None:
    assert uri("p", query) == shown


def test_a_secret_in_a_path() -> None:
    assert uri(f"bot/{KEY}/send", "") == f"/bot/{REDACTED}/send"
    assert uri(f"bot/{KEY.replace('-', '%2D')}/100%", "") == f"/bot/{REDACTED}/100%"


def test_headers_that_are_there_twice_and_long_ones() -> None:
    pairs = [
        ("x-tag", "a"),
        ("cookie", "a=1"),
        ("x-tag", "b"),
        ("cookie", "b=2"),
        ("x-tag", "c"),
        ("x-mine", "m"),
        ("x-long", "ä" * 5000),
    ]
    shown = headers(pairs, also={"x-mine"})
    assert shown == {
        "x-tag": ["a", "b", "c"],
        "cookie": [REDACTED, REDACTED],
        "x-mine": REDACTED,
        "x-long": "ä" * 2048,
    }
    assert headers(pairs, also=(), only={"x-tag", "cookie", "none"}).keys() == {"x-tag", "cookie"}


def test_a_secret_that_is_a_headers_name_or_lies_where_it_is_cut() -> None:
    shown = headers([(KEY.lower(), "1"), ("x-long", "x" * 2042 + " " + KEY)], also=())
    assert shown == {REDACTED: "1", "x-long": "x" * 2042 + " [reda"}


def test_as_many_headers_as_anybody_looks_at() -> None:
    assert len(headers(((f"x-{n}", "v") for n in range(5000)), also=())) == 100
