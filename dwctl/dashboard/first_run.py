"""What is missing before anything can be seen: an endpoint, a key, a first call."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from flask import url_for

from dwctl import clock
from dwctl.access import guard
from dwctl.catalog.routes.endpoints import list_endpoints
from dwctl.dashboard import breakdowns, first_call, operations, ranges
from dwctl.dashboard.first_call import Target
from dwctl.identity.routes.api_keys import list_api_keys
from dwctl.usage.routes import get_usage

_LOOKS_BACK = timedelta(days=400)


@dataclass(frozen=True, slots=True)
class Step:
    """One thing to do. command: what does it in a terminal, for whom that is; url, link: the page where it is done."""

    title: str
    text: str
    command: str | None
    url: str
    link: str
    is_done: bool


def steps(target: Target | None) -> list[Step]:
    """All of them in their order, done or not. target: what the printed call calls."""
    return [*([_endpoint()] if operations.may(list_endpoints) else []), _key(), _call(target)]


def is_over() -> bool:
    """Whether all are done. The last is what the others are for: who has called has a key, and an endpoint."""
    return _has_called()


def _endpoint() -> Step:
    return Step(
        "Add an endpoint",
        "A server that speaks OpenAI's API: vLLM, Ollama, or a provider. Its models come with it.",
        "dwctl endpoints add NAME https://SERVER/v1",
        url_for("ui_endpoints.show"),
        "Add an endpoint",
        bool(operations.run(list_endpoints, query={"limit": 1})),
    )


def _key() -> Step:
    caller = guard.identify()
    keys = operations.run(list_api_keys, query={"limit": 1, "purpose": "realtime"}, user_id=caller.owner_id)  # fmt: skip
    return Step(
        "Create an API key",
        "Programs call models with it. Its secret is shown once.",
        # Commands are for those who run this installation.
        f"dwctl keys create {caller.email} first-key" if operations.may(list_endpoints) else None,
        url_for("ui_keys.show"),
        "Create a key",
        bool(keys["data"]),
    )


def _call(target: Target | None) -> Step:
    return Step(
        "Make the first call",
        "With the key's secret in API_KEY. It shows up here a moment after it is answered.",
        first_call.to(target).curl,
        url_for("ui_playground.show"),
        "Try it in the playground",
        _has_called(),
    )


def _has_called() -> bool:
    """Whether a call of those that the reader sees has ever succeeded, as far back as pages look."""
    if not breakdowns.is_everybodys():
        return bool(operations.run(get_usage)["total_request_count"])
    now = clock.now()
    total = breakdowns.read(ranges.absolute(now - _LOOKS_BACK, now), by="status", **breakdowns.NO_SERIES)["total"]  # fmt: skip
    return bool(total["requests"] - total["errors"])
