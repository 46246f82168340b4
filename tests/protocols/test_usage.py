import math

import pytest

from dwctl.protocols.usage import (
    Counts,
    TokenUsage,
    UsageSource,
    counts_of,
    prompt_estimate,
    settled,
    text_chars,
)

PROMPT, WRITTEN = 50, 40  # an estimate in tokens, and the length of a text: 10 tokens
READ = {
    "chat": ({"prompt_tokens": 9, "completion_tokens": 3, "total_tokens": 12}, Counts(9, 3, 12)),
    "chat with details": (
        {
            "prompt_tokens": 9,
            "completion_tokens": 3,
            "total_tokens": 12,
            "prompt_tokens_details": {"cached_tokens": 4},
            "completion_tokens_details": {"reasoning_tokens": 2},
        },
        Counts(9, 3, 12, 2, 4),
    ),
    "responses": (
        {
            "input_tokens": 9,
            "output_tokens": 3,
            "total_tokens": 12,
            "input_tokens_details": {"cached_tokens": 4},
            "output_tokens_details": {"reasoning_tokens": 2},
        },
        Counts(9, 3, 12, 2, 4),
    ),
    "embeddings": ({"prompt_tokens": 4, "total_tokens": 4}, Counts(4, None, 4)),
    "only a total": ({"total_tokens": 7}, Counts(total=7)),
    "Anthropic's: cached tokens beside the others": ({"input_tokens": 5, "cache_read_input_tokens": 40, "cache_creation_input_tokens": 3, "output_tokens": 7}, Counts(48, 7, None, 0, 40)),
    "Anthropic's names within a prompt": ({"prompt_tokens": 45, "cache_read_input_tokens": 40, "completion_tokens": 7}, Counts(45, 7, None, 0, 40)),
    "Anthropic's names within a total": ({"input_tokens": 45, "cache_read_input_tokens": 40, "output_tokens": 7, "total_tokens": 52}, Counts(45, 7, 52, 0, 40)),
    "floats": ({"prompt_tokens": 9.0, "completion_tokens": 3.7}, Counts(9, 3)),
    "digits as text": ({"prompt_tokens": "9", "completion_tokens": "x"}, Counts(9)),
    "negative": ({"prompt_tokens": -5, "completion_tokens": 3}, Counts(0, 3)),
    "booleans and lists": ({"prompt_tokens": True, "completion_tokens": [1], "total_tokens": 2}, Counts(total=2)),
    "infinite": ({"prompt_tokens": math.inf, "completion_tokens": math.nan, "total_tokens": 2}, Counts(total=2)),
    "far too many": ({"prompt_tokens": 10**400, "completion_tokens": 1}, Counts(None, 1)),
    "less than nothing, without a sign": ({"prompt_tokens": 9, "completion_tokens": 2**64 - 1, "total_tokens": 2**32 + 8}, Counts(9)),
    "null details": ({"prompt_tokens": 1, "prompt_tokens_details": None, "completion_tokens_details": 5}, Counts(1)),
    "null in details": ({"prompt_tokens": 1, "prompt_tokens_details": {"cached_tokens": None}}, Counts(1)),
    "second spelling of details": ({"prompt_tokens": 1, "prompt_tokens_details": None, "input_tokens_details": {"cached_tokens": 1}}, Counts(1, cached=1)),
}  # fmt: skip


@pytest.mark.parametrize(("usage", "expected"), READ.values(), ids=READ)
def test_usage_is_read_leniently(usage, expected):
    assert counts_of({"usage": usage}) == expected


def test_usage_inside_a_choice_counts():
    assert counts_of({"choices": [{"usage": {"prompt_tokens": 3}}]}) == Counts(3)


@pytest.mark.parametrize(
    "body",
    [{}, {"usage": None}, {"usage": []}, {"usage": {}}, {"usage": "9"}, {"choices": [5]}, [], None, "x"],
)  # fmt: skip
def test_a_body_without_counts_has_no_usage(body):
    assert counts_of(body) is None


def usage(prompt, completion, total=None, reported=False):
    source = UsageSource.REPORTED if reported else UsageSource.ESTIMATED
    total = prompt + completion if total is None else total
    return TokenUsage(prompt, completion, total, source=source)


