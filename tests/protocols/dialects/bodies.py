"""Complete answers with status 200 as servers in the field send them to a chat call, and what a client has to learn from each."""

from __future__ import annotations

import json
from typing import Any

from tests.protocols.dialects.client import Said
from tests.protocols.dialects.streams import SECRET, TEXT, TWO, USED, F, Oddity, one_call

HEAD = {"id": "c1", "object": "chat.completion", "created": 1, "model": "up"}
CALL = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"a":1}'}}


def body(content: Any = TEXT, reason: Any = "stop", *, message: Any = None, choice: Any = None, **more: Any) -> bytes:  # fmt: skip
    """A chat completion; `message` and `choice` are members beside the usual ones."""
    said = {"role": "assistant", "content": content} | (message or {})
    choices = [{"index": 0, "message": said, "finish_reason": reason} | (choice or {})]
    return json.dumps(HEAD | {"choices": choices, "usage": USED} | more).encode()


def with_calls(*calls: Any, reason: str = "tool_calls") -> bytes:
    return body(None, reason, message={"tool_calls": list(calls)})


def changed(call: Any, **function: Any) -> Any:
    return {**call, "function": call["function"] | function}


def without(value: Any, *names: str) -> Any:
    return {n: v for n, v in value.items() if n not in names}


MINE = body()
FAILED = Said(reason=None, usage=None, error="http_500")

