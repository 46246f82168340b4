"""The AI surface in Flask: the inference routes (also reached through `front`), models, stored responses."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from urllib.parse import quote
from uuid import UUID

import orjson
from flask import Blueprint, Response, current_app, request
from werkzeug.exceptions import MethodNotAllowed

from dwctl.access import guard
from dwctl.ai import (
    admission,
    bodies,
    counting,
    estimating,
    front,
    input_items,
    resuming,
    retrieval,
)
from dwctl.ai.bookkeeping import record_of_listing
from dwctl.ai.calls import JSON, Answer, Stamp
from dwctl.ai.gateway import Gateway
from dwctl.ai.holdings import Kind
from dwctl.ai.lifecycle import REQUEST_ID
from dwctl.catalog.routing import Model
from dwctl.errors import DwctlError, NotFound
from dwctl.identity import authentication
from dwctl.protocols.forwarded import Forwarded, may_be_forwarded
from dwctl.protocols.surfaces import RESPONSES, SURFACES, Listing, Surface

blueprint = Blueprint("ai", __name__)
_LISTING = Listing()
_UNQUOTED = "/-._~!$&'()*+,=:@"

guard.open_to_all(blueprint, reason="inference takes API keys, and looks at them itself")


def gateway() -> Gateway:
    """The gateway of this process."""
    found: Gateway = current_app.extensions["dwctl.gateway"]
    if not found.started:
        found.start()
    return found


def _declare(surface: Surface) -> Callable[[], Response]:
    def infer() -> Response:
        answer = front.respond(gateway(), request.environ, surface)
        return Response(answer.body, answer.status, answer.headers)

    infer.__name__ = f"create_{surface.name}"
    infer.__doc__ = f"POST /{surface.path}: see `lifecycle.answer`."
    return infer


for _surface in SURFACES.values():
    blueprint.add_url_rule(f"/{_surface.path}", view_func=_declare(_surface), methods=["POST"])


@blueprint.get("/models")
def list_models() -> Response:
    """The models that the key may call, by alias."""
    stamp, here = Stamp.now(), gateway()
    key = admission.authenticate(here.snapshot, request.headers.get("Authorization"))
    found = listing(key.owner_id)
    incoming = front.incoming_of(here, request.environ, _LISTING)
    answer = Answer(found.status_code, [JSON], found.get_data())
    shown = here.request_log.of_untracked(stamp.id, incoming, key, b"", {}, answer)
    here.recorder.note(record_of_listing(stamp, incoming, key, shown))
    found.headers[REQUEST_ID] = str(stamp.id)
    return found


def listing(owner_id: UUID) -> Response:
    """OpenAI's list of the models that an account may call."""
    models = gateway().snapshot.routing.visible_to(owner_id)
    return _json({"object": "list", "data": [_model(model) for model in models]})


@blueprint.get("/models/<path:alias>")
def get_model(alias: str) -> Response:
    """One model; 404 also for one that the key may not call."""
    here = gateway()
    key = admission.authenticate(here.snapshot, request.headers.get("Authorization"))
    routing = here.snapshot.routing
    model = routing.models.get(alias)
    if model is None or not routing.may_use(key.owner_id, model):
        raise NotFound(
            f"The model `{alias}` does not exist or you do not have access to it.",
            code="model_not_found",
        )
    return _json(_model(model))


@blueprint.get("/responses/<response_id>")
def get_response(response_id: str) -> Response:
    """A stored response of the caller's account, by any of its keys, its session or the trusted header; with `stream`, as its events."""
    owners = _owners()
    with _nothing_is_missing():
        if request.args.get("stream", "").lower() in ("true", "1"):
            return _resumed(response_id, owners)
        return _json(retrieval.fetch(gateway().connections, response_id, owners))


@blueprint.post("/responses/input_tokens")
def count_input_tokens() -> Response:
    """How many tokens a request's input has, where the model's server can tell."""
    here = gateway()
    key = admission.authenticate(here.snapshot, request.headers.get("Authorization"))
    hold = here.holdings.begin(key.owner_id)
    try:
        hold.take(Kind.REALTIME)
        body = bodies.read(here, front.incoming_of(here, request.environ, RESPONSES), hold)
        counted = here.counting.count(here, counting.admitted_of(here, key, body, hold))
    finally:
        hold.release()
    return _json({"object": "response.input_tokens", "input_tokens": counted})


