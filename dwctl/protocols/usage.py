"""Token counts: read from whatever an upstream calls them, completed by what follows from them, estimated where nothing is said.

Nothing here raises: a strange count is worth less than the answer that it came with, and must not lose it. And nothing here can be
chosen by the caller: a count that is absent is not zero, whoever hung up before it came.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from enum import StrEnum
from math import isfinite
from typing import Any

import msgspec

MOST_TOKENS = (
    2**31 - 1
)  # more than this in one call is nonsense, and would not fit the log's columns
_CHARS_PER_TOKEN = 4  # the usual rule of thumb, for characters of one byte: see `length`
_MEDIA_TOKENS = 1_000  # of an image, a sound, a film or a file: about what a picture of 1024 x 1024 costs with most models
_SAYS_SOMETHING = frozenset(["role", "content", "text"])
MEDIA = frozenset(
    ["image_url", "input_image", "image", "input_audio", "audio_url", "video_url", "input_video", "file", "input_file"]
)  # fmt: skip
# Members of messages, items and tools whose texts no model reads as such.
_BOOKKEEPING = frozenset(
    ["id", "type", "role", "call_id", "tool_call_id", "status", "detail", "index", "finish_reason", "logprobs", "signature",
     "encrypted_content", "object"]
)  # fmt: skip
_WRITTEN = re.compile(
    rb'"(?:content|text|refusal|reasoning|reasoning_content|thinking|arguments|partial_json|delta)"[ \t\n\r]*+:[ \t\n\r]*+"((?:[^"\\]++|\\.)*+)"'
)
_READ_BY_MODELS = (
    "messages",
    "input",
    "prompt",
    "instructions",
    "tools",
    "suffix",
    "text",
    "response_format",
)


class UsageSource(StrEnum):
    """How a usage is known. The values are those of the request log."""

    REPORTED = "reported"
    ESTIMATED = "estimated"


class TokenUsage(msgspec.Struct, frozen=True):
    """What one call used, in LLM tokens; `reasoning` is part of `completion`, `cached` of `prompt`.

    source: estimated where one of the two that are paid for (prompt, completion) is an estimate.
    """

    prompt_tokens: int = 0
    completion_tokens: int = 0
    total_tokens: int = 0
    reasoning_tokens: int = 0
    cached_tokens: int = 0
    source: UsageSource = UsageSource.REPORTED


class Counts(msgspec.Struct, frozen=True):
    """What an upstream has said of its usage so far; None is what it has not said."""

    prompt: int | None = None
    completion: int | None = None
    total: int | None = None
    reasoning: int = 0
    cached: int = 0

    @property
    def says_nothing(self) -> bool:
        """No count, or nothing but zeros: some servers send those with each chunk."""
        return not (self.prompt or self.completion or self.total)

    def followed_by(self, later: Counts) -> Counts:
        """Both together: the later one counts, as far as it says anything."""
        if later.says_nothing and not self.says_nothing:
            return self
        return Counts(
            _later(self.prompt, later.prompt),
            _later(self.completion, later.completion),
            _later(self.total, later.total),
            later.reasoning or self.reasoning,
            later.cached or self.cached,
        )


def _later(earlier: int | None, later: int | None) -> int | None:
    """A zero says nothing against an earlier count: some servers tell the prompt at the beginning and the completion at the end."""
    return later if later or earlier is None else earlier


def merged(so_far: dict[str, Any] | None, usage: dict[str, Any]) -> dict[str, Any]:
    """A stream's usage as it is shown: the latest, with what only earlier ones say."""
    if so_far is None:
        return usage
    counts = read_counts(usage)
    if counts is None or counts.says_nothing:
        return so_far
    both = {**so_far, **{name: value for name, value in usage.items() if value or name not in so_far}}  # fmt: skip
    known = read_counts(both)
    if known is not None and known.total is not None:
        least = min((known.prompt or 0) + (known.completion or 0), MOST_TOKENS)
        if known.total < least and "total_tokens" in both:
            both["total_tokens"] = least
    return both


