"""Odd requests: what a caller might send by mistake, out of ignorance or in anger."""

from __future__ import annotations

import json
import random
import re
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

MARK = re.compile(rb"fuzz-(\d+)-(\d+)-")
"""The text by which the upstream knows the case; a mutation may have destroyed it."""
PLAIN, NATIVE, TRUSTED, SANITISED = "fuzz-plain", "fuzz-native", "fuzz-trusted", "fuzz-sanitised"
MODELS = (PLAIN, NATIVE, TRUSTED, SANITISED)
PATHS = ("/chat/completions", "/completions", "/embeddings", "/responses")
FOREIGN_ID = "7d3c9b1e-58a4-4f0a-9b0f-1d2e3c4b5a69"

Json = dict[str, Any]


class Raw(str):
    """A piece of JSON as it is to be sent, which no encoder would write."""

    __slots__ = ()


ODD: tuple[Any, ...] = (
    None, True, False, 0, -1, Raw("-0"), Raw("-0.0"), Raw("1e30"), Raw("1E+400"), Raw("1e-400"), 2**31, 2**53 + 1, 2**63, 2**64, 2**70,
    Raw("NaN"), Raw("Infinity"), Raw("0123"), "", " ", "0", "true", "flex", [], {}, [[]], [None], [{}], [""], {"": None},
    Raw('"\\u0000"'), Raw('"\\ud800"'), Raw('"\\udc00\\ud800"'), Raw('"\\u2028"'), "\x7f", "é" * 300, "🌍", "x" * 70_000,
    Raw('{"a":1,"a":2}'), {"type": "text"}, {"type": "function", "function": {"name": "f"}}, {"role": "user", "content": "a"},
)  # fmt: skip
"""Values that may stand anywhere."""

MEMBERS = (
    "model", "messages", "input", "prompt", "stream", "stream_options", "service_tier", "background", "store", "metadata", "user", "n",
    "max_tokens", "max_completion_tokens", "max_output_tokens", "max_tool_calls", "temperature", "top_p", "logprobs", "top_logprobs", "stop",
    "seed", "tools", "tool_choice", "parallel_tool_calls", "response_format", "text", "reasoning", "reasoning_effort", "include", "truncation",
    "instructions", "previous_response_id", "conversation", "prompt_cache_key", "safety_identifier", "modalities", "audio", "prediction",
    "encoding_format", "dimensions", "echo", "suffix", "best_of", "logit_bias", "functions", "function_call", "unheard_of",
)  # fmt: skip

DELICATE = (
    "metadata",
    "max_tool_calls",
    "max_output_tokens",
    "tools",
    "stream_options",
    "reasoning",
    "text",
)
"""Members that are read, counted with and written again."""

HEADERS: tuple[tuple[str, str], ...] = (
    ("Model-Override", PLAIN), ("Model-Override", NATIVE), ("Model-Override", "nobody-has-this"), ("Model-Override", ""),
    ("Model-Override", "m" * 6000), ("Model-Override", "caf\xe9"), ("X-Fusillade-Request-Id", FOREIGN_ID),
    ("X-Fusillade-Request-Id", "nonsense"), ("X-Fusillade-Request-Id", ""), ("Accept", "text/event-stream"), ("Accept", "image/png"),
    ("Accept", "*/*;q=0"), ("Accept-Encoding", "gzip, br"), ("Content-Type", "text/plain"), ("Content-Type", "application/json; charset=utf-16"),
    ("Content-Type", "multipart/form-data; boundary=x"), ("Content-Type", ""), ("Content-Encoding", "gzip"), ("Expect", "100-continue"),
    ("Idempotency-Key", "k"), ("X-Request-Id", "chosen by the caller"), ("Priority", "u=9"), ("Cookie", "dwctl_session=nonsense"),
    ("traceparent", "00-00000000000000000000000000000000-0000000000000000-00"), ("X-Forwarded-For", "999.1.1.1"), ("Origin", "null"),
    ("If-None-Match", "*"), ("Range", "bytes=0-0"), ("X-Odd", "\xff\xfe"), ("X-Long", "y" * 4000), ("Connection", "close"),
)  # fmt: skip

AUTHORIZATIONS = ("Bearer nonsense", "Bearer ", "Basic Zm9vOmJhcg==", "", "Bearer sk-" + "k" * 5000)


@dataclass(frozen=True)
class Ask:
    """One request, as bytes, and what kind of reader its caller is.

    quoted: whether the answer, where it is a success, is the upstream's own words: nobody has looked at them.
    patience: how many bytes of the answer are read before the caller hangs up; None reads all.
    """

    path: str
    body: bytes
    headers: tuple[tuple[str, str], ...]
    authorization: str | None
    strict: bool
    patience: int | None

    @property
    def surface(self) -> str:
        return self.path.partition("?")[0]

    @property
    def quoted(self) -> bool:
        # The worker under test is in open mode.
        in_open_mode = not self.strict or b'"flex"' in self.body
        return in_open_mode and (self.surface != "/responses" or self.model_is(NATIVE))

    def model_is(self, alias: str) -> bool:
        """Whether that model may be meant. The header wins over the body's member."""
        override = dict(self.headers).get("Model-Override")
        return override == alias if override else alias.encode() in self.body