BODIES = {
    "as it should be": Oddity("OpenAI", MINE),
    "no id, no object, no time": Oddity("Z.ai (pydantic/pydantic-ai#2723)", json.dumps(without(json.loads(MINE), "id", "object", "created")).encode()),
    "bookkeeping null": Oddity("home-made servers", json.dumps(json.loads(MINE) | {"id": None, "object": None, "created": None}).encode()),
    "citations written flat": Oddity("Moonshot's Kimi on OpenRouter (vercel/ai#10199)", body(message={"annotations": [{"type": "url_citation", "url": "https://x.example"}]})),
    "citations without a title": Oddity("OpenRouter (vercel/ai#10199)", body(message={"annotations": [{"type": "url_citation", "url_citation": {"url": "https://x.example", "start_index": 0, "end_index": 5}}]})),
    "annotations an object": Oddity("home-made servers", body(message={"annotations": {"url": "x"}})),
    "spoken": Oddity("gpt-audio", body(None, message={"refusal": None, "audio": {"id": "a1", "data": "AAAA", "transcript": TEXT, "expires_at": 9}})),
    "empty reason": Oddity("Ollama (ollama/ollama#4357)", body(reason="")),
    "reason null": Oddity("SGLang, Gemini behind proxies", body(reason=None)),
    "reason null, with calls": Oddity("Gemini behind proxies", body(None, None, message={"tool_calls": [CALL]}), F),
    "an unknown reason": Oddity("a server's own", body(reason="finished_fine")),
    "reason in capitals": Oddity("Gemini behind proxies", body(reason="MAX_TOKENS"), Said(TEXT, reason="length")),
    "reason error": Oddity("OpenRouter", body(reason="error"), FAILED),
    "reason error, with its error": Oddity("OpenRouter", body(reason="error", choice={"error": {"code": 502, "message": SECRET}}), Said(reason=None, error="http_502")),
    "choices an object": Oddity("home-made servers", body().replace(b'"choices": [', b'"choices": ').replace(b'"}], "usage"', b'"}, "usage"')),
    "a delta in place of the message": Oddity("servers that always stream", body().replace(b'"message"', b'"delta"')),
    "a text in place of the message": Oddity("text completions on a chat route", json.dumps(HEAD | {"choices": [{"index": 0, "text": TEXT, "finish_reason": "stop"}], "usage": USED}).encode()),
    "no message": Oddity("Azure's content filter", json.dumps(HEAD | {"choices": [{"index": 0, "finish_reason": "content_filter", "content_filter_results": {}}], "usage": USED}).encode(), Said(reason="content_filter")),
    "content in parts": Oddity("Mistral's Magistral", body([{"type": "thinking", "thinking": [{"type": "text", "text": "Hm"}]}, {"type": "text", "text": TEXT}]), Said(TEXT, "Hm")),
    "content an object": Oddity("servers that parse structured outputs", body({"a": 1}), Said('{"a":1}')),
    "content missing": Oddity("Gemini that thought too long", body(None, "length").replace(b'"content": null', b'"x": 1'), Said(reason="length")),
    "thinking": Oddity("Ollama's own name", body(message={"thinking": "Hm"}), Said(TEXT, "Hm")),
    "content null with reasoning": Oddity("SGLang with a reasoning parser", body(None, "length", message={"reasoning_content": "Hm"}), Said("", "Hm", reason="length")),
    "role empty": Oddity("home-made servers", body(message={"role": ""})),
    "another role": Oddity("Gemini: `model`", body(message={"role": "model"})),
    "no role": Oddity("home-made servers", body().replace(b'"role": "assistant", ', b"")),
    "arguments an object": Oddity("BerriAI/litellm#24095 (Ollama)", with_calls(changed(CALL, arguments={"a": 1})), F),
    "arguments null": Oddity("functions without parameters", with_calls(changed(CALL, arguments=None)), one_call("{}")),
    "arguments empty": Oddity("functions without parameters", with_calls(changed(CALL, arguments="")), one_call("{}")),
    "arguments null, and no more room": Oddity("a model at the end of its tokens", with_calls(changed(CALL, arguments=None), reason="MAX_TOKENS"), Said(calls=(("f", ""),), reason="length")),
    "id empty": Oddity("Gemini", with_calls(CALL | {"id": ""}), F),
    "no id, no type": Oddity("Ollama's own protocol", with_calls(without(CALL, "id", "type")), F),
    "same id twice": Oddity("servers that number calls", with_calls(CALL, {**CALL, "function": {"name": "g", "arguments": '{"b":2}'}}), TWO),
    "two without ids": Oddity("Gemini", with_calls(CALL | {"id": ""}, {"id": "", "function": {"name": "g", "arguments": {"b": 2}}}), TWO),
    "two of the same name without ids": Oddity("Gemini", with_calls(CALL | {"id": None}, CALL | {"id": None}), one_call('{"a":1}', '{"a":1}')),
    "a flat call": Oddity("home-made servers", with_calls({"id": "c1", "name": "f", "arguments": '{"a":1}'}), F),
    "calls an object": Oddity("home-made servers", body(None, "tool_calls", message={"tool_calls": CALL}), F),
    "calls empty": Oddity("vLLM: `tool_calls: []`", body(message={"tool_calls": []})),
    "calls with an index": Oddity("vLLM, LiteLLM", with_calls(CALL | {"index": 0}), F),
    "usage in the choice": Oddity("Moonshot's Kimi", body(choice={"usage": USED}, usage=None)),
    "usage under x_groq": Oddity("Groq", body(usage=None, x_groq={"usage": USED})),
    "usage as texts": Oddity("numbers as strings", body(usage={"prompt_tokens": "9", "completion_tokens": "3", "total_tokens": "12"})),
    "usage in part": Oddity("home-made servers", body(usage={"prompt_tokens": 9, "total_tokens": 12})),
    "usage of Gemini": Oddity("Gemini behind proxies", body(usage=None, usageMetadata={"promptTokenCount": 9, "candidatesTokenCount": 3, "totalTokenCount": 12})),
    "usage of llama.cpp": Oddity("llama.cpp", body(usage=None, timings={"cache_n": 4, "prompt_n": 5, "predicted_n": 3})),
    "Ollama's own protocol": Oddity("Ollama's /api/chat", json.dumps({"model": "up", "created_at": "2026-01-01T00:00:00Z", "message": {"role": "assistant", "content": TEXT}, "done": True, "done_reason": "stop", "prompt_eval_count": 9, "eval_count": 3}).encode()),
    "a byte order mark": Oddity("servers on Windows", b"\xef\xbb\xbf" + MINE),
    "white space before and behind": Oddity("keep-alive by white space (DeepSeek)", b"\n\n  " + MINE + b"\n\n"),
    "more behind the object": Oddity("decolua/9router#3492", MINE + b"\n\ndata: [DONE]\n\n"),
    "NaN": Oddity("Python's json.dumps", body(score=float("nan"))),
    "a number beyond a double": Oddity("odd but legal JSON", body(score=1).replace(b'"score": 1', b'"score": 1e400')),
    "half an emoji": Oddity("tokens cut inside a character", body("Hello\ud83d there"), Said("Hello\ufffd there")),
    "half an emoji at the end": Oddity("tokens cut inside a character", body("Hello\ud83d"), Said("Hello\ufffd")),
    "NUL": Oddity("models that write it", body("Hello\x00"), Said("Hello\x00")),
    "not UTF-8": Oddity("Latin-1 servers", MINE.replace(b"Hello", b"Hell\xf6"), Said("Hell\ufffd there")),
    "a raw line end in a text": Oddity("JSON put together by hand", MINE.replace(b"Hello there", b"Hello\nthere"), Said("Hello\nthere")),
    "a member twice": Oddity("odd but legal JSON", MINE.replace(b'"content": "Hello there"', b'"content": "Bye", "content": "Hello there"')),
    "an error with 200": Oddity("OpenRouter, one-api", json.dumps({"error": {"message": SECRET, "code": 502}}).encode(), Said(reason=None, error="http_502")),
    "an error beside choices": Oddity("OpenRouter", body(error={"message": SECRET, "code": 502}), Said(reason=None, error="http_502")),
    "an error of words": Oddity("Ollama", json.dumps({"error": SECRET}).encode(), FAILED),
    "a flat error": Oddity("vLLM before 0.10", json.dumps({"object": "error", "message": SECRET, "code": 500}).encode(), FAILED),
    "FastAPI's detail": Oddity("servers made with FastAPI", json.dumps({"detail": SECRET}).encode(), FAILED),
    "MiniMax's": Oddity("RooCodeInc/Roo-Code#9105", json.dumps({"choices": None, "base_resp": {"status_code": 1002, "status_msg": SECRET}}).encode(), FAILED),
    "an error null": Oddity("many", body(error=None)),
    "success false": Oddity("GLM: {code, msg, success}", json.dumps({"code": 500, "msg": SECRET, "success": False}).encode(), FAILED),
}  # fmt: skip

NO_ANSWERS = {
    "cut": MINE[:-20],
    "cut in a text": MINE[:100],
    "empty object": b"{}",
    "choices empty": body(choices=[]),
    "choices null": body(choices=None),
    "choices of null": body(choices=[None]),
    "a list": b"[]",
    "a text": b'"Hello there"',
    "null": b"null",
    "a page": b"<!DOCTYPE html><html><body>Bad gateway</body></html>",
    "words": b"upstream connect error or disconnect/reset before headers",
    "bytes": b"\x1f\x8b\x08\x00",
}
"""What is no answer, or not a whole one: the call fails, in every mode."""
