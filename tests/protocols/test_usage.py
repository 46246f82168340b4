import math

import pytest

from dwctl.protocols.usage import TokenUsage, usage_of

READ = {
    "chat": (
        {"prompt_tokens": 9, "completion_tokens": 3, "total_tokens": 12},
        TokenUsage(9, 3, 12),
    ),
    "chat with details": (
        {
            "prompt_tokens": 9,
            "completion_tokens": 3,
            "total_tokens": 12,
            "prompt_tokens_details": {"cached_tokens": 4},
            "completion_tokens_details": {"reasoning_tokens": 2},
        },
        TokenUsage(9, 3, 12, 2, 4),
    ),
    "responses": (
        {
            "input_tokens": 9,
            "output_tokens": 3,
            "total_tokens": 12,
            "input_tokens_details": {"cached_tokens": 4},
            "output_tokens_details": {"reasoning_tokens": 2},
        },
        TokenUsage(9, 3, 12, 2, 4),
    ),
    "embeddings": ({"prompt_tokens": 4, "total_tokens": 4}, TokenUsage(4, 0, 4)),
    "no total": ({"input_tokens": 5, "output_tokens": 3}, TokenUsage(5, 3, 8)),
    "only a total": ({"total_tokens": 7}, TokenUsage(0, 0, 7)),
    "floats": ({"prompt_tokens": 9.0, "completion_tokens": 3.7}, TokenUsage(9, 3, 12)),
    "digits as text": ({"prompt_tokens": "9", "completion_tokens": "x"}, TokenUsage(9, 0, 9)),
    "negative": ({"prompt_tokens": -5, "completion_tokens": 3}, TokenUsage(0, 3, 3)),
    "zero in all": ({"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}, TokenUsage()),
    "booleans and lists": ({"prompt_tokens": True, "completion_tokens": [1], "total_tokens": 2}, TokenUsage(0, 0, 2)),
    "infinite": ({"prompt_tokens": math.inf, "completion_tokens": math.nan, "total_tokens": 2}, TokenUsage(0, 0, 2)),
    "far too many": ({"prompt_tokens": 10**30, "completion_tokens": 1}, TokenUsage(2**31 - 1, 1, 2**31 - 1)),
    "null details": ({"prompt_tokens": 1, "prompt_tokens_details": None, "completion_tokens_details": 5}, TokenUsage(1, 0, 1)),
    "null in details": ({"prompt_tokens": 1, "prompt_tokens_details": {"cached_tokens": None}}, TokenUsage(1, 0, 1)),
    "second spelling of details": ({"prompt_tokens": 1, "prompt_tokens_details": None, "input_tokens_details": {"cached_tokens": 1}}, TokenUsage(1, 0, 1, 0, 1)),
}  # fmt: skip


@pytest.mark.parametrize(("usage", "expected"), READ.values(), ids=READ)
def test_usage_is_read_leniently(usage, expected):
    assert usage_of({"usage": usage}) == expected


@pytest.mark.parametrize(
    "body", [{}, {"usage": None}, {"usage": []}, {"usage": {}}, {"usage": "9"}, [], None, "x"]
)
def test_a_body_without_counts_has_no_usage(body):
    assert usage_of(body) is None
