import json

import pytest

from dwctl.protocols.bounds import (
    MEDIA_AT_MOST,
    likely_tokens,
    most_of_media,
    most_read,
    most_written,
)
from dwctl.protocols.usage import prompt_estimate

NAMES = ("max_tokens", "max_completion_tokens")

IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 100_000}}

WRITTEN = {
    "nothing said": ({"messages": []}, None),
    "max_tokens": ({"max_tokens": 7}, 7),
    "max_completion_tokens": ({"max_completion_tokens": 7}, 7),
    "another protocol's": ({"max_output_tokens": 7}, None),
    "two of them: the larger": ({"max_tokens": 7, "max_completion_tokens": 9}, 9),
    "several answers": ({"max_tokens": 7, "n": 3}, 21),
    "the best of several": ({"max_tokens": 7, "n": 2, "best_of": 5}, 35),
    "several prompts": ({"max_tokens": 7, "n": 2, "prompt": ["a", "b", "c"]}, 42),
    "a prompt of tokens": ({"max_tokens": 7, "prompt": [1, 2, 3]}, 7),
    "several prompts of tokens": ({"max_tokens": 7, "prompt": [[1, 2], [3]]}, 14),
    "no prompts": ({"max_tokens": 7, "prompt": []}, 7),
    "null": ({"max_tokens": None}, None),
    "zero, which some servers take for no bound": ({"max_tokens": 0}, None),
    "negative, which some servers take for no bound": ({"max_tokens": -1}, None),
    "no number": ({"max_tokens": "many", "n": []}, None),
    "nonsense": ({"max_tokens": 2**40, "n": 2**40}, 2**31 - 1),
}


@pytest.mark.parametrize(("content", "expected"), WRITTEN.values(), ids=WRITTEN)
def test_what_may_be_written_is_what_the_request_allows(content, expected):
    assert most_written(content, NAMES) == expected


READ = {
    "English": {"messages": [{"role": "user", "content": "How long is a piece of string? " * 50}]},
    "Chinese": {"messages": [{"role": "user", "content": "一根绳子有多长？" * 50}]},
    "tokens": {"input": list(range(1000))},
    "an image": {"messages": [{"role": "user", "content": [{"type": "text", "text": "?"}, IMAGE]}]},
    "tools": {"tools": [{"type": "function", "function": {"name": "f", "parameters": {"a": {"enum": [1.5, True, None]}}}}]},
    "nothing": {},
}  # fmt: skip


@pytest.mark.parametrize("content", READ.values(), ids=READ)
def test_a_bound_is_never_below_what_is_likely(content):
    assert most_read(content) >= prompt_estimate(content)


def test_a_prompt_has_no_more_tokens_than_bytes():
    text = "一根绳子有多长？"
    assert len(text.encode()) < most_read({"input": text}) < len(text.encode()) + 100


def test_what_is_said_to_the_server_is_not_read_by_the_model():
    """A short call must not hold many times what it costs: a low account could make few at once."""
    said = {"messages": [{"role": "user", "content": "Hello"}]}
    server = {"model": "m" * 100, "user": "u" * 100, "stream": True, "max_tokens": 5, "metadata": {"a": "b" * 100}}  # fmt: skip
    assert most_read(said | server) == most_read(said) <= 40


def test_each_of_the_media_counts_wherever_it_is():
    parts = [IMAGE, {"type": "text", "text": "file"}, IMAGE]
    assert _most_of_media({"messages": [{"role": "user", "content": parts}]}) == 2 * MEDIA_AT_MOST
    assert _most_of_media({"tools": [IMAGE], "input": "x"}) == 0
    assert _most_of_media({"messages": [{"role": "user", "content": "no type is said"}]}) == 0


def test_media_are_found_however_their_type_is_spelled():
    said = {"messages": [{"role": "user", "content": [IMAGE]}]}
    spelled = json.dumps(said).replace('"type"', r'"\u0074ype"').encode()
    assert most_of_media(spelled, json.loads(spelled)) == MEDIA_AT_MOST


def _most_of_media(content):
    return most_of_media(json.dumps(content).encode(), content)


def test_a_text_behind_a_number_is_a_text():
    tools = [{"function": {"parameters": {"enum": [1, "x" * 1000]}}}]
    assert most_read({"tools": tools}) > 1000


def test_media_are_no_text():
    assert MEDIA_AT_MOST < most_read({"input": [IMAGE]}) < MEDIA_AT_MOST + 100


LONG = "x" * 10_000
DISGUISED = {
    "in a list that begins with a number": {"input": [0, LONG]},
    "as choices of a tool": {"tools": [{"function": {"parameters": {"enum": [0, LONG]}}}]},
    "as numbers": {"tools": [{"function": {"parameters": {"enum": [10**18] * 1000}}}]},
    "as numbers that are no tokens": {"prompt": [10**18] * 1000},
    "in a tool that calls it a file": {"tools": [{"function": {"parameters": {"type": "file", "description": LONG}}}]},
    "in a message that calls itself a file": {"messages": [{"role": "user", "type": "file", "content": LONG}]},
    "in a schema that calls it an image": {"response_format": {"json_schema": {"schema": {"type": "image", "title": LONG}}}},
}  # fmt: skip


@pytest.mark.parametrize("content", DISGUISED.values(), ids=DISGUISED)
def test_a_text_counts_however_it_is_disguised(content):
    assert most_read(content) >= len(LONG)


def test_what_a_model_reads_as_json_has_no_more_tokens_than_that_has_bytes():
    flat = {"enum": [1] * 1000, "names": {f"a{i}": 1 for i in range(1000)}}
    tools = [{"type": "function", "function": {"name": "f", "parameters": flat}}]
    assert most_read({"tools": tools}) >= len(json.dumps(tools))


def test_what_is_likely_is_the_prompt_and_the_answer_that_is_allowed():
    assert (
        likely_tokens({"messages": [{"content": "x" * 40}], "max_tokens": 5, "n": 2}, NAMES) == 20
    )
    assert likely_tokens({"messages": [{"content": "x" * 40}]}, NAMES) == 10