def ask_of(seed: int, number: int) -> Ask:
    """What the caller of a case sends; `authorization` None stands for a good key."""
    dice = random.Random(f"ask {seed} {number}")
    path = dice.choice(PATHS)
    content = _plain(dice, path, f"fuzz-{seed}-{number}-")
    for _ in range(dice.choice((0, 0, 0, 1, 1, 2, 4))):
        _mutate(dice, content)
    body = _garbled(dice, write(content).encode("utf-8", "surrogatepass"))
    headers = tuple(dice.sample(HEADERS, dice.choice((0, 0, 0, 1, 1, 2, 3))))
    if "model" not in content and dice.random() < 0.8:
        headers = (*headers, ("Model-Override", dice.choice((PLAIN, NATIVE))))
    strict = dice.random() < 0.5
    return Ask(
        path=path + dice.choice(("", "", "", "", "", "?a=b", "?stream=true", "?%00")),
        body=body,
        headers=_one_each(headers),
        authorization=dice.choice(AUTHORIZATIONS) if dice.random() < 0.03 else None,
        strict=strict,
        patience=dice.choice((0, 1, 200, 1000)) if dice.random() < 0.05 else None,
    )


def write(value: Any) -> str:
    """JSON, with `Raw` pieces as they are."""
    if isinstance(value, Raw):
        return str(value)
    if isinstance(value, dict):
        return "{" + ",".join(f"{json.dumps(k)}:{write(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(write, value)) + "]"
    return json.dumps(value, ensure_ascii=False)


def _plain(dice: random.Random, path: str, mark: str) -> Json:
    """A good request of any mode."""
    content: Json = {"model": PLAIN if dice.random() < 0.6 else dice.choice(MODELS)}
    said = f"{mark} {dice.choice(('Hello', 'Grüße 🌍', 'say it twice'))}"
    if path == "/chat/completions":
        content["messages"] = [{"role": "user", "content": said}]
    elif path == "/responses":
        content["input"] = dice.choice(
            [said, [{"role": "user", "content": [{"type": "input_text", "text": said}]}]]
        )
        content["background"] = dice.choice((False, False, True))
    else:
        content["prompt" if path == "/completions" else "input"] = said
    content["service_tier"] = dice.choice(("auto", "default", "priority", "flex", "flex"))
    content["stream"] = dice.choice((False, True))
    if dice.random() < 0.3:
        content["stream_options"] = {"include_usage": dice.choice((True, False))}
    for name in ("background", "service_tier", "stream"):
        if name in content and dice.random() < 0.3:
            del content[name]
    return content


def _mutate(dice: random.Random, content: Json) -> None:
    """Change one thing, somewhere."""
    name = dice.choice(DELICATE if dice.random() < 0.4 else MEMBERS)
    match dice.randrange(9):
        case 0:
            content[name] = odd(dice)
        case 1:
            del content[dice.choice(list(content))]
        case 2:
            content[name] = deep(dice)
        case 3:
            _inside(dice, content, odd(dice))
        case 4:
            _inside(dice, content, deep(dice))
        case 5:
            content["metadata"] = {f"k{n}": odd(dice) for n in range(dice.choice((1, 17)))}
        case 6:
            content[dice.choice(("tier", "x" * 300, "", "\x00", "é"))] = odd(dice)
        case 7:
            content.pop("model", None)
        case _:
            content["tools"] = [odd(dice) for _ in range(dice.choice((1, 3, 200)))]
    if not content:
        content["model"] = PLAIN


def odd(dice: random.Random) -> Any:
    """One of the values that may stand anywhere; a copy, for a later change may go inside it."""
    return deepcopy(dice.choice(ODD))


def deep(dice: random.Random) -> Raw:
    """Arrays or objects in each other, up to what a reader takes and beyond."""
    depth = dice.choice((30, 126, 200, 253, 254, 255, 300, 1000, 1023, 1024, 1025, 5000))
    opening, closing = dice.choice((("[", "]"), ('{"a":', "}")))
    return Raw(opening * depth + "1" + closing * depth)


def _inside(dice: random.Random, content: Json, value: Any) -> None:
    """Put `value` in the place of something, however deep it stands."""
    here: Any = content
    while True:
        key = dice.choice(list(here) if isinstance(here, dict) else range(len(here)))
        if isinstance(here[key], (dict, list)) and here[key] and dice.random() < 0.8:
            here = here[key]
            continue
        here[key] = value
        return


def _garbled(dice: random.Random, body: bytes) -> bytes:
    """Mostly untouched."""
    if dice.random() > 0.12:
        return body
    at = dice.randrange(len(body))
    match dice.randrange(10):
        case 0:
            return body[:at]
        case 1:
            return b"\xef\xbb\xbf" + body
        case 2:
            return body.decode("utf-8", "replace").encode("utf-16")
        case 3:
            return body[:at] + bytes([dice.randrange(256)]) + body[at + 1 :]
        case 4:
            return body + b"{}"
        case 5:
            return b" \r\n\t" * 500 + body + b"\n"
        case 6:
            return dice.choice((b"", b"null", b"[]", b"0", b'"text"', b"a=b&c=d", b"\x00", b"\xff"))
        case 7:
            return b"[" * 20_000
        case 8:
            return body[:-1] + b',"pad":"' + b"p" * 300_000 + b'"}'
        case _:
            # The last of two members with one name counts.
            return b'{"model":"nobody-has-this","stream":7,' + body[1:]


def _one_each(headers: tuple[tuple[str, str], ...]) -> tuple[tuple[str, str], ...]:
    return tuple({name.lower(): (name, value) for name, value in headers}.values())