def counts_of(body: object) -> Counts | None:
    """The counts in an answer of any protocol, or in a stream's chunk: in its `usage`, else in a choice's. None: there are none."""
    if not isinstance(body, dict):
        return None
    usage = body.get("usage")
    if usage is not None and (found := read_counts(usage)) is not None:
        return found
    choices = body.get("choices")
    if isinstance(choices, list) and choices and isinstance(choices[0], dict):
        usage = choices[0].get("usage")
        return None if usage is None else read_counts(usage)
    return None


def read_counts(usage: object) -> Counts | None:
    """A `usage` object of chat, completions, embeddings or responses; None where it names no count."""
    if not isinstance(usage, dict):
        return None
    prompt, completion = usage.get("prompt_tokens"), usage.get("completion_tokens")
    total = usage.get("total_tokens")
    if not (_is_usual(prompt) and _is_usual(completion) and _is_usual(total)):
        prompt = _first(usage, "prompt_tokens", "input_tokens")
        completion = _first(usage, "completion_tokens", "output_tokens")
        total = _said(total)
        if prompt is None and completion is None and total is None:
            return None
        if total is None and "prompt_tokens" not in usage and prompt is not None:
            prompt = min(prompt + _beside(usage), MOST_TOKENS)
    elif len(usage) == _PLAIN:
        return Counts(prompt, completion, total)
    return Counts(
        prompt,
        completion,
        total,
        _detail(usage, ("completion_tokens_details", "output_tokens_details"), "reasoning_tokens")
        or _first(usage, "reasoning_tokens")
        or 0,
        _detail(usage, ("prompt_tokens_details", "input_tokens_details"), "cached_tokens")
        or _first(usage, *_CACHED)
        or 0,
    )


def _beside(usage: Mapping[str, Any]) -> int:
    """Prompt tokens that were read from a cache, or written into it, which Anthropic counts beside the others and knows no total."""
    names = ("cache_read_input_tokens", "cache_creation_input_tokens")
    return sum(_said(usage.get(name)) or 0 for name in names)


def standard_usage(usage: object) -> dict[str, Any] | None:
    """A `usage` with its three counts as chat completions name and spell them; None where it has them, or none can be read."""
    if type(usage) is not dict:
        return None
    if type(usage.get("prompt_tokens")) is type(usage.get("completion_tokens")) is type(usage.get("total_tokens")) is int:  # fmt: skip
        return None
    counts = read_counts(usage)
    return None if counts is None else {**usage, **_three_counts(counts)}


def found_elsewhere(content: Mapping[str, Any], choices: object) -> dict[str, Any] | None:
    """The usage of an answer, or a chunk, that has none where it belongs, but in one of the places that servers in the field use."""
    for choice in choices if isinstance(choices, list) else ():
        if isinstance(choice, dict) and read_counts(choice.get("usage")) is not None:  # Moonshot
            found: dict[str, Any] = choice["usage"]
            return standard_usage(found) or found
    for read in _ELSEWHERE:
        counts = read_counts(read(content))
        if counts is not None and not counts.says_nothing:
            details = {"prompt_tokens_details": {"cached_tokens": counts.cached}}
            return _three_counts(counts) | (details if counts.cached else {})
    return None


def _three_counts(counts: Counts) -> dict[str, int]:
    known = derived(counts)
    total = known.total
    if total is None and known.prompt is not None and known.completion is not None:
        total = min(known.prompt + known.completion, MOST_TOKENS)
    named = {"prompt_tokens": known.prompt, "completion_tokens": known.completion, "total_tokens": total}  # fmt: skip
    return {name: value for name, value in named.items() if value is not None}


def _groq(content: Mapping[str, Any]) -> object:
    return _inside(content, "x_groq").get("usage")


def _ollama(content: Mapping[str, Any]) -> object:
    return {"prompt_tokens": content.get("prompt_eval_count"), "completion_tokens": content.get("eval_count")}  # fmt: skip


def _google(content: Mapping[str, Any]) -> object:
    given = _inside(content, "usageMetadata") or _inside(content, "usage_metadata")
    return {
        "prompt_tokens": given.get("promptTokenCount", given.get("prompt_token_count")),
        "completion_tokens": given.get("candidatesTokenCount", given.get("candidates_token_count")),
        "total_tokens": given.get("totalTokenCount", given.get("total_token_count")),
    }


