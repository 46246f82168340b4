"""What every page has in common: who sees it, its frame, its headers, and what it shows where something went wrong."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial, wraps
from typing import Any
from urllib.parse import quote, urlencode

import orjson
import psycopg
from flask import (
    Blueprint,
    Flask,
    Response,
    g,
    make_response,
    redirect,
    render_template,
    request,
    url_for,
)
from marshmallow import ValidationError
from sqlalchemy.exc import DBAPIError
from werkzeug.wrappers import Response as AnyResponse

from dwctl import __version__, clock, waits
from dwctl.access import guard
from dwctl.access.caller import Caller
from dwctl.dashboard import (
    addresses,
    assets,
    csrf,
    doors,
    formatting,
    forms,
    navigation,
    ranges,
    zones,
)
from dwctl.db import DatabaseAway, db
from dwctl.web import current, errors

PATIENCE_S = 6.0
"""How long a page that only reads waits for the database in all, before it says that there is no answer."""
_THEMES = ("light", "dark")
_SAFE = "!$'()*,/:;?@"
"""What stays as it is in a query."""
_PROGRAMS = ("ai", "admin", "authentication", "assets", "internal")
"""Where no people read."""
_WORDS = {
    400: "That address or form has something in it that cannot be used",
    403: "You may not see this",
    404: "There is nothing here",
    405: "This address is for forms, not for reading",
    409: "This is in the way of something else",
    429: "Too much at once",
    503: "This cannot be shown right now",
}


class _Screen(Blueprint):
    """Its views are run once more where the connection to the database breaks under one that only reads."""

    def add_url_rule(self, rule: str, endpoint: str | None = None, view_func: Any = None, **options: Any) -> None:  # type: ignore[override]  # fmt: skip
        super().add_url_rule(rule, endpoint, view_func and _read_again(view_func), **options)


def screen(name: str, *, open_because: str = "") -> Blueprint:
    """A blueprint for the pages of one screen: the caller is known, forms bear a token, errors are pages.

    `open_because`: a reason for which these pages need no sign-in; their forms then bear no token, and are taken from our own pages alone.
    """
    blueprint = _Screen(f"ui_{name}", __name__, template_folder="templates")
    # First of all: the sign-in asks the database, too.
    blueprint.before_request(_be_patient)
    if open_because:
        guard.open_to_all(blueprint, reason=open_because)
        blueprint.before_request(csrf.refuse_foreign)
    else:
        blueprint.before_request(_read_again(_know_caller))
        guard.protect(blueprint)
        blueprint.before_request(csrf.insist)
    blueprint.before_request(_insist_on_assets)
    blueprint.after_request(_error_as_page)
    blueprint.register_error_handler(ValidationError, _as_invalid)
    return blueprint


def init_app(app: Flask) -> None:
    """Filters and functions that templates use."""
    app.jinja_env.filters.update(formatting.FILTERS)
    app.jinja_env.globals.update(
        asset=assets.asset,
        here=here,
        csrf_field=csrf.FIELD,
        change=formatting.change,
        doors=doors,
    )
    app.jinja_env.trim_blocks = app.jinja_env.lstrip_blocks = True
    app.after_request(_unknown_as_page)
    # (What is registered first is run last: connections have been given back.)
    app.teardown_appcontext(_wait_again)


def render(
    template: str, *, title: str, fragment: str | None = None, status: int = 200, **shown: Any
) -> Response:
    """A page: `template` extends `base.html`. Where htmx asks for a part of it, the template `fragment` alone.

    `title` is the page's name, for the window and its heading. All times on it are in the reader's zone; `as_of` is when it was made.
    """
    name = fragment if fragment and is_partial() else template
    return answer(render_template(name, title=title, **frame(), **shown), status)


def answer_part(template: str, **shown: Any) -> Response:
    """A part of a page alone, for htmx."""
    return answer(render_template(template, **frame(), **shown))


def answer(html: str, status: int = 200) -> Response:
    """The HTML as an answer: kept by nobody, framed by nobody, with nothing but our own scripts and styles."""
    response = make_response(html, status)
    response.mimetype = "text/html"
    response.headers["Content-Security-Policy"] = assets.POLICY
    response.headers["X-Frame-Options"] = "DENY"
    # Without a referrer for our own, a form would be sent with `Origin: null`, as if from a foreign page.
    response.headers["Referrer-Policy"] = "same-origin"
    response.headers["Cache-Control"] = "no-store"
    response.headers["Vary"] = "HX-Request, Cookie"
    return response


def done(where: str, said: str | None = None) -> AnyResponse:
    """After a change: go on at this address (303), where a notice says what was done."""
    response = redirect(where, 303)
    if said:
        response.set_cookie("dw_notice", quote(said[:300]), max_age=60, samesite="Lax", path="/")
    return response


def is_partial() -> bool:
    """Whether htmx asks for a part of the page."""
    said = request.headers.get
    return said("HX-Request") == "true" and said("HX-Request-Type") == "partial"


def here(**changes: Any) -> str:
    """The page's address with other parameters: None takes one away. The cursor goes where anything else changes."""
    where, given = g.get("page") or (_path_here(), request.args.to_dict(flat=False))
    values = {name: value for name, value in given.items() if name != "after"} | changes
    kept = {name: value for name, value in values.items() if value not in (None, "", [])}
    # (Not `url_for`, which takes `_external` and its like for itself: parameters are whatever somebody wrote.)
    return f"{where}?{urlencode(kept, doseq=True, safe=_SAFE)}" if kept else where


