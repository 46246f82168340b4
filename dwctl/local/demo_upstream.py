"""A small OpenAI-compatible server, for trying dwctl out without a provider's key.

It speaks chat completions (with streams, tools and JSON schemas), completions, embeddings and the
list of models. It repeats what it hears: the same request gets the same answer, byte for byte.
Words count as tokens.
"""

import base64
import hashlib
import json
import math
import re
import signal
import struct
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import gevent
from flask import Flask, Response, request
from gevent.pywsgi import WSGIServer
from werkzeug.exceptions import HTTPException

from dwctl.local.schema_example import example_of

CHAT_MODEL = "demo-chat"
EMBEDDING_MODEL = "demo-embed"
CREATED = 1_767_225_600  # 2026-01-01; the time of day would make answers differ
WORD_GAP_S = 0.02
ROLES = ("system", "developer", "user", "assistant", "tool", "function")
PLACES = ("location", "city", "place")
MAX_QUOTED_CHARS = 200
MAX_CHOICES = 8
MAX_DIMENSIONS = 4096
DEFAULT_DIMENSIONS = 16

JSON = dict[str, Any]

app = Flask(__name__, static_folder=None)


def main(port: int) -> None:
    """Serve on 127.0.0.1 until SIGTERM or SIGINT."""
    server = WSGIServer(("127.0.0.1", port), app, log=None)
    for number in (signal.SIGINT, signal.SIGTERM):
        gevent.signal_handler(number, server.stop)
    server.serve_forever()


