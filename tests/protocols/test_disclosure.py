import orjson
import pytest

from dwctl.protocols.disclosure import Disclosure, disclose

OPEN = Disclosure()
OPEN_TRUSTED = Disclosure(trusted=True)
STRICT = Disclosure(strict=True)
STRICT_TRUSTED = Disclosure(strict=True, trusted=True)
SANE = Disclosure(sanitise=True)
ALL = [Disclosure(s, t, z) for s in (False, True) for t in (False, True) for z in (False, True)]
UNTRUSTED = [d for d in ALL if not d.trusted]

KEY = {"error": {"message": "Incorrect API key provided: sk-OURS", "type": "invalid_request_error", "param": None, "code": "invalid_api_key"}}  # fmt: skip


def body(error):
    return orjson.dumps(error)


STATUSES = {
    # disclosure, status, body -> status, code of the object, as it came
    "open: its words": (OPEN, 404, {"error": {"message": "m", "code": "c"}}, 404, "c", False),
    "open: any JSON object": (OPEN, 422, {"detail": [{"loc": ["body"]}]}, 422, "http_422", False),
    "open: a text": (OPEN, 500, "Boom", 500, "http_500", False),
    "open: rate limit": (OPEN, 429, {"error": {"message": "m", "code": "rate_limit_exceeded"}}, 429, "rate_limit_exceeded", False),
    "strict": (STRICT, 404, {"error": {"message": "m", "code": "c"}}, 404, "http_404", False),
    "strict, odd status": (STRICT, 418, {"error": {"message": "m"}}, 418, "http_418", False),
    "strict, trusted": (STRICT_TRUSTED, 404, {"error": {"message": "m", "code": "c"}}, 404, "c", False),
    "open: whole": (OPEN, 404, {"error": {"message": "m", "type": "t", "param": None, "code": "c"}}, 404, "c", True),
    "trusted shows its 401": (OPEN_TRUSTED, 401, KEY, 401, "invalid_api_key", True),
    "sanitised 4xx": (SANE, 404, {"error": {"message": "m"}}, 404, "upstream_error", False),
    "sanitised 5xx": (SANE, 500, {"error": {"message": "m"}}, 500, "internal_error", False),
    "sanitised 401": (SANE, 401, KEY, 502, "internal_error", False),
    "open 401": (OPEN, 401, KEY, 502, "http_502", False),
    "open 403": (OPEN, 403, {"error": {"message": "Forbidden"}}, 502, "http_502", False),
    "open 400 with a refused key": (OPEN, 400, {"error": {"code": 400, "message": "API key not valid. Please pass a valid API key.", "status": "INVALID_ARGUMENT"}}, 502, "http_502", False),
    "open 400 with a refused key, as a text": (OPEN, 400, {"code": "Client specified an invalid argument", "error": "Incorrect API key provided: xa***OURS."}, 502, "http_502", False),
    "open 429 without our credit": (OPEN, 429, {"error": {"message": "You exceeded your current quota", "type": "insufficient_quota", "code": "insufficient_quota"}}, 502, "http_502", False),
    **{f"{status} is our trouble": (disclosure, status, {"error": {"message": "m"}}, 502, "http_502", False) for status in (302, 307, 402, 407) for disclosure in (OPEN, STRICT, OPEN_TRUSTED)},
    "sanitised 402": (SANE, 402, {}, 502, "internal_error", False),
}  # fmt: skip


@pytest.mark.parametrize(
    ("disclosure", "status", "error", "seen", "code", "as_it_came"), STATUSES.values(), ids=STATUSES
)
def test_an_error_status(disclosure, status, error, seen, code, as_it_came):
    raw = error.encode() if isinstance(error, str) else body(error)
    shown = disclose(disclosure, status, raw)
    assert (shown.status, shown.error.get("code"), shown.as_it_came) == (seen, code, as_it_came)


REFUSALS_OF_OUR_KEY = [
    KEY["error"],
    {"message": "sk-OURS", "code": 401},
    {"message": "sk-OURS", "code": "401"},
    {"message": "sk-OURS", "status": 403},
    {"message": "sk-OURS", "type": "authentication_error"},
    {"message": "sk-OURS", "type": "AuthenticationError"},
    {"message": "sk-OURS", "type": "permission_error"},
    {"message": "sk-OURS", "status": "UNAUTHENTICATED"},
    {"message": "sk-OURS", "status": "PERMISSION_DENIED"},
    {"message": "sk-OURS", "type": "invalid_request_error", "code": "invalid_api_key"},
    {"error": {"message": "sk-OURS", "type": "authentication_error"}, "type": "error"},
    {"message": "Incorrect API key provided: sk-OURS"},
    {"message": "Unauthorized: sk-OURS"},
    {"error": "Invalid api key sk-OURS"},
    "invalid access token sk-OURS",
]