@blueprint.post("/cost-estimate")
def estimate_call() -> Response:
    """What a call would cost, at least and at most, and for how many like it the balance is enough. Nothing is sent or charged.

    `prompt_tokens` are likely: about four bytes of text each. `most_cost` holds where `is_bounded`: the body says how long an answer may become. Otherwise
    it counts on as many tokens as the model can write, or as a setting says. With a `completion_window` the call is a line of a batch.
    """
    here = gateway()
    key = admission.authenticate(here.snapshot, request.headers.get("Authorization"))
    hold = here.holdings.begin(key.owner_id)
    try:
        hold.take(Kind.REALTIME)
        body = bodies.read(here, front.incoming_of(here, request.environ, RESPONSES), hold)
        found = estimating.estimate(here, key, body, hold)
    finally:
        hold.release()
    return _json(found)


@blueprint.post("/responses/compact")
def compact() -> Response:
    """What only a provider can do with its own models."""
    admission.authenticate(gateway().snapshot, request.headers.get("Authorization"))
    raise DwctlError(
        "Compaction is not supported: send a shorter `input`, or `truncation: auto`.",
        code="not_supported",
        status=404,
    )


@blueprint.get("/responses/<response_id>/input_items")
def list_input_items(response_id: str) -> Response:
    """What went into a stored response, newest first unless `order=asc`."""
    owners = _owners()
    page = input_items.page_of(request.args)
    here = gateway()
    limits = here.settings.responses.history
    with _nothing_is_missing():
        return _json(input_items.list_items(here.connections, response_id, owners, page, limits))


@contextmanager
def _nothing_is_missing() -> Iterator[None]:
    """Raises StillSpooled in place of NotFound while records wait to be written."""
    try:
        yield
    except NotFound:
        if gateway().recorder.is_behind:
            raise retrieval.StillSpooled from None
        raise


@blueprint.post("/responses/<response_id>/cancel")
def cancel_response(response_id: str) -> Response:
    """Stop a response that waits or runs, wherever it does; one that is over is returned unchanged."""
    owners = _owners()
    return _json(retrieval.cancel(gateway().connections, response_id, owners))


@blueprint.delete("/responses/<response_id>")
def delete_response(response_id: str) -> Response:
    """Delete a stored response; its log row and its charge stay."""
    owners = _owners()
    return _json(retrieval.delete(gateway().connections, response_id, owners))


@blueprint.route("/<path:anything>", methods=["GET", "POST", "PUT", "PATCH", "DELETE"])
def unknown(anything: str) -> Response:
    """A route that inference servers may know: handed on in open mode. 405 for one of ours with the wrong method, 404 for the rest."""
    if anything in SURFACES:
        raise MethodNotAllowed(["POST"], "This route takes POST.")
    answer = front.respond(gateway(), request.environ, forwarded(anything))
    return Response(answer.body, answer.status, answer.headers)


def forwarded(path: str) -> Forwarded:
    """This request as one that is handed on. Raises the 404 of a path that nobody serves, or that is not handed on."""
    if gateway().settings.onwards.strict_mode or not may_be_forwarded(path):
        raise DwctlError("Unknown endpoint", code="not_found", status=404)
    query = request.environ.get("QUERY_STRING", "")
    return Forwarded(request.method, quote(path, safe=_UNQUOTED), request.content_type, query)


def _resumed(response_id: str, owners: frozenset[UUID]) -> Response:
    after = resuming.starting_after(request.args.get("starting_after"))
    peer = request.environ.get("gunicorn.socket")
    answer = resuming.answer(gateway(), response_id, owners, after=after, peer=peer)
    return Response(answer.body, answer.status, answer.headers)


def _owners() -> frozenset[UUID]:
    authorization = request.headers.get("Authorization")
    if admission.bearer(authorization) is None:
        caller = authentication.caller_of_session(request)
        if caller is not None:
            return frozenset({caller.user_id, caller.owner_id})
    key = admission.authenticate(gateway().snapshot, authorization)
    authentication.check_purpose(key.purpose, request.path)
    return frozenset({key.owner_id})


def _model(model: Model) -> dict[str, object]:
    created = int(model.created_at.timestamp())
    return {"id": model.alias, "object": "model", "created": created, "owned_by": model.owned_by}


def _json(content: object) -> Response:
    return Response(orjson.dumps(content), mimetype="application/json")
