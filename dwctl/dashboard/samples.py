"""Code that calls a model, for people to copy. Pure."""

from __future__ import annotations

import json
from typing import Any, NamedTuple

from dwctl.dashboard import snippets


class Sample(NamedTuple):
    """One language."""

    label: str
    code: str


def of_model(alias: str, kind: str, base: str) -> list[Sample]:
    """A call of the model by its alias, in each language. kind: CHAT, EMBEDDINGS or RERANKER; base: of the AI API, without a slash at its end."""
    path, body = _CALLS[kind]
    whole = {"model": alias, **body}
    samples = [Sample("curl", snippets.curl("POST", base + path, whole, key=snippets.API_KEY))]
    if kind == "RERANKER":
        # OpenAI's SDKs have no call for it.
        return [
            *samples,
            Sample("Python", snippets.python("POST", base + path, whole, key=snippets.API_KEY)),
        ]
    return [*samples, Sample("Python, OpenAI SDK", _python(whole, kind, base)), Sample("JavaScript, OpenAI SDK", _javascript(whole, kind, base))]  # fmt: skip


_CALLS: dict[str, tuple[str, dict[str, Any]]] = {
    "CHAT": (
        "/chat/completions",
        {"messages": [{"role": "user", "content": "Say hello in five words."}]},
    ),
    "EMBEDDINGS": ("/embeddings", {"input": "The quick brown fox"}),
    "RERANKER": (
        "/rerank",
        {"query": "Where do pandas live?", "documents": ["In China.", "In the sea."]},
    ),
}
_PYTHON = """import os
from openai import OpenAI

client = OpenAI(base_url={base}, api_key=os.environ["{key}"])
{call}"""
_JAVASCRIPT = """import OpenAI from "openai";

const client = new OpenAI({{ baseURL: {base}, apiKey: process.env.{key} }});
{call}"""


def _python(body: dict[str, Any], kind: str, base: str) -> str:
    # The bodies have texts, lists and objects only, which Python writes as JSON does.
    arguments = ", ".join(f"{name}={_quoted(value)}" for name, value in body.items())
    if kind == "CHAT":
        call = f"answer = client.chat.completions.create({arguments})\nprint(answer.choices[0].message.content)"
    else:
        call = f'answer = client.embeddings.create({arguments})\nprint(len(answer.data[0].embedding), "numbers")'
    return _PYTHON.format(base=_quoted(base), key=snippets.API_KEY, call=call)


def _javascript(body: dict[str, Any], kind: str, base: str) -> str:
    if kind == "CHAT":
        call = f"const answer = await client.chat.completions.create({_quoted(body)});\nconsole.log(answer.choices[0].message.content);"
    else:
        call = f"const answer = await client.embeddings.create({_quoted(body)});\nconsole.log(answer.data[0].embedding.length);"
    return _JAVASCRIPT.format(base=_quoted(base), key=snippets.API_KEY, call=call)


def _quoted(value: Any) -> str:
    return json.dumps(value)
