import orjson
import pytest

from dwctl.protocols.answers import check_whole, finish_body, parse_answer
from dwctl.protocols.errors import BadUpstreamBody
from dwctl.protocols.forms import CHAT, COMPLETIONS, EMBEDDINGS
from dwctl.protocols.usage import Counts, counts_of

HEAD = '"id":"c1","object":"chat.completion","created":17,"model":"up"'
CHOICES = (
    '"choices":[{"index":0,"message":{"role":"assistant","content":"Hi"},"finish_reason":"stop"}]'
)
USAGE = '"usage":{"prompt_tokens":9,"completion_tokens":3,"total_tokens":12}'
STRICT_HEAD = '"id":"resp_1","object":"chat.completion","created":17,"model":"alias"'


def finish(raw, form=CHAT, response_id="resp_1", strict=False, sanitise=False, whole=False):
    raw = raw.encode() if isinstance(raw, str) else raw
    raw, content = parse_answer(raw, form, response_id)
    if whole:
        check_whole(raw, content, form)
    return finish_body(
        raw,
        content,
        form=form,
        response_id=response_id,
        alias="alias",
        strict=strict,
        sanitise=sanitise,
    )


STRICT = {
    "id and alias": (CHAT, f"{{{HEAD},{CHOICES},{USAGE}}}", f"{{{STRICT_HEAD},{CHOICES},{USAGE}}}"),
    "spelling and nulls stay": (
        CHAT,
        f'{{ {HEAD}, "choices" : [{{"index":0,"message":{{"role":"assistant","content":null,"refusal":null}},"logprobs":null,"score":1.50}}], "system_fingerprint":null}}',
        f'{{{STRICT_HEAD},"choices":[{{"index":0,"message":{{"role":"assistant","content":null,"refusal":null}},"logprobs":null,"score":1.50}}],"system_fingerprint":null}}',
    ),
    "unknown top-level members go": (CHAT, f'{{"secret":{{"id":5}},{HEAD},{CHOICES},"region":"x"}}', f"{{{STRICT_HEAD},{CHOICES}}}"),
    "a tool call's id stays": (
        CHAT,
        f'{{{HEAD},"choices":[{{"index":0,"message":{{"role":"assistant","tool_calls":[{{"id":"c","type":"function","function":{{"name":"f","arguments":"{{}}"}}}}]}}}}]}}',
        f'{{{STRICT_HEAD},"choices":[{{"index":0,"message":{{"role":"assistant","tool_calls":[{{"id":"c","type":"function","function":{{"name":"f","arguments":"{{}}"}}}}]}}}}]}}',
    ),
    "role and index are filled in and put right, finish_reason and logprobs are not": (
        CHAT,
        f'{{{HEAD},"choices":[{{"message":{{"content":"a"}}}},{{"index":7,"message":{{"role":"x"}}}}]}}',
        f'{{{STRICT_HEAD},"choices":[{{"message":{{"content":"a","role":"assistant"}},"index":0}},{{"index":7,"message":{{"role":"assistant"}}}}]}}',
    ),
    "bookkeeping is filled in": (CHAT, '{"choices":[]}', '{"choices":[],"model":"alias","id":"resp_1","object":"chat.completion","created":0}'),
    "completions keep their id": (
        COMPLETIONS,
        '{"id":"cmpl-1","object":"text_completion","created":1,"model":"up","choices":[{"text":"a","index":0}]}',
        '{"id":"cmpl-1","object":"text_completion","created":1,"model":"alias","choices":[{"text":"a","index":0}]}',
    ),
    "embeddings": (
        EMBEDDINGS,
        '{"object":"list","data":[{"object":"embedding","embedding":[0.10,-5e-1],"index":0}],"model":"up","x":1}',
        '{"object":"list","data":[{"object":"embedding","embedding":[0.10,-5e-1],"index":0}],"model":"alias"}',
    ),
}  # fmt: skip


@pytest.mark.parametrize(("form", "raw", "expected"), STRICT.values(), ids=STRICT)
def test_strict_mode_fills_in_and_drops_but_passes_on_the_rest(form, raw, expected):
    finished = finish(raw, form, strict=True)
    assert finished.decode() == expected


def test_a_completion_without_id_gets_one():
    answer = orjson.loads(finish('{"choices":[]}', COMPLETIONS, strict=True))
    assert answer["id"].startswith("cmpl-")
    assert answer["object"] == "text_completion"


def test_without_a_response_id_strict_mode_keeps_the_upstreams():
    finished = finish(f"{{{HEAD},{CHOICES}}}", response_id=None, strict=True)
    assert orjson.loads(finished)["id"] == "c1"


UNREADABLE = {
    "empty": b"",
    "text": b"oops",
    "bytes": b"\xff\xfe\x00",
    "a list": b"[]",
    "null": b"null",
    "no choices": b'{"id":"x"}',
    "null choices": b'{"choices":null}',
    "choices of text": b'{"choices":["a"]}',
    "an error in a 200": b'{"error":{"message":"no"}}',
    "cut": b'{"choices":[',
    "too deep": b'{"choices":' + b"[" * 5000 + b"]" * 5000 + b"}",
    "a megabyte of text": b"x" * 1_000_000,
}