@pytest.mark.parametrize("error", REFUSALS_OF_OUR_KEY, ids=str)
@pytest.mark.parametrize("disclosure", UNTRUSTED, ids=str)
def test_a_refusal_of_our_credential_is_a_neutral_502_wherever_it_stands(disclosure, error):
    """Inside a stream or an object there is no status: the error says it itself, one way or another."""
    shown = disclose(disclosure, None, error)
    assert (shown.status, shown.as_it_came) == (502, False)
    assert b"OURS" not in shown.body
    assert "OURS" not in str(shown.response_error)


@pytest.mark.parametrize("disclosure", [d for d in ALL if d.hides_words], ids=str)
@pytest.mark.parametrize("status", [None, 400, 404, 429, 500, 503])
def test_who_hides_words_shows_none(disclosure, status):
    shown = disclose(disclosure, status, {"message": "secret", "type": "secret", "code": "secret"})
    assert b"secret" not in shown.body


TOO_LONG = {
    "OpenAI": (400, {"error": {"message": "This model's maximum context length is 8192 tokens.", "type": "invalid_request_error", "param": "messages", "code": "context_length_exceeded"}}),
    "vLLM": (400, {"object": "error", "message": "This model's maximum context length is 4096 tokens. However, you requested 5000 tokens", "type": "BadRequestError", "param": None, "code": 400}),
    "vLLM, newer": (400, {"error": {"message": "The decoder prompt (length 5000) is longer than the maximum model length of 4096. Make sure that `max_model_len` is no smaller; maximum context length", "type": "BadRequestError", "code": 400}}),
    "llama.cpp": (400, {"error": {"code": 400, "message": "the request exceeds the available context size, try increasing it", "type": "exceed_context_size_error", "n_prompt_tokens": 9, "n_ctx": 4}}),
    "TGI": (422, {"error": "Input validation error: `inputs` tokens + `max_new_tokens` must be <= 4096. Given: 5000", "error_type": "validation"}),
    "Ollama": (400, {"error": "the input length exceeds the context length"}),
    "SGLang": (400, {"object": "error", "message": "The input (5000 tokens) is longer than the model's context length (4096 tokens).", "code": 400}),
    "Anthropic": (400, {"type": "error", "error": {"type": "invalid_request_error", "message": "prompt is too long: 210000 tokens > 200000 maximum"}}),
    "LM Studio": (400, {"error": "Trying to keep the first 5000 tokens when context the overflows. However, the model is loaded with context length of only 4096 tokens"}),
}  # fmt: skip


@pytest.mark.parametrize(("status", "error"), TOO_LONG.values(), ids=TOO_LONG)
@pytest.mark.parametrize("disclosure", ALL, ids=str)
def test_a_context_that_is_too_long_keeps_its_code_everywhere(disclosure, status, error):
    for shown in (disclose(disclosure, status, body(error)), disclose(disclosure, None, error)):
        assert (shown.status, shown.error["code"]) == (400, "context_length_exceeded")
        assert shown.response_error["code"] == "context_length_exceeded"
        assert disclosure.hides_words == ("Please shorten it" in shown.error["message"])


def test_a_long_context_at_another_status_is_what_its_status_says():
    shown = disclose(OPEN, 503, {"error": {"message": "no worker for this context length"}})
    assert shown.status == 503


def test_what_is_kept_of_headers():
    given = [("retry-after", "5"), ("openai-version", "s")]
    assert disclose(OPEN, 429, {"message": "m"}).headers(given) == given
    kept = [("retry-after", "5")]
    assert disclose(STRICT, 429, {"message": "m"}).headers(given) == kept
    assert disclose(OPEN, 429, "slow").headers(given) == kept


@pytest.mark.parametrize("error", [None, 5, [], "", {}, {"error": None}, {"error": []}, {"code": {}}, {"message": 5}, b"\xff", b"[" * 300, b"{\"a\":" * 300 + b"1" + b"}" * 300])  # fmt: skip
@pytest.mark.parametrize("disclosure", ALL, ids=str)
@pytest.mark.parametrize("status", [None, 200, 404, 999])
def test_anything_can_be_an_error(disclosure, status, error):
    shown = disclose(disclosure, status, error)
    assert 400 <= shown.status <= 599
    assert shown.body
    assert all(shown.response_error.values())


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"detail": [{"loc": ["body"]}]}, '{"detail":[{"loc":["body"]}]}'),
        ({"detail": "m"}, "m"),
        ({"error": "m"}, "m"),
        ({"object": "error", "message": "m", "code": 404}, "m"),
        ({"error": {"message": "m", "code": 404, "metadata": {"provider": "p"}}}, "m"),
        ({"error": {"message": 5}}, '{"message":5}'),
        ({"error": None}, '{"error":null}'),
    ],
)
def test_what_is_quoted_has_the_four_members_that_clients_read(given, message):
    shown = disclose(OPEN, 404, orjson.dumps(given))
    assert shown.error["message"] == message
    assert isinstance(shown.error["type"], str)
    assert shown.error["code"] == "http_404"
    assert shown.error["param"] is None
    assert shown.error.get("metadata") == (
        (given.get("error") or {}).get("metadata") if isinstance(given.get("error"), dict) else None
    )