class RefusedError(Exception):
    """A request whose answer is an error in OpenAI's shape."""

    def __init__(
        self, message: str, param: str | None = None, *, status: int = 400, code: str | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.body = {
            "error": {
                "message": message,
                "type": "invalid_request_error",
                "param": param,
                "code": code,
            }
        }


@app.errorhandler(RefusedError)
def _refused(error: RefusedError) -> Response:
    return _json(error.body, error.status)


@app.errorhandler(HTTPException)
def _not_served(error: HTTPException) -> Response:
    text = f"{error.name}: {request.method} {request.path}"
    return _refused(RefusedError(text, status=error.code or 500))


# Routes


@app.get("/v1/models")
def list_models() -> Response:
    models = [_model(name) for name in (CHAT_MODEL, EMBEDDING_MODEL)]
    return _json({"object": "list", "data": models})


@app.get("/v1/models/<name>")
def show_model(name: str) -> Response:
    _require_model(name, CHAT_MODEL, EMBEDDING_MODEL)
    return _json(_model(name))


@app.post("/v1/chat/completions")
def create_chat_completion() -> Response:
    body = _body(CHAT_MODEL)
    messages = _messages(body)
    answers = [_chat_answer(body, messages)] * _count(body, "n", MAX_CHOICES, default=1)
    heard = sum(_word_count(_text_of(message.get("content"))) for message in messages)
    head, usage = _head(body, "chatcmpl", "chat.completion"), _usage(heard, answers)
    if body.get("stream"):
        head["object"] = "chat.completion.chunk"
        return _stream(head, _deltas(answers), usage if _wants_usage(body) else None)
    choices = [answer.as_choice(index) for index, answer in enumerate(answers)]
    return _json({**head, "choices": choices, "usage": usage})


@app.post("/v1/completions")
def create_completion() -> Response:
    body = _body(CHAT_MODEL)
    prompts = [_as_text(prompt) for prompt in _inputs(body, "prompt")]
    copies = _count(body, "n", MAX_CHOICES, default=1)
    answers = [_cut(body, _reply(prompt)) for prompt in prompts for _ in range(copies)]
    usage = _usage(sum(map(_word_count, prompts)), answers)
    head = _head(body, "cmpl", "text_completion")
    if body.get("stream"):
        return _stream(head, _texts(answers), usage if _wants_usage(body) else None)
    choices = [_text_choice(i, each.text, each.finish_reason) for i, each in enumerate(answers)]
    return _json({**head, "choices": choices, "usage": usage})


@app.post("/v1/embeddings")
def create_embeddings() -> Response:
    body = _body(EMBEDDING_MODEL)
    texts = [_as_text(text) for text in _inputs(body, "input")]
    size = _count(body, "dimensions", MAX_DIMENSIONS, default=DEFAULT_DIMENSIONS)
    encoding = body.get("encoding_format", "float")
    if encoding not in ("float", "base64"):
        raise RefusedError("encoding_format must be 'float' or 'base64'.", "encoding_format")
    vectors = (_vector(text, size) for text in texts)
    data = [
        {"object": "embedding", "index": index, "embedding": _encoded(vector, encoding)}
        for index, vector in enumerate(vectors)
    ]
    heard = sum(map(_word_count, texts))
    usage = {"prompt_tokens": heard, "total_tokens": heard}
    return _json({"object": "list", "model": EMBEDDING_MODEL, "data": data, "usage": usage})


# What comes in


def _body(*models: str) -> JSON:
    """The request's body, for one of these models."""
    try:
        body = json.loads(request.get_data())
    except ValueError as error:
        raise RefusedError("We could not parse the JSON body of your request.") from error
    if not isinstance(body, dict):
        raise RefusedError("The body must be a JSON object.")
    _require_model(body.get("model"), *models)
    return body


def _require_model(name: Any, *models: str) -> None:
    if not isinstance(name, str) or not name:
        raise RefusedError("You must provide a model parameter.", "model")
    if name not in models:
        raise RefusedError(
            f"The model `{name}` does not exist here or does not do this; try `{models[0]}`.",
            "model",
            status=404,
            code="model_not_found",
        )


def _messages(body: JSON) -> list[JSON]:
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages:
        raise RefusedError("messages must be a list that is not empty.", "messages")
    for index, message in enumerate(messages):
        where = f"messages[{index}]"
        if not isinstance(message, dict):
            raise RefusedError(f"{where} must be an object.", where)
        if message.get("role") not in ROLES:
            raise RefusedError(f"{where}.role must be one of {', '.join(ROLES)}.", f"{where}.role")
        if not isinstance(message.get("content"), str | list | None):
            raise RefusedError(f"{where}.content must be text or parts.", f"{where}.content")
    return messages


def _inputs(body: JSON, name: str) -> list[Any]:
    """Each text, or each list of token numbers, of a field that may hold one or many."""
    value: Any = body.get(name)
    if isinstance(value, str) or (_is_list_of(int, value)):
        value = [value]
    if not (_is_list_of(str, value) or _is_list_of(list, value)) or not all(value):
        raise RefusedError(f"{name} must be text, or a list of texts, and not empty.", name)
    return list(value)


def _is_list_of(kind: type, value: Any) -> bool:
    return isinstance(value, list) and value != [] and all(isinstance(each, kind) for each in value)


def _count(body: JSON, name: str, most: int, *, default: int) -> int:
    """A whole number from 1 to `most`."""
    value = default if body.get(name) is None else body[name]
    if type(value) is not int or not 1 <= value <= most:
        raise RefusedError(f"{name} must be a whole number from 1 to {most}.", name)
    return value


def _text_of(content: Any) -> str:
    """The text of a message's content, which may come in parts."""
    if isinstance(content, str):
        return content
    parts = [part for part in content or () if isinstance(part, dict)]
    return " ".join(str(part["text"]) for part in parts if part.get("text"))


def _as_text(value: Any) -> str:
    return value if isinstance(value, str) else " ".join(str(token) for token in value)


def _word_count(text: str) -> int:
    return len(text.split())


# What is answered


@dataclass(frozen=True, slots=True)
class Answer:
    """What the model says: a text, or a call of one tool with JSON text for arguments."""

    text: str
    finish_reason: str = "stop"
    tool_name: str | None = None

    @property
    def pieces(self) -> list[str]:
        """The text word by word; joined they are the text again."""
        return re.findall(r"\s*\S+|\s+$", self.text)

    def as_choice(self, index: int) -> JSON:
        message: JSON = {"role": "assistant", "content": self.text, "refusal": None}
        if self.tool_name is not None:
            function = {"name": self.tool_name, "arguments": self.text}
            call = {"id": _id("call"), "type": "function", "function": function}
            message |= {"content": None, "tool_calls": [call]}
        return {
            "index": index,
            "message": message,
            "logprobs": None,
            "finish_reason": self.finish_reason,
        }


def _chat_answer(body: JSON, messages: list[JSON]) -> Answer:
    last = messages[-1]
    spoken = [message for message in messages if message["role"] == "user"]
    heard = _text_of(spoken[-1].get("content")) if spoken else ""
    if last["role"] == "tool":
        return _cut(body, f"The tool answered: {_quoted(_text_of(last.get('content')))}")
    if tool := _tool_to_call(body, heard):
        return Answer(json.dumps(_arguments(tool, heard)), "tool_calls", tool["name"])
    response_format = body.get("response_format")
    kind = response_format.get("type") if isinstance(response_format, dict) else None
    if kind == "json_schema":
        return _cut(body, json.dumps(example_of(_response_schema(body))))
    if kind == "json_object":
        return _cut(body, json.dumps({"answer": _reply(heard)}, ensure_ascii=False))
    return _cut(body, _reply(heard))


def _reply(heard: str) -> str:
    if not heard.strip():
        return "Hello! I am dwctl's demo model. Say something, and I will repeat it."
    return f'You said: "{_quoted(heard)}". I am dwctl\'s demo model: I repeat what I hear.'


def _quoted(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= MAX_QUOTED_CHARS else text[:MAX_QUOTED_CHARS] + "..."


def _cut(body: JSON, text: str) -> Answer:
    """Keep to the number of tokens that the request allows."""
    name = "max_completion_tokens" if body.get("max_completion_tokens") else "max_tokens"
    whole = Answer(text)
    limit = _count(body, name, sys.maxsize, default=sys.maxsize)
    if len(whole.pieces) <= limit:
        return whole
    return Answer("".join(whole.pieces[:limit]), "length")


def _response_schema(body: JSON) -> Any:
    described = body["response_format"].get("json_schema")
    schema = described.get("schema") if isinstance(described, dict) else None
    if not isinstance(schema, dict):
        raise RefusedError("A JSON schema is missing.", "response_format.json_schema.schema")
    return schema


def _tool_to_call(body: JSON, heard: str) -> JSON | None:
    """The function to call: one that tool_choice asks for, or any when the talk is of the weather."""
    functions = _functions(body)
    choice = body.get("tool_choice", "auto")
    if isinstance(choice, dict):
        wanted = choice.get("function")
        name = wanted.get("name") if isinstance(wanted, dict) else None
        named = [function for function in functions if function["name"] == name]
        if not named:
            raise RefusedError("tool_choice names a function that is not in tools.", "tool_choice")
        return named[0]
    wanted_now = choice == "required" or (choice != "none" and "weather" in heard.lower())
    if not functions or not wanted_now:
        return None
    return next((each for each in functions if "weather" in each["name"].lower()), functions[0])


def _functions(body: JSON) -> list[JSON]:
    tools = body.get("tools") or []
    if not isinstance(tools, list):
        raise RefusedError("tools must be a list.", "tools")
    functions = []
    for index, tool in enumerate(tools):
        if not isinstance(tool, dict) or tool.get("type") != "function":
            continue
        function = tool.get("function")
        if not isinstance(function, dict) or not isinstance(function.get("name"), str):
            raise RefusedError("A function needs a name.", f"tools[{index}].function.name")
        functions.append(function)
    return functions


def _arguments(function: JSON, heard: str) -> JSON:
    """What fits the function's parameters, with the place that was spoken of."""
    parameters = function.get("parameters")
    if not isinstance(parameters, dict):
        return {}
    arguments = example_of({"type": "object", **parameters})
    place = re.search(r"\b(?:in|at|for) ([A-Z][\w'-]*(?: [A-Z][\w'-]*)*)", heard)
    properties = parameters.get("properties")
    for name in PLACES:
        known = properties.get(name) if isinstance(properties, dict) else None
        if isinstance(known, dict) and known.get("type") == "string" and "enum" not in known:
            arguments[name] = place[1] if place else "Oslo"
    return dict(arguments)


# What goes out


def _json(body: JSON, status: int = 200) -> Response:
    return Response(_dumped(body), status=status, mimetype="application/json")


def _dumped(body: JSON) -> bytes:
    """Readable JSON; half a surrogate pair, which UTF-8 cannot say, stays escaped."""
    return json.dumps(body, ensure_ascii=False).encode(errors="backslashreplace")


def _model(name: str) -> JSON:
    return {"id": name, "object": "model", "created": CREATED, "owned_by": "dwctl-demo"}


def _id(prefix: str) -> str:
    """An id that looks random, yet is the same for the same request."""
    return f"{prefix}-{hashlib.sha256(prefix.encode() + request.get_data()).hexdigest()[:24]}"


def _head(body: JSON, prefix: str, kind: str) -> JSON:
    return {"id": _id(prefix), "object": kind, "created": CREATED, "model": body["model"]}


def _usage(heard: int, answers: list[Answer]) -> JSON:
    said = sum(len(answer.pieces) for answer in answers)
    return {"prompt_tokens": heard, "completion_tokens": said, "total_tokens": heard + said}


def _wants_usage(body: JSON) -> bool:
    options = body.get("stream_options")
    return isinstance(options, dict) and bool(options.get("include_usage"))


def _stream(head: JSON, choices: Iterable[JSON], usage: JSON | None) -> Response:
    """Send each choice as an event, and the usage, if it was asked for, in one of its own."""

    def events() -> Iterator[bytes]:
        usage_later = {"usage": None} if usage else {}
        for choice in choices:
            yield _event({**head, "choices": [choice], **usage_later})
            gevent.sleep(WORD_GAP_S)
        if usage:
            yield _event({**head, "choices": [], "usage": usage})
        yield b"data: [DONE]\n\n"

    return Response(events(), mimetype="text/event-stream", headers={"Cache-Control": "no-cache"})


def _event(body: JSON) -> bytes:
    return b"data: " + _dumped(body) + b"\n\n"


def _deltas(answers: list[Answer]) -> list[JSON]:
    """The events of a streamed chat: the role, the words, the reason why it ends."""
    frames: list[tuple[int, JSON, str | None]] = []
    for index, answer in enumerate(answers):
        if answer.tool_name is None:
            opening: JSON = {"role": "assistant", "content": "", "refusal": None}
            words: list[JSON] = [{"content": piece} for piece in answer.pieces]
        else:
            call = {"index": 0, "id": _id("call"), "type": "function"}
            function = {"name": answer.tool_name, "arguments": ""}
            tool_calls = [{**call, "function": function}]
            opening = {"role": "assistant", "content": None, "tool_calls": tool_calls}
            words = [
                {"tool_calls": [{"index": 0, "function": {"arguments": piece}}]}
                for piece in answer.pieces
            ]
        frames += [(index, delta, None) for delta in (opening, *words)]
        frames.append((index, {}, answer.finish_reason))
    return [
        {"index": index, "delta": delta, "logprobs": None, "finish_reason": reason}
        for index, delta, reason in frames
    ]


def _texts(answers: list[Answer]) -> Iterator[JSON]:
    """The events of a streamed completion; the last word's says why it ends."""
    for index, answer in enumerate(answers):
        *words, last = answer.pieces
        for word in words:
            yield _text_choice(index, word, None)
        yield _text_choice(index, last, answer.finish_reason)


def _text_choice(index: int, text: str, reason: str | None) -> JSON:
    return {"index": index, "text": text, "logprobs": None, "finish_reason": reason}


def _vector(text: str, size: int) -> list[float]:
    """A vector of length 1 that depends on the text alone, in the precision that base64 carries."""
    digests = (
        hashlib.sha256(f"{block}:{text}".encode("utf-8", "surrogatepass")).digest()
        for block in range(math.ceil(size / 8))
    )
    numbers = [number for digest in digests for number in struct.unpack("<8i", digest)][:size]
    length = math.hypot(*numbers) or 1.0
    return list(
        struct.unpack(f"<{size}f", struct.pack(f"<{size}f", *(n / length for n in numbers)))
    )


def _encoded(vector: list[float], encoding: str) -> list[float] | str:
    if encoding == "float":
        return vector
    return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()


if __name__ == "__main__":
    main(int(sys.argv[1]))