@pytest.mark.parametrize("raw", UNREADABLE.values(), ids=UNREADABLE)
@pytest.mark.parametrize("form", [CHAT, COMPLETIONS, EMBEDDINGS])
def test_strict_mode_refuses_what_the_endpoint_does_not_promise(form, raw):
    with pytest.raises(BadUpstreamBody):
        finish(raw, form, strict=True, whole=True)


@pytest.mark.parametrize("raw", UNREADABLE.values(), ids=UNREADABLE)
@pytest.mark.parametrize("form", [CHAT, COMPLETIONS, EMBEDDINGS])
def test_what_is_cut_or_has_no_results_is_an_answer_in_no_mode(form, raw):
    with pytest.raises(BadUpstreamBody):
        finish(raw, form, response_id=None, whole=True)


@pytest.mark.parametrize("form", [CHAT, COMPLETIONS])
def test_an_answer_too_deep_for_us_is_passed_on(form):
    raw = b'{"choices":[{"x":%b}]}' % (b"[" * 250 + b"]" * 250)
    assert finish(raw, form, whole=True) == raw


PLAIN = {
    "chat": (CHAT, f'{{ {HEAD},"z":1, {CHOICES} }}', f'{{{HEAD.replace("c1", "resp_1")},"z":1,{CHOICES}}}'),
    "no completion": (CHAT, '{"id":"c1","z":1}', '{"id":"resp_1","z":1}'),
    "no completion, without id": (CHAT, '{"z":1}', '{"z":1}'),
    "chat without id": (CHAT, '{"choices":[]}', '{"choices":[],"id":"resp_1","object":"chat.completion","created":0}'),
    "completions": (COMPLETIONS, '{"id":"cmpl-1","choices":[]}', '{"id":"cmpl-1","choices":[],"object":"text_completion","created":0}'),
    "embeddings": (EMBEDDINGS, '{"id":"e","data":[]}', '{"id":"e","data":[]}'),
}  # fmt: skip


@pytest.mark.parametrize(("form", "raw", "expected"), PLAIN.values(), ids=PLAIN)
def test_without_strict_mode_only_bookkeeping_changes(form, raw, expected):
    assert finish(raw, form).decode() == expected


def test_usage_is_read_in_every_mode():
    raw = f"{{{HEAD},{CHOICES},{USAGE}}}"
    for strict in (True, False):
        assert counts_of(orjson.loads(finish(raw, strict=strict))) == Counts(9, 3, 12)


def test_a_strange_usage_does_not_lose_the_answer():
    finished = finish(f'{{{HEAD},{CHOICES},"usage":"many"}}', strict=True)
    assert counts_of(orjson.loads(finished)) is None
    assert b'"usage":"many"' in finished


def test_sanitising_keeps_what_openai_documents():
    raw = orjson.dumps(
        {
            "id": "c1",
            "object": "chat.completion",
            "created": 17,
            "model": "up",
            "provider": "secret",
            "choices": [
                {
                    "index": 0,
                    "message": {"role": "assistant", "content": "Hi", "own": 1},
                    "finish_reason": "stop",
                    "logprobs": None,
                    "stop_reason": 5,
                }
            ],
            "usage": {
                "prompt_tokens": 1,
                "completion_tokens": 1,
                "total_tokens": 2,
                "cost": 5,
                "prompt_tokens_details": {"cached_tokens": 1, "own": 2},
                "completion_tokens_details": None,
            },
            "service_tier": None,
        }
    )
    assert orjson.loads(finish(raw, sanitise=True)) == {
        "id": "resp_1",
        "object": "chat.completion",
        "created": 17,
        "model": "alias",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "Hi", "own": 1},
                "finish_reason": "stop",
                "logprobs": None,
            }
        ],
        "usage": {
            "prompt_tokens": 1,
            "completion_tokens": 1,
            "total_tokens": 2,
            "prompt_tokens_details": {"cached_tokens": 1},
            "completion_tokens_details": None,
        },
        "service_tier": None,
    }


def test_sanitising_refuses_what_it_cannot_read():
    with pytest.raises(BadUpstreamBody):
        finish(b"oops", sanitise=True)


def test_sanitising_leaves_other_endpoints_alone():
    raw = b'{"id":"cmpl-1","object":"text_completion","created":1,"own":1,"choices":[]}'
    assert finish(raw, COMPLETIONS, sanitise=True) == raw


def test_embeddings_are_not_read_but_passed_on():
    """A parser would refuse the number: nobody here parses it."""
    raw = '{"object":"list","data":[{"embedding":[1e400]}],"model":"up"}'
    assert finish(raw, EMBEDDINGS, strict=True).decode() == raw.replace("up", "alias")
    assert finish(raw, EMBEDDINGS).decode() == raw


@pytest.mark.parametrize("data", ["5", "[5]", "[{}, []]", "{}", "null", "[{]"])
def test_embeddings_that_are_none_are_refused_in_strict_mode(data):
    with pytest.raises(BadUpstreamBody):
        finish(f'{{"data":{data},"usage":{{"total_tokens":3}}}}', EMBEDDINGS, strict=True)