SETTLED = {
    "all": (Counts(9, 3, 12), WRITTEN, usage(9, 3, reported=True)),
    "no total": (Counts(9, 3), WRITTEN, usage(9, 3, reported=True)),
    "a total that is too small": (Counts(9, 3, 5), WRITTEN, usage(9, 3, 12, reported=True)),
    "prompt and total": (Counts(10, None, 15), WRITTEN, usage(10, 5, reported=True)),
    "prompt, total and a zero": (Counts(10, 0, 15), WRITTEN, usage(10, 5, reported=True)),
    "completion and total": (Counts(None, 5, 15), WRITTEN, usage(10, 5, reported=True)),
    "a zero, completion and total": (Counts(0, 5, 15), WRITTEN, usage(10, 5, reported=True)),
    "only a prompt": (Counts(9), WRITTEN, usage(9, 10)),
    "only a prompt, and nothing written": (Counts(9), 0, usage(9, 0, reported=True)),
    "a prompt and a zero, while text was written": (Counts(9, 0, 9), WRITTEN, usage(9, 10)),
    "only a completion": (Counts(None, 7), WRITTEN, usage(PROMPT, 7)),
    "only a total": (Counts(total=70), WRITTEN, usage(PROMPT, 20)),
    "only a total, smaller than the estimate": (Counts(total=7), WRITTEN, usage(5, 2)),
    "zeros while text was written": (Counts(0, 0, 0), WRITTEN, usage(PROMPT, 10)),
    "zeros and nothing written": (Counts(0, 0, 0), 0, usage(0, 0, reported=True)),
    "nothing said": (None, WRITTEN, usage(PROMPT, 10)),
    "nothing said, nothing written": (None, 0, None),
}


@pytest.mark.parametrize(("counts", "written", "expected"), SETTLED.values(), ids=SETTLED)
def test_what_is_not_said_is_derived_or_estimated(counts, written, expected):
    found = settled(counts, written_chars=lambda: written, prompt_tokens=lambda: PROMPT)
    assert found == expected


def test_who_hears_the_end_pays_for_the_prompt():
    found = settled(None, written_chars=lambda: 0, prompt_tokens=lambda: PROMPT, ended=True)
    assert found == usage(PROMPT, 0)


EMBEDDED = {
    "prompt and total": (Counts(4, None, 4), usage(4, 0, reported=True)),
    "only a total": (Counts(total=7), usage(7, 0, reported=True)),
    "only a prompt": (Counts(7), usage(7, 0, reported=True)),
    "an answer that there is none of": (Counts(0, 3, 7), usage(4, 3, reported=True)),
    "nothing": (None, usage(PROMPT, 0)),
    "zeros": (Counts(0, 0, 0), usage(PROMPT, 0)),
}


@pytest.mark.parametrize(("counts", "expected"), EMBEDDED.values(), ids=EMBEDDED)
def test_embeddings_have_a_prompt_only(counts, expected):
    found = settled(
        counts, written_chars=lambda: 1, prompt_tokens=lambda: PROMPT, ended=True, writes=False
    )
    assert found == expected


def test_nothing_is_estimated_where_all_is_reported():
    def never():
        raise AssertionError("estimated although it was reported")

    assert settled(Counts(9, 3, 12), written_chars=never, prompt_tokens=never)


def test_later_counts_complete_earlier_ones_and_zeros_do_not_undo_them():
    begun = Counts(prompt=9, cached=2)
    assert begun.followed_by(Counts(completion=3)) == Counts(9, 3, None, 0, 2)
    assert Counts(9, 3, 12).followed_by(Counts(0, 0, 0)) == Counts(9, 3, 12)
    assert Counts(9, 3, 12).followed_by(Counts(9, 5, 14)) == Counts(9, 5, 14)


IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 9000}}
PROMPTS = {
    "text": ({"messages": [{"role": "user", "content": "x" * 400}]}, 100),
    "a script of three bytes a character": ({"input": "绳" * 400}, 300),
    "half a surrogate pair": ({"input": "\ud83d" * 4}, 3),
    "parts": ({"messages": [{"role": "user", "content": [{"type": "text", "text": "x" * 400}]}]}, 100),
    "an image": ({"messages": [{"role": "user", "content": [IMAGE, {"type": "text", "text": "x" * 40}]}]}, 1010),
    "responses": ({"input": "x" * 40, "instructions": "y" * 40}, 20),
    "tokens": ({"input": [1, 2, 3]}, 3),
    "lists of tokens": ({"prompt": [[1, 2], [3]]}, 3),
    "what no model reads": ({"messages": [{"role": "user", "content": "xxxx"}], "user": "y" * 4000}, 1),
    "nothing": ({}, 1),
    "anything": ({"messages": 5, "input": None, "tools": {"a": [True]}}, 1),
}  # fmt: skip


@pytest.mark.parametrize(("content", "tokens"), PROMPTS.values(), ids=PROMPTS)
def test_a_prompt_is_estimated(content, tokens):
    assert prompt_estimate(content) == tokens


def test_a_deep_value_is_measured_too():
    deep = "four"
    for _ in range(5000):
        deep = [{"content": deep}]
    assert text_chars(deep) == 4