def _llama_cpp(content: Mapping[str, Any]) -> object:
    given = _inside(content, "timings")
    cached, read = count(given.get("cache_n")) or 0, count(given.get("prompt_n"))
    prompt = None if read is None else read + cached
    return {"prompt_tokens": prompt, "completion_tokens": given.get("predicted_n"), "cached_tokens": cached}  # fmt: skip


def _cohere(content: Mapping[str, Any]) -> object:
    meta = _inside(content, "meta")
    return _inside(meta, "tokens") or _inside(meta, "billed_units")


def _inside(content: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    found = content.get(name)
    return found if isinstance(found, dict) else {}


_ELSEWHERE = (_groq, _ollama, _google, _llama_cpp, _cohere)
_PLAIN = 3
"""Members of a usage that names prompt, completion and total and no more. Most name no more."""
_CACHED = ("cached_tokens", "prompt_cache_hit_tokens", "cache_read_input_tokens", "num_cached_tokens")  # fmt: skip


def settled(
    counts: Counts | None,
    *,
    written_chars: Callable[[], int],
    prompt_tokens: Callable[[], int],
    ended: bool = False,
    writes: bool = True,
) -> TokenUsage | None:
    """What the call is charged for: what was said, what follows from it, and for the rest an estimate.

    written_chars: of the answer, as far as there is one. prompt_tokens: an estimate. Neither is called where it is not needed.
    ended: the upstream has said that it is done; then the prompt was read, even where nothing was written.
    writes: False for embeddings, which have a prompt only.
    None only where nothing was said, nothing written and nothing ended.
    """
    if counts is not None and counts.prompt and counts.completion:
        return _reported(counts)
    if counts is None or counts.says_nothing:
        written = written_chars()
        if written == 0 and counts is not None:
            return TokenUsage()
        if written == 0 and not ended:
            return None
        return _estimated(Counts(), written, prompt_tokens) if writes else _prompt(prompt_tokens())
    counts = derived(counts, writes=writes)
    if counts.prompt is not None and counts.completion:
        return _reported(counts)
    written = written_chars() if writes else 0
    if counts.prompt is not None and not written:
        return _reported(counts)
    return _estimated(counts, written, prompt_tokens)


def said(answer: object) -> TokenUsage | None:
    """What an answer that is a failure, or of no known protocol, says it has used; nothing is estimated of one.

    A total alone is a prompt: who reranks or judges texts has written none.
    """
    counts = counts_of(answer)
    if counts is None:
        return None
    total = counts.total or 0
    return settled(counts, written_chars=lambda: 0, prompt_tokens=lambda: total)


def continued(
    counts: Counts, *, written_since: int, prompt_tokens: Callable[[], int]
) -> TokenUsage:
    """The same for a stream that broke off after its latest counts: what it has written since comes on top, as an estimate."""
    known = derived(counts)
    completion = min((known.completion or 0) + tokens_in(written_since), MOST_TOKENS)
    return _estimated(
        msgspec.structs.replace(known, completion=completion, total=None), 0, prompt_tokens
    )


def derived(counts: Counts, *, writes: bool = True) -> Counts:
    """With what follows: of prompt, completion and total two give the third."""
    prompt, completion, total = counts.prompt, counts.completion, counts.total
    if not writes:
        prompt = prompt or max((total or 0) - (completion or 0), 0)
        return msgspec.structs.replace(counts, prompt=prompt, completion=completion or 0)
    if total and prompt is not None and not completion:
        completion = max(total - prompt, 0)
    elif total and completion is not None and not prompt:
        prompt = max(total - completion, 0)
    return msgspec.structs.replace(counts, prompt=prompt, completion=completion)


def _reported(counts: Counts) -> TokenUsage:
    prompt, completion = counts.prompt or 0, counts.completion or 0
    total = max(counts.total or 0, min(prompt + completion, MOST_TOKENS))
    return TokenUsage(prompt, completion, total, counts.reasoning, counts.cached)


def _estimated(counts: Counts, written: int, prompt_tokens: Callable[[], int]) -> TokenUsage:
    prompt, completion = counts.prompt, counts.completion
    if prompt is None:
        prompt = prompt_tokens()
        if completion is None and counts.total:  # only a total: the two must add up to it
            guessed = prompt + tokens_in(written)
            if guessed > counts.total:
                prompt = counts.total * prompt // guessed
            completion = counts.total - prompt
    if not completion:
        completion = tokens_in(written)
    total = max(counts.total or 0, min(prompt + completion, MOST_TOKENS))
    return TokenUsage(
        prompt, completion, total, counts.reasoning, counts.cached, UsageSource.ESTIMATED
    )


def _prompt(tokens: int) -> TokenUsage:
    return TokenUsage(prompt_tokens=tokens, total_tokens=tokens, source=UsageSource.ESTIMATED)


# --- estimates


def length(text: str) -> int:
    """A text's length as far as tokens are concerned: in bytes. Of Chinese four characters are three or four tokens, of English one."""
    return len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))


