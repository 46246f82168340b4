"""The page at `/about`: what answers here, and where to go on. Plain HTML without a script."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from flask import Blueprint, Response, current_app, render_template

from dwctl import __version__
from dwctl.access import guard
from dwctl.web import current, html

blueprint = Blueprint("pages", __name__, template_folder="templates")
guard.open_to_all(blueprint, reason="it says what this is, and nothing about anybody")


@dataclass(frozen=True, slots=True)
class Place:
    """Somewhere to go. `method` is shown where it is not GET, `link` false where a browser would be refused."""

    path: str
    text: str
    method: str = ""
    link: bool = True


_PLACES = (
    Place("/admin/docs", "the admin API, described"),
    Place("/ai/docs", "the AI API, described"),
    Place("/ai/v1/models", "the models that an API key may call", link=False),
    Place("/ai/v1/chat/completions", "OpenAI-compatible inference", "POST", link=False),
    Place("/ai/v1/responses", "Responses: streaming, flex and background", "POST", link=False),
    Place("/authentication/login", "sign in with e-mail and password", "POST", link=False),
    Place("/admin/api/v1/users/current", "who you are signed in as"),
    Place("/readyz", "whether everything is in order"),
    Place("/internal/metrics", "numbers for Prometheus"),
)


@blueprint.get("/about")
def show_home() -> Response:
    """The page itself."""
    settings = current.settings()
    return html.page(
        render_template(
            "home.html",
            title=settings.metadata.title,
            version=__version__,
            places=list(_places()),
            docs_url=settings.metadata.docs_url,
            region=settings.metadata.region,
            organization=settings.metadata.organization,
        )
    )


def _places() -> Iterator[Place]:
    """Those that this process really serves."""
    doors = current_app.url_map.bind("")
    return (place for place in _PLACES if doors.test(place.path, place.method or "GET"))
