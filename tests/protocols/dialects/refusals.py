"""Error answers as servers in the field send them: status and body, and what they mean for the caller."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

TOO_LONG = "context_length_exceeded"


@dataclass(frozen=True)
class Refusal:
    """status: what the caller sees. code: of the error that it sees where the upstream's words are hidden."""

    source: str
    given: int
    body: bytes
    status: int
    code: str


def says(message: str, given: int = 400, source: str = "", **more: Any) -> Refusal:
    """A context that is too long, told in OpenAI's envelope."""
    body = {"error": {"message": message, "type": "invalid_request_error", **more}}
    return Refusal(source, given, json.dumps(body).encode(), 400, TOO_LONG)


def flat(message: str, given: int, source: str, **more: Any) -> Refusal:
    body = {"message": message, **more}
    return Refusal(source, given, json.dumps(body).encode(), 400, TOO_LONG)


def other(source: str, given: int, body: Any, status: int, code: str) -> Refusal:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return Refusal(source, given, raw, status, code)


CONTEXT = {
    "OpenAI": says("This model's maximum context length is 8192 tokens. However, your messages resulted in 9000 tokens. Please reduce the length of the messages.", code=TOO_LONG, param="messages"),
    "OpenAI's newer models": says("Your input exceeds the context window of this model. Please adjust your input and try again.", code=TOO_LONG, param="input"),
    "vLLM": flat("This model's maximum context length is 16384 tokens. However, you requested 122946 tokens (112946 in the messages, 10000 in the completion). Please reduce the length of the messages or completion.", 400, "vllm-project/vllm#20409", object="error", type="BadRequestError", param=None, code=400),
    "vLLM's prompt": says("The prompt (total length 25938) is too long to fit into the model (context length 4096). Make sure that `max_model_len` is no smaller than the number of text tokens plus multimodal tokens.", source="vllm-project/vllm#12165", code=400),
    "vLLM's decoder": says("The decoder prompt (length 9000) is longer than the maximum model length of 8192.", source="vLLM", code=400),
    "SGLang": flat("The input (9000 tokens) is longer than the model's context length (8192 tokens).", 400, "SGLang", object="error", type="BadRequestError", code=400),
    "SGLang's completion": says("Requested token count exceeds the model's maximum context length of 8192 tokens. You requested a total of 9000 tokens.", source="SGLang", code=400),
    "llama.cpp": says("the request exceeds the available context size. try increasing the context size or enable context shift", source="llama.cpp", type="exceed_context_size_error", code=400),
    "llama.cpp of today": says("request (6009 tokens) exceeds the available context size (4096 tokens), try increasing it", source="lemonade-sdk/lemonade#2975", type="exceed_context_size_error", n_prompt_tokens=6009, n_ctx=4096, code=400),
    "llama-cpp-python": says("Requested tokens (9000) exceed context window of 8192", source="abetlen/llama-cpp-python#416", code=None),
    "TGI": other("Text Generation Inference", 422, {"error": "Input validation error: `inputs` tokens + `max_new_tokens` must be <= 4096. Given: 4000 `inputs` tokens and 500 `max_new_tokens`", "error_type": "validation"}, 400, TOO_LONG),
    "Ollama": says("prompt is too long: 9000 tokens exceeds the context length", source="Ollama"),
    "LM Studio": other("LM Studio", 400, {"error": "Trying to keep the first 5000 tokens when context the overflows. However, the model is loaded with context length of only 4096 tokens, which is not enough."}, 400, TOO_LONG),
    "Mistral": flat("Prompt contains 40000 tokens and 0 draft tokens, too large for model with 32768 maximum context length", 400, "Mistral", object="error", type="invalid_request_prompt", code="3051"),
    "Anthropic": says("prompt is too long: 1284668 tokens > 1000000 maximum", source="dcdpr/jp#978"),
    "Gemini": other("Gemini", 400, [{"error": {"code": 400, "message": "The input token count (1200000) exceeds the maximum number of tokens allowed (1048576).", "status": "INVALID_ARGUMENT"}}], 400, TOO_LONG),
    "Groq": says("Please reduce the length of the messages or completion.", source="Groq", code=TOO_LONG, param="messages"),
    "Together": says("The input plus max new tokens length must be less than the model's context length: `inputs` tokens + `max_new_tokens` must be <= 8193.", given=422, source="Together"),
    "Fireworks": says("The prompt is too long: 9000, model maximum context length: 8191", source="Fireworks"),
    "DeepSeek": says("This model's maximum context length is 65536 tokens. However, you requested 70000 tokens (66000 in the messages, 4000 in the completion).", source="DeepSeek", code="invalid_request_error"),
    "Moonshot": says("Invalid request: Your request exceeded model token limit: 131072", source="Moonshot's Kimi"),
    "xAI": says("This model's maximum prompt length is 131072 but the request contains 140000 tokens.", source="xAI"),
    "OpenRouter": says("This endpoint's maximum context length is 131072 tokens. However, you requested about 140000 tokens.", source="OpenRouter", code=400),
    "Bedrock": flat("Input is too long for requested model.", 400, "AWS Bedrock", __type="ValidationException"),
    "Cohere": flat("too many tokens: size limit exceeded by 1200 tokens. Try using shorter or fewer inputs, or setting prompt_truncation='AUTO'.", 400, "Cohere"),
    "a body too large": says("Request too large: the prompt length exceeds the context", given=413, source="proxies"),
}  # fmt: skip

OTHERS = {
    "a page": other("nginx", 502, b"<html><head><title>502 Bad Gateway</title></head><body>x</body></html>", 502, "http_502"),
    "a page with 404": other("a wrong base URL", 404, b"<!DOCTYPE html><html>Not found</html>", 404, "http_404"),
    "nothing": other("a load balancer", 503, b"", 503, "http_503"),
    "words": other("Envoy", 503, b"upstream connect error or disconnect/reset before headers", 503, "http_503"),
    "a list": other("Gemini", 429, [{"error": {"code": 429, "message": "Quota exceeded", "status": "RESOURCE_EXHAUSTED"}}], 429, "http_429"),
    "a text": other("home-made servers", 400, '"bad"', 400, "http_400"),
    "FastAPI's problems": other("FastAPI", 422, {"detail": [{"loc": ["body", "messages"], "msg": "field required", "type": "value_error.missing"}]}, 422, "http_422"),
    "an error null": other("home-made servers", 500, {"error": None}, 500, "http_500"),
    "cut": other("a process that died", 500, b'{"error":{"message":"no', 500, "http_500"),
    "odd JSON": other("home-made servers", 400, b'{"error":{"message":"no \\ud800","code":NaN}}', 400, "http_400"),
    "our key refused": other("anybody", 401, {"error": {"message": "Incorrect API key provided: sk-ours", "code": "invalid_api_key"}}, 502, "http_502"),
    "our account is empty": other("DeepSeek", 402, {"error": {"message": "Insufficient Balance", "type": "unknown_error", "code": "invalid_request_error"}}, 502, "http_502"),
}  # fmt: skip