def stands_at(url: str, **parameters: str | None) -> None:
    """Where the page is that a refused form comes back to: its links lead on from there, as nothing is had from where the form was sent."""
    if request.method == "POST":
        g.page = (url, parameters)


def _path_here() -> str:
    if "path_here" not in g:
        assert request.endpoint is not None
        g.path_here = url_for(request.endpoint, **(request.view_args or {}))
    path: str = g.path_here
    return path


def frame() -> dict[str, Any]:
    """What `base.html` needs."""
    caller: Caller | None = g.get("caller")
    settings = current.settings()
    theme = request.cookies.get("dw_theme")
    return {
        "caller": caller,
        # (A part of a page has none.)
        "navigation": partial(navigation.visible, caller) if caller else list,
        "csrf_token": csrf.token() if caller else "",
        "theme": theme if theme in _THEMES else "",
        "density": "compact" if request.cookies.get("dw_density") == "compact" else "",
        "zone": zones.zone().key,
        "product": settings.metadata.title,
        "version": __version__,
        "organization": settings.metadata.organization,
        "as_of": clock.now(),
        "presets": ranges.PRESETS,
    }


def _read_again(view: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(view)
    def shown(**path: Any) -> Any:
        try:
            return view(**path)
        except (DatabaseAway, DBAPIError) as error:
            if not (_only_reads() and _has_broken(error)) or waits.has_given_up():
                raise
        db.session.remove()
        return view(**path)

    return shown


def _know_caller() -> None:
    guard.identify()


def _has_broken(error: DatabaseAway | DBAPIError) -> bool:
    """Whether a connection has broken that was there; not whether there was none to be had."""
    if isinstance(error, DBAPIError):
        return error.connection_invalidated
    return isinstance(error.__cause__, psycopg.Error)


def _only_reads() -> bool:
    return request.method in ("GET", "HEAD")


def _be_patient() -> None:
    if _only_reads():
        waits.give_up_after(PATIENCE_S)


def _wait_again(_error: BaseException | None) -> None:
    waits.give_up_after(None)


def _insist_on_assets() -> Response | None:
    missing = assets.missing()
    if not missing:
        return None
    text = f"The dashboard's files are not all there ({', '.join(missing)}). Bring them with: dwctl assets fetch\n"
    return Response(text, 503, mimetype="text/plain")


def _as_invalid(error: ValidationError) -> Response:
    """A form of ours that does not hold its own schema: shown where no field of the page took it up."""
    message = errors.first_problem(forms.messages_of(error)) or "Invalid"
    body = orjson.dumps({"code": "invalid_request", "message": message})
    return Response(body, 422, mimetype="application/json")


def _error_as_page(response: Response) -> AnyResponse:
    """Errors are made as JSON, in one place for everything (`web.errors`); people get the same words as a page."""
    if response.status_code < 400 or response.mimetype != "application/json":
        return response
    error = orjson.loads(response.get_data() or b"{}")
    if response.status_code == 401:
        return _to_sign_in(error.get("code", ""))
    page = "error_part.html" if is_partial() else "error.html"
    words = _WORDS.get(response.status_code, "Something went wrong")
    again = request.script_root + (addresses.page() or addresses.asked())
    html = render_template(
        page, title=words, error=error, status=response.status_code, again=again, **frame()
    )
    shown = answer(html, response.status_code)
    for name in ("Allow", "Retry-After", "x-request-id"):
        if name in response.headers:
            shown.headers[name] = response.headers[name]
    return shown


def _unknown_as_page(response: Response) -> AnyResponse:
    """An address that belongs to nothing, read by a person: a mistyped id, a page of another version. Programs get the JSON."""
    first = request.path.split("/", 2)[1]
    is_read = request.method in ("GET", "HEAD") and "text/html" in request.headers.get("Accept", "")
    is_unknown = request.url_rule is None and first not in _PROGRAMS
    return _error_as_page(response) if is_unknown and is_read else response


def _to_sign_in(code: str) -> AnyResponse:
    back = addresses.page()
    over = "1" if code == "session_expired" else None
    where = url_for("ui_sign_in.show", next=back if back and back != "/" else None, over=over)
    if request.headers.get("HX-Request") == "true":
        # The whole page goes there, not the part that asked.
        return Response("", 200, headers={"HX-Redirect": where})
    return redirect(where, 303)
