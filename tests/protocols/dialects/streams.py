"""Streams of chat completions as servers in the field send them, and what a client has to learn from each, on whatever surface."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from tests.protocols.dialects.client import Said
from tests.protocols.streams import USAGE, chunk, sse

TEXT = "Hello there"
USED = {"prompt_tokens": 9, "completion_tokens": 3, "total_tokens": 12}
Json = dict[str, Any]


@dataclass(frozen=True)
class Oddity:
    """source: who does it, and where it is told of (project#number on GitHub)."""

    source: str
    stream: bytes
    says: Said = Said(TEXT)


def words(**choice: Any) -> list[Json]:
    """Two chunks of text; `choice` are members of their choices."""
    said = [chunk({"role": "assistant", "content": "Hello"}), chunk({"content": " there"})]
    return [{**c, "choices": [c["choices"][0] | choice]} for c in said]


def end(reason: Any = "stop", **members: Any) -> Json:
    return chunk({}, reason, **members)


def used(**members: Any) -> Json:
    return chunk({}) | {"choices": [], "usage": USED} | members


def bare(choice: Any, **members: Any) -> Json:
    """A chunk with just these choices."""
    return chunk({}) | {"choices": choice} | members


def calls(*parts: Any) -> Json:
    return chunk({"tool_calls": list(parts)})


def part(index: Any = None, id: Any = None, name: Any = None, arguments: Any = None, **more: Any) -> Json:  # fmt: skip
    """A part of a tool call, with the members that are not None."""
    function = {n: v for n, v in {"name": name, "arguments": arguments}.items() if v is not None}
    named = {"index": index, "id": id, "function": function or None}
    return {n: v for n, v in named.items() if v is not None} | more


def plain(*chunks: Any, done: bool = True) -> bytes:
    return sse(chunks, done)


def ascii_sse(*chunks: Any) -> bytes:
    """With escapes for all that is not ASCII."""
    frames = [b"data: " + json.dumps(c).encode() + b"\n\n" for c in chunks]
    return b"".join(frames) + b"data: [DONE]\n\n"


def one_call(*arguments: str, name: str = "f") -> Said:
    return Said(calls=tuple((name, a) for a in arguments), reason="tool_calls")


REGULAR = plain(*words(), end(), used())
F = one_call('{"a":1}')
TWO = Said(calls=(("f", '{"a":1}'), ("g", '{"b":2}')), reason="tool_calls")
FULL = {"index": 0, "id": "c1", "type": "function"}
KIMI = {"index": 0, "delta": {}, "finish_reason": "stop", "usage": USED}
SECRET = "no room at http://10.0.0.7:8000"

FINISH = {
    "empty reason in each chunk": Oddity("Ollama (ollama/ollama#4357), SGLang (sgl-project/sglang#3912)", plain(*words(finish_reason=""), end(), used())),
    "reason null as a text": Oddity("new-api and one-api behind some channels (songquanpeng/one-api)", plain(*words(finish_reason="null"), end(), used())),
    "reason None as a text": Oddity("servers that format with Python's str", plain(*words(finish_reason="None"), end(), used())),
    "no reason member": Oddity("LocalAI (mudler/LocalAI#1194), litellm-proxy (BerriAI/liteLLM-proxy#19)", plain(*[bare([{"index": 0, "delta": {"content": t}}]) for t in ("Hello", " there")], end(), used())),
    "reason false": Oddity("a loosely typed server", plain(*words(finish_reason=False), end(), used())),
    "reason in capitals": Oddity("Gemini behind proxies", plain(*words(), end("STOP"), used())),
    "max tokens by Google's name": Oddity("Gemini behind proxies", plain(*words(), end("MAX_TOKENS"), used()), Said(TEXT, reason="length")),
    "end of sequence": Oddity("Text Generation Inference", plain(*words(), end("eos_token"), used())),
    "end of turn": Oddity("Anthropic's reasons behind proxies", plain(*words(), end("end_turn"), used())),
    "model_length": Oddity("Mistral's API reference", plain(*words(), end("model_length"), used()), Said(TEXT, reason="length")),
    "a filter's reason": Oddity("GLM (`sensitive`)", plain(*words(), end("sensitive"), used()), Said(TEXT, reason="content_filter")),
    "no capacity": Oddity("DeepSeek's API reference", plain(*words(), end("insufficient_system_resource"), used()), Said(TEXT, reason=None, error="upstream_error")),
    "reason error": Oddity("OpenRouter's documentation", plain(*words(), end("error"), used()), Said(TEXT, reason=None, error="upstream_error")),
    "an unknown reason, then a known one": Oddity("a server's own steps", plain(*words(), end("thinking_done"), end(), used())),
    "reason in the chunk of the last text": Oddity("vLLM (vllm-project/vllm#36944)", plain(words()[0], chunk({"content": " there"}, "stop"), used())),
    "reason twice": Oddity("LiteLLM", plain(*words(), end(), end(), used())),
    "nothing but an end marker": Oddity("servers whose model failed to load", plain(), Said("", reason=None, usage=None, error="upstream_error")),
    "no choices, but an end marker": Oddity("aggregators that had no provider", plain(bare([]), used(usage=dict.fromkeys(USED, 0))), Said("", reason=None, usage=None, error="upstream_error")),
    "no reason, but an end marker": Oddity("Gemini's OpenAI endpoint behind proxies", plain(*words(), used()), Said(TEXT, reason=None)),
}  # fmt: skip

SHAPES = {
    "choices without delta": Oddity("Azure's asynchronous filter", plain(*words(), bare([{"index": 0, "finish_reason": None, "content_filter_offsets": {"check_offset": 1}}]), bare([{"index": 0, "finish_reason": "stop"}]), used())),
    "delta null": Oddity("pydantic-ai's and others' workarounds", plain(*words(), bare([{"index": 0, "delta": None, "finish_reason": "stop"}]), used())),
    "choices null on the usage chunk": Oddity("pydantic/pydantic-ai#5165", plain(*words(), end(), used(choices=None))),
    "choices missing on the usage chunk": Oddity("Mistral and others", plain(*words(), end(), {k: v for k, v in used().items() if k != "choices"})),
    "choices null in the middle": Oddity("RooCodeInc/Roo-Code#9105 (MiniMax)", plain(words()[0], bare(None), words()[1], end(), used())),
    "choices an object": Oddity("home-made servers", plain(*[bare(c["choices"][0]) for c in words()], end(), used())),
    "null among the choices": Oddity("home-made servers", plain(*words(), bare([None, {"index": 0, "delta": {}, "finish_reason": "stop"}]), used())),
    "index missing": Oddity("Cloudflare Workers AI and others", plain(*[bare([{"delta": {"content": t}}]) for t in ("Hello", " there")], bare([{"delta": {}, "finish_reason": "stop"}]), used())),
    "index as a text": Oddity("numbers as strings", plain(*words(index="0"), bare([{"index": "0", "delta": {}, "finish_reason": "stop"}]), used())),
    "a message in place of the delta": Oddity("servers that stream one complete answer", plain(bare([{"index": 0, "message": {"role": "assistant", "content": TEXT}, "finish_reason": "stop"}], usage=USED))),
    "a text in place of the delta": Oddity("text completions' chunks on a chat route", plain(*[bare([{"index": 0, "text": t}]) for t in ("Hello", " there")], end(), used())),
    "Azure's first chunk": Oddity("Azure OpenAI: prompt_filter_results", plain(bare([], id="", created=0, model="", object="", prompt_filter_results=[{"prompt_index": 0, "content_filter_results": {}}]), *words(content_filter_results={}), end(), used())),
    "usage null in each chunk": Oddity("OpenAI itself, SGLang", plain(*[c | {"usage": None} for c in (*words(), end())], used())),
    "no id, no created, no object": Oddity("Gemini's OpenAI endpoint", plain(*[{"choices": c["choices"], "model": "gemini"} for c in (*words(), end())], used())),
    "another id in each chunk": Oddity("BerriAI/litellm#1571", plain(*[c | {"id": f"chatcmpl-{n}"} for n, c in enumerate((*words(), end(), used()))])),
    "members of their own": Oddity("llama.cpp, SGLang, OpenRouter, Groq, vLLM, LM Studio", plain(*[c | {"provider": "x", "timings": None, "stats": {}, "x_own": [1]} for c in words(matched_stop=None, native_finish_reason=None, stop_reason=None, token_ids=None)], end(), used())),
    "llama.cpp's timings beside the usage": Oddity("llama.cpp", plain(*words(), end(), used(timings={"cache_n": 5, "prompt_n": 4, "predicted_n": 3, "predicted_ms": 1.5}))),
}  # fmt: skip

MESSAGES = {
    "role in each chunk": Oddity("Ollama, SGLang", plain(*[chunk({"role": "assistant", "content": t}) for t in ("Hello", " there")], end(), used())),
    "role empty": Oddity("Mistral's and others' later chunks", plain(*[chunk({"role": "", "content": t}) for t in ("Hello", " there")], end(), used())),
    "role null": Oddity("SGLang (sgl-project/sglang#3912)", plain(*[chunk({"role": None, "content": t, "tool_calls": None}) for t in ("Hello", " there")], end(), used())),
    "another role": Oddity("Gemini: `model`", plain(*[chunk({"role": "model", "content": t}) for t in ("Hello", " there")], end(), used())),
    "no role": Oddity("many", plain(*[chunk({"content": t}) for t in ("Hello", " there")], end(), used())),
    "content in parts": Oddity("Mistral (meilisearch/meilisearch#6327), GLM (NousResearch/hermes-agent#94905)", plain(chunk({"content": [{"type": "reference", "reference_ids": [1]}, {"type": "text", "text": "Hello"}]}), chunk({"content": " there"}), end(), used())),
    "one part": Oddity("home-made servers", plain(chunk({"content": {"type": "text", "text": TEXT}}), end(), used())),
    "content of texts": Oddity("home-made servers", plain(chunk({"content": ["Hello", " there"]}), end(), used())),
    "thinking in parts": Oddity("Mistral's Magistral (vercel/ai#8072, symfony/ai#2422)", plain(chunk({"content": [{"type": "thinking", "thinking": [{"type": "text", "text": "Hm"}]}]}), chunk({"content": [{"type": "text", "text": TEXT}]}), end(), used()), Said(TEXT, "Hm")),
    "thinking": Oddity("Ollama's own name", plain(chunk({"thinking": "Hm", "content": ""}), *words(), end(), used()), Said(TEXT, "Hm")),
    "reasoning": Oddity("OpenRouter, vLLM since 0.12, Groq", plain(chunk({"reasoning": "Hm", "content": ""}), *words(), end(), used()), Said(TEXT, "Hm")),
    "reasoning_content, content null": Oddity("DeepSeek, SGLang, llama.cpp", plain(chunk({"reasoning_content": "Hm", "content": None}), chunk({"content": "Hello", "reasoning_content": None}), chunk({"content": " there"}), end(), used()), Said(TEXT, "Hm")),
    "reasoning under both names": Oddity("LiteLLM, OpenRouter", plain(chunk({"reasoning": "Hm", "reasoning_content": "Hm", "reasoning_details": [{"type": "reasoning.text", "text": "Hm"}]}), *words(), end(), used()), Said(TEXT, "Hm")),
    "reasoning as an object": Oddity("home-made servers", plain(chunk({"reasoning": {"content": "Hm"}}), *words(), end(), used()), Said(TEXT, "Hm")),
    "citations written flat": Oddity("Moonshot's Kimi on OpenRouter (vercel/ai#10199)", plain(*words(), chunk({"content": "", "annotations": [{"type": "url_citation", "url": "https://x.example", "start_index": 0, "end_index": 5}]}), end(), used())),
    "spoken": Oddity("gpt-audio, Qwen-Omni", plain(chunk({"role": "assistant", "content": None, "audio": {"id": "a1", "transcript": "Hello"}}), chunk({"audio": {"data": "AAAA"}}), chunk({"audio": {"transcript": " there", "expires_at": 9}}), end(), used())),
    "spoken and written": Oddity("servers that send both", plain(chunk({"content": "Hello", "audio": {"id": "a1", "data": "AAAA", "expires_at": 9, "transcript": "Hello"}}), chunk({"content": " there", "audio": {"transcript": " there"}}), end(), used())),
    "annotations null": Oddity("vLLM", plain(*[chunk({"content": t, "annotations": None}) for t in ("Hello", " there")], end(), used())),
    "content a number": Oddity("servers that send what their model returns", plain(chunk({"content": 42}), end(), used()), Said("42")),
}  # fmt: skip

CALLS = {
    "whole call in one chunk": Oddity("Groq, Ollama, Mistral", plain(calls(FULL | part(name="f", arguments='{"a":1}')), end("tool_calls"), used()), F),
    "whole call with the reason": Oddity("Gemini", plain(chunk({"tool_calls": [FULL | part(name="f", arguments='{"a":1}')]}, "tool_calls"), used()), F),
    "no index": Oddity("ollama/ollama#7881, AstrBotDevs/AstrBot#6692 (Gemini)", plain(calls(part(id="c1", name="f", arguments='{"a"')), calls(part(arguments=":1}")), end("tool_calls"), used()), F),
    "index null": Oddity("chatanywhere/GPT_API_free#254", plain(calls({"index": None, **part(id="c1", name="f", arguments='{"a"')}), calls({"index": None, **part(arguments=":1}")}), end("tool_calls"), used()), F),
    "index as a text": Oddity("numbers as strings", plain(calls(part("0", "c1", "f", '{"a"')), calls(part("0", arguments=":1}")), end("tool_calls"), used()), F),
    "index from one": Oddity("Anthropic's content blocks behind proxies", plain(calls(part(1, "c1", "f", '{"a":1}')), calls(part(2, "c2", "g", '{"b":2}')), end("tool_calls"), used()), TWO),
    "all index 0, with ids": Oddity("su-kaka/gcli2api#406 (Gemini), vercel/ai#14277 (Ollama)", plain(calls(part(0, "c1", "f", '{"a":1}')), calls(part(0, "c2", "g", '{"b":2}')), end("tool_calls"), used()), TWO),
    "all index 0, without ids": Oddity("omnigent-ai/omnigent#28 (Gemini)", plain(calls(part(0, "", "f", '{"a":1}')), calls(part(0, "", "g", '{"b":2}')), end("tool_calls"), used()), TWO),
    "all index 0, same name, without ids": Oddity("NousResearch/hermes-agent#12930 (Gemini)", plain(calls(part(0, name="f", arguments='{"a":1}')), calls(part(0, name="f", arguments='{"a":2}')), end("tool_calls"), used()), one_call('{"a":1}', '{"a":2}')),
    "two in one chunk, no index, no ids": Oddity("SamSaffron/term-llm#314", plain(calls(part(name="f", arguments='{"a":1}'), part(name="g", arguments='{"b":2}')), end("tool_calls"), used()), TWO),
    "id empty": Oddity("Gemini", plain(calls(part(0, "", "f", '{"a":1}', type="function")), end("tool_calls"), used()), F),
    "id null": Oddity("NVIDIA NIM", plain(calls({"id": None, "type": "function", **part(0, name="f", arguments='{"a":1}')}), end("tool_calls"), used()), F),
    "no id, in fragments": Oddity("llama.cpp with some templates", plain(calls(part(0, name="f", arguments="")), calls(part(0, arguments='{"a"')), calls(part(0, arguments=":1}")), end("tool_calls"), used()), F),
    "id late": Oddity("home-made servers", plain(calls(part(0, name="f", arguments="")), calls(part(0, "c1", arguments='{"a"')), calls(part(0, arguments=":1}")), end("tool_calls"), used()), F),
    "name late": Oddity("home-made servers", plain(calls(part(0, "c1")), calls(part(0, name="f")), calls(part(0, arguments='{"a":1}')), end("tool_calls"), used()), F),
    "name behind the arguments": Oddity("home-made servers", plain(calls(part(0, "c1", arguments='{"a"')), calls(part(0, arguments=":1}", name="f")), end("tool_calls"), used()), F),
    "id a number": Oddity("numbers for strings", plain(calls(part(0, 17, "f", '{"a":1}')), end("tool_calls"), used()), F),
    "id repeated": Oddity("BerriAI/litellm#8990 (Fireworks), BerriAI/litellm#20480", plain(calls(part(0, "c1", "f", "")), *[calls(part(0, "c1", arguments=a)) for a in ('{"a"', ":1}")], end("tool_calls"), used()), F),
    "id, type and name repeated": Oddity("SillyTavern/SillyTavern#5948 (Fireworks)", plain(*[calls(part(0, "c1", "f", a, type="function", name_=None)) for a in ("", '{"a"', ":1}")], end("tool_calls"), used()), F),
    "name repeated without id": Oddity("NousResearch/hermes-agent#11984 (MiniMax on NVIDIA NIM)", plain(calls(part(0, "c1", "f", "")), *[calls(part(0, None, "f", a)) for a in ('{"a"', ":1}")], end("tool_calls"), used()), F),
    "name repeated with nothing at the end": Oddity("MiniMax", plain(calls(part(0, "c1", "f", '{"a":1}')), calls(part(0, "", "f", "")), end("tool_calls"), used()), F),
    "another id in each chunk": Oddity("poolsideai/pool#9", plain(calls(part(0, "c1", "f", "")), *[calls(part(0, f"x{n}", arguments=a)) for n, a in enumerate(('{"a"', ":1}"))], end("tool_calls"), used()), F),
    "the whole call once more at the end": Oddity("BerriAI/litellm#20480", plain(calls(part(0, "c1", "f", '{"a"')), calls(part(0, arguments=":1}")), calls(part(0, "c1", "f", '{"a":1}')), end("tool_calls"), used()), F),
    "same id for two calls": Oddity("servers that number calls in each chunk", plain(calls(part(0, "call_0", "f", '{"a":1}')), calls(part(1, "call_0", "g", '{"b":2}')), end("tool_calls"), used()), TWO),
    "arguments an object": Oddity("BerriAI/litellm#24095 (Ollama)", plain(calls(part(0, "c1", "f", {"a": 1})), end("tool_calls"), used()), F),
    "arguments null": Oddity("vLLM, Mistral: first part of a call", plain(calls({**FULL, "function": {"name": "f", "arguments": None}}), calls(part(0, arguments='{"a":1}')), calls({"index": 0, "function": {"arguments": None}}), end("tool_calls"), used()), F),
    "no arguments member": Oddity("SGLang: first part of a call", plain(calls(FULL | part(name="f")), calls(part(0, arguments='{"a":1}')), end("tool_calls"), used()), F),
    "no arguments at all": Oddity("functions without parameters", plain(calls(FULL | part(name="f")), end("tool_calls"), used()), one_call("{}")),
    "empty arguments": Oddity("functions without parameters", plain(calls(part(0, "c1", "f", "")), calls(part(1, "c2", "g", "")), end("tool_calls"), used()), Said(calls=(("f", "{}"), ("g", "{}")), reason="tool_calls")),
    "empty arguments, and no more room": Oddity("a model at the end of its tokens", plain(calls(part(0, "c1", "f", "")), end("length"), used()), Said(calls=(("f", ""),), reason="length")),
    "empty arguments, and a cut": Oddity("a process that died", plain(calls(part(0, "c1", "f", "")), done=False), Said(calls=(("f", ""),), reason=None, usage=None, error="upstream_error")),
    "type missing": Oddity("Ollama, Gemini", plain(calls(part(0, "c1", "f", '{"a":1}')), end("tool_calls"), used()), F),
    "type empty": Oddity("new-api", plain(calls(part(0, "c1", "f", '{"a"', type="")), calls(part(0, arguments=":1}", type="")), end("tool_calls"), used()), F),
    "calls an object": Oddity("home-made servers", plain(chunk({"tool_calls": FULL | part(name="f", arguments='{"a":1}')}), end("tool_calls"), used()), F),
    "calls null and empty beside text": Oddity("vLLM, Groq: `tool_calls: []` in each chunk", plain(chunk({"content": "Hello", "tool_calls": []}), chunk({"content": " there", "tool_calls": None}), end(), used())),
    "a flat call": Oddity("home-made servers", plain(calls({"id": "c1", "name": "f", "arguments": '{"a":1}'}), end("tool_calls"), used()), F),
    "calls by turns": Oddity("speculative servers", plain(calls(part(0, "c1", "f", '{"a"')), calls(part(1, "c2", "g", '{"b"')), calls(part(0, arguments=":1}")), calls(part(1, arguments=":2}")), end("tool_calls"), used()), TWO),
    "no reason behind a call": Oddity("Gemini behind proxies", plain(calls(part(name="f", arguments="")), calls(part(arguments='{"a":1}')), used()), Said(calls=(("f", '{"a":1}'),), reason=None)),
    "more beside the call": Oddity("Gemini's thought signatures", plain(calls(part(0, "c1", "f", '{"a":1}', extra_content={"google": {"thought_signature": "x"}})), end("tool_calls"), used()), F),
}  # fmt: skip

USAGES = {
    "in the choice": Oddity("Moonshot's Kimi (earendil-works/pi#2017)", plain(*words(), bare([KIMI]))),
    "under x_groq": Oddity("Groq (vercel/ai#1651)", plain(*words(), end(x_groq={"id": "req_1", "usage": {**USED, "queue_time": 0.07}}))),
    "in each chunk, growing": Oddity("vLLM with continuous_usage_stats, Perplexity", plain(*[c | {"usage": {**USED, "completion_tokens": n, "total_tokens": 9 + n}} for n, c in enumerate((*words(), end()), 1)])),
    "zeros in each chunk": Oddity("mudler/LocalAI#1194", plain(*[c | {"usage": dict.fromkeys(USED, 0)} for c in words()], end(usage=USED))),
    "zeros behind the true ones": Oddity("aggregators that add a chunk of their own", plain(*words(), end(usage=USED), used(usage=dict.fromkeys(USED, 0))), Said(TEXT, usage=(0, 0))),
    "beside the last choice": Oddity("DeepSeek, Together", plain(*words(), end(usage=USED))),
    "before the last chunk": Oddity("xAI (openai/openai-agents-python#2126)", plain(*words(), end(usage=USED), bare([]))),
    "numbers as texts": Oddity("home-made servers", plain(*words(), end(), used(usage={"prompt_tokens": "9", "completion_tokens": "3", "total_tokens": "12"}))),
    "no total": Oddity("home-made servers", plain(*words(), end(), used(usage={"prompt_tokens": 9, "completion_tokens": 3}))),
    "no completion": Oddity("home-made servers", plain(*words(), end(), used(usage={"prompt_tokens": 9, "total_tokens": 12}))),
    "floats": Oddity("servers written in JavaScript or Lua", plain(*words(), end(), used(usage={"prompt_tokens": 9.0, "completion_tokens": 3.0, "total_tokens": 12.0}))),
    "by the names of Responses": Oddity("Anthropic's and Responses' names", plain(*words(), end(), used(usage={"input_tokens": 9, "output_tokens": 3}))),
    "Ollama's names": Oddity("Ollama's own protocol", plain(*words(), end(prompt_eval_count=9, eval_count=3))),
    "Google's names": Oddity("Gemini behind proxies", plain(*words(), end(usageMetadata={"promptTokenCount": 9, "candidatesTokenCount": 3, "totalTokenCount": 12}))),
    "only timings": Oddity("llama.cpp before it knew stream_options", plain(*words(), end(timings={"prompt_n": 9, "predicted_n": 3}))),
    "empty": Oddity("BerriAI/litellm#1571", plain(*[c | {"usage": {}} for c in words()], end(), used())),
    "behind the end marker": Oddity("aggregators", plain(*words(), end()) + plain(used(), done=False)),
}  # fmt: skip

ERRORS = {
    "vLLM's in the middle": Oddity("vLLM (BerriAI/litellm#40578)", plain(*words(), {"error": {"message": SECRET, "type": "InternalServerError", "code": 500}}), Said(TEXT, reason=None, usage=None, error="http_500")),
    "vLLM's of old": Oddity("vLLM before 0.10", plain(*words(), {"object": "error", "message": SECRET, "type": "InternalServerError", "param": None, "code": 500}), Said(TEXT, reason=None, usage=None, error="http_500")),
    "OpenRouter's in the middle": Oddity("OpenRouter (damianvtran/local-operator#223)", plain(*words(), chunk({"content": ""}, "error", error={"code": 502, "message": SECRET, "metadata": {"provider_name": "x"}}, provider="x")), Said(TEXT, reason=None, usage=None, error="http_502")),
    "OpenRouter's without choices": Oddity("OpenRouter (diegosouzapw/OmniRoute#8210)", plain(*words(), bare([], error={"code": 502, "message": SECRET})), Said(TEXT, reason=None, usage=None, error="http_502")),
    "in the choice": Oddity("OpenRouter's types", plain(*words(), bare([{"index": 0, "delta": {}, "finish_reason": "error", "error": {"code": 502, "message": SECRET}}])), Said(TEXT, reason=None, usage=None, error="http_502")),
    "a field of its own": Oddity("llama.cpp until late 2025 (ggml-org/llama.cpp#16109, coddy-project/coddy-agent#106)", plain(*words(), done=False) + b'error: {"code":500,"message":"no room","type":"server_error"}\n\ndata: [DONE]\n\n', Said(TEXT, reason=None, usage=None, error="http_500")),
    "JSON without a field": Oddity("lemonade-sdk/lemonade#2975", plain(*words(), done=False) + b'{"error":{"code":500,"message":"no room"}}\n\n', Said(TEXT, reason=None, usage=None, error="http_500")),
    "TGI's": Oddity("Text Generation Inference", plain(*words(), {"error": "Request failed during generation: no room", "error_type": "generation"}), Said(TEXT, reason=None, usage=None, error="http_500")),
    "TGI's overload": Oddity("Text Generation Inference", plain(*words(), {"error": "Model is overloaded", "error_type": "overloaded"}), Said(TEXT, reason=None, usage=None, error="http_503")),
    "a named event": Oddity("LM Studio, Groq, Anthropic's form", plain(*words(), done=False) + b'event: error\ndata: {"error":{"message":"no room","code":500}}\n\n', Said(TEXT, reason=None, usage=None, error="http_500")),
    "a named event of words": Oddity("proxies", plain(*words(), done=False) + b"event: error\ndata: no room\n\n", Said(TEXT, reason=None, usage=None, error="http_500")),
    "an error as a text": Oddity("home-made servers", plain(*words(), {"error": "no room"}), Said(TEXT, reason=None, usage=None, error="http_500")),
    "MiniMax's": Oddity("MiniMax (RooCodeInc/Roo-Code#9105)", plain({"id": "x", "choices": None, "base_resp": {"status_code": 1002, "status_msg": "rate limit"}}), Said(reason=None, usage=None, error="http_500")),
    "of the API's own form": Oddity("GLM, Baidu behind proxies: {code, msg, success}", plain({"code": 500, "msg": "no room", "success": False}), Said(reason=None, usage=None, error="http_500")),
    "the stream is cut": Oddity("a process that died", plain(*words(), done=False), Said(TEXT, reason=None, usage=None, error="upstream_error")),
    "an object that breaks off": Oddity("proxies that cut events (vllm-project/aibrix#2653)", plain(words()[0], done=False) + b'data: {"id":"x","choices":[{"index":0,"delta":{"content":" th\n\n' + plain(end(), used()), Said("Hello", reason=None, usage=None, error="upstream_error")),
    "an object run into by another": Oddity("Wei-Shaw/sub2api#1471", plain(words()[0], done=False) + b'data: {"id":"x","choices":[{"index":0,"delta":{"con\ndata: {"type":"error","error":{"message":"no room"}}\n\n' + plain(end(), used()), Said("Hello", reason=None, usage=None, error="upstream_error")),
    "nothing comes": Oddity("a worker that was killed", b"", Said(reason=None, usage=None, error="upstream_error")),
}  # fmt: skip

TEXTS = {
    "an emoji in two chunks": Oddity("servers that stream UTF-16 (elie222/rakazo#416)", ascii_sse(chunk({"content": "Hello \ud83d"}), chunk({"content": "\ude00 there"}), end(), used()), Said("Hello \U0001f600 there")),
    "half an emoji": Oddity("tokens cut inside a character", ascii_sse(chunk({"content": "Hello\ude00 there"}), end(), used()), Said("Hello\ufffd there")),
    "NUL": Oddity("models that write it", ascii_sse(chunk({"content": "Hello\x00 there"}), end(), used()), Said("Hello\x00 there")),
    "escapes": Oddity("Python's json.dumps", ascii_sse(chunk({"content": "H\u00e9llo \U0001f600 \u2028"}), end(), used()), Said("H\u00e9llo \U0001f600 \u2028")),
    "a raw line end in a text": Oddity("servers that put JSON together by hand", plain(*words()).replace(b" there", b"\tthere").replace(b"data: [DONE]\n\n", plain(end(), used())), Said("Hello\tthere")),
    "bytes that are not UTF-8": Oddity("Latin-1 servers", plain(*words(), end(), used()).replace(b"Hello", b"Hell\xf6"), Said("Hell\ufffd there")),
    "infinite log probabilities": Oddity("vLLM before -9999.0 stood for it", plain(*words(), end(), used()).replace(b'"finish_reason":null', b'"logprobs":{"content":[{"token":"a","logprob":-Infinity,"bytes":null,"top_logprobs":[]}]},"finish_reason":null')),
    "a number beyond a double": Oddity("odd but legal JSON", plain(*words(), end(), used()).replace(b'"model":"up"', b'"model":"up","score":1e400')),
    "an integer beyond 64 bits": Oddity("odd but legal JSON", plain(*words(), end(), used()).replace(b'"model":"up"', b'"model":"up","seed":' + b"9" * 400)),
    "a member twice": Oddity("odd but legal JSON", plain(*words(), end(), used()).replace(b'"content":"Hello"', b'"content":"Bye","content":"Hello"')),
    "more behind the object": Oddity("proxies that append", plain(*words(), end(), used()).replace(b'"up"}\n', b'"up"}x\n').replace(b"}]}\n\n", b"}]}  ;\n\n", 1)),
}  # fmt: skip

NATIVE = {
    "Ollama's own protocol": Oddity("Ollama's /api/chat (huggingface/chat-ui#1744)", b'{"model":"up","created_at":"2026-01-01T00:00:00Z","message":{"role":"assistant","content":"Hello"},"done":false}\n{"model":"up","message":{"role":"assistant","content":" there"},"done":false}\n{"model":"up","message":{"role":"assistant","content":""},"done":true,"done_reason":"stop","prompt_eval_count":9,"eval_count":3}\n'),
    "chunks as JSON lines": Oddity("LitServe (Lightning-AI/LitServe#359)", b"".join(json.dumps(c).encode() + b"\n" for c in (*words(), end(), used()))),
    "one complete answer": Oddity("servers that cannot stream", json.dumps(bare([{"index": 0, "message": {"role": "assistant", "content": TEXT}, "finish_reason": "stop"}], object="chat.completion", usage=USED)).encode()),
    "one complete answer, pretty": Oddity("servers that cannot stream", json.dumps(bare([{"index": 0, "message": {"role": "assistant", "content": TEXT}, "finish_reason": "stop"}], object="chat.completion", usage=USED), indent=2).encode() + b"\n"),
    "one complete answer and an end marker": Oddity("decolua/9router#3492", json.dumps(bare([{"index": 0, "message": {"role": "assistant", "content": TEXT}, "finish_reason": "stop"}], object="chat.completion", usage=USED)).encode() + b"\n\ndata: [DONE]\n\n"),
}  # fmt: skip

KINDS = {
    "finish": FINISH, "shape": SHAPES, "message": MESSAGES, "call": CALLS, "usage": USAGES, "error": ERRORS, "text": TEXTS, "native": NATIVE,
}  # fmt: skip
ALL = {f"{kind}: {name}": oddity for kind, listed in KINDS.items() for name, oddity in listed.items()}  # fmt: skip
assert USAGE == USED