def tokens_in(chars: int) -> int:
    """How many tokens a text of that `length` is likely to be."""
    return min(-(-chars // _CHARS_PER_TOKEN), MOST_TOKENS)


def prompt_estimate(content: Mapping[str, Any]) -> int:
    """How many tokens a request's prompt is likely to be: its text, 1,000 for each image, sound, film or file, tokens as they are."""
    tokens = chars = 0
    for name in _READ_BY_MODELS:
        if name in content:
            found_tokens, found_chars = _measure(content[name])
            tokens += found_tokens
            chars += found_chars
    return max(min(tokens + tokens_in(chars), MOST_TOKENS), 1)


def text_chars(value: object) -> int:
    """The length of all texts in a JSON value that a model has written or read; identifiers and the like are left out."""
    return _measure(value)[1]


def raw_chars(raw: bytes) -> int:
    """About the length of what a model has written in an answer, or a part of one, that is no JSON to us: with a number that is none, half of a
    surrogate pair, or nested too deep. Its caller may well read it. 0 for what is not even like an answer.
    """
    return sum(map(len, _WRITTEN.findall(raw)))


def _measure(value: object) -> tuple[int, int]:
    """Tokens (of media, and given as numbers) and characters. Without recursion: the value may be nested deeply."""
    tokens = chars = 0
    left = [value]
    while left:
        here = left.pop()
        if isinstance(here, str):
            chars += length(here)
        elif isinstance(here, list):
            if here and type(here[0]) is int:
                tokens += len(here)
            else:
                left += here
        elif isinstance(here, dict):
            if is_media(here):
                tokens += _MEDIA_TOKENS
            else:
                left += [member for name, member in here.items() if name not in _BOOKKEEPING]
    return tokens, chars


def is_media(part: Mapping[str, Any]) -> bool:
    """Whether a part is an image, a sound, a film or a file. Servers do not look at the `type` of a message, so one that says something is none."""
    kind = part.get("type")
    return isinstance(kind, str) and kind in MEDIA and _SAYS_SOMETHING.isdisjoint(part)


# --- reading


def count(value: object) -> int | None:
    """A token count, where it is one: a number, or digits, that is not negative."""
    found = _number(value)
    return None if found is None else min(found, MOST_TOKENS)


def _number(value: object) -> int | None:
    """The same, however large."""
    if type(value) is int:
        return max(value, 0)
    if isinstance(value, str) and value.isdecimal() and len(value) <= 12:
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    if isinstance(value, float) and not isfinite(value):
        return None
    return max(int(value), 0)


def _is_usual(value: object) -> bool:
    """Whether it is a count as it should be."""
    return type(value) is int and 0 <= value < MOST_TOKENS


def _said(value: object) -> int | None:
    """A count in a usage. One that no call can have says nothing: servers that count without a sign show -1 as 18446744073709551615."""
    found = _number(value)
    return None if found is None or found > MOST_TOKENS else found


def _first(usage: Mapping[str, Any], *names: str) -> int | None:
    for name in names:
        if name in usage and (found := _said(usage[name])) is not None:
            return found
    return None


def _detail(usage: Mapping[str, Any], groups: tuple[str, ...], name: str) -> int:
    for group in groups:
        details = usage.get(group)
        if isinstance(details, dict):
            return _said(details.get(name)) or 0
    return 0
