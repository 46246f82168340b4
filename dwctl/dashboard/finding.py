"""What a text in the search box may mean: ids of anything, keys by prefix or name, models, people - as far as the caller may see them.

Each kind is asked by its own operation, for a few only; the log is asked by id, or for the last hour where only a body can have the text.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final
from uuid import UUID

from flask import url_for

from dwctl import clock
from dwctl.access import guard
from dwctl.batches.routes import get_batch
from dwctl.catalog.routes.endpoints import get_endpoint, list_endpoints
from dwctl.catalog.routes.models import get_model, list_models
from dwctl.dashboard import calls, operations
from dwctl.db import DatabaseAway
from dwctl.errors import DwctlError
from dwctl.files.routes.files import get_file
from dwctl.identity.routes.found_api_keys import find_api_key, find_api_keys
from dwctl.identity.routes.groups import get_group, list_groups
from dwctl.identity.routes.users import get_user, list_users
from dwctl.organizations.routes.organizations import get_organization, list_organizations
from dwctl.request_log.routes import get_request, get_user_request
from dwctl.web.schemas import rfc3339

MOST: Final = 6
"""Of each kind."""
_LETTERS_OF_KEYS: Final = 10
"""A secret that somebody pastes goes no further than its prefix, by which its key is known."""
_ID = re.compile(r"(?:(?P<kind>resp|batch_req|batch|file|msg|req)[_-])?(?P<id>[0-9a-fA-F]{8}-?(?:[0-9a-fA-F]{4}-?){3}[0-9a-fA-F]{12})")  # fmt: skip
_OF_ANSWERS = re.compile(r"(?:chatcmpl|cmpl|msg|gen|call)[-_][\w-]{6,120}")
_RECENT = timedelta(hours=1)
_REQUESTS = frozenset({"resp", "batch_req", "req"})


@dataclass(frozen=True, slots=True)
class Found:
    """Something that the text may mean, and its page. is_exact: the text is its id or its whole name."""

    kind: str
    name: str
    url: str
    note: str = ""
    is_exact: bool = False


def find(text: str) -> list[Found]:
    """What the caller may see of what a text may mean."""
    id = _ID.fullmatch(text)
    if id:
        return list(_by_id(UUID(id["id"]), id["kind"]))
    if _OF_ANSWERS.fullmatch(text):
        return list(_answers(text))
    if text.startswith("sk-"):
        return list(_keys(text[:_LETTERS_OF_KEYS]))
    if "@" in text:
        return [*_people(text), *_organizations(text)]
    return [*_models(text), *_keys(text), *_endpoints(text), *_people(text), *_organizations(text), *_groups(text)]  # fmt: skip


def the_one(found: list[Found]) -> Found | None:
    """The one that is meant, where that is clear."""
    exact = [one for one in found if one.is_exact]
    return exact[0] if len(exact) == 1 else found[0] if len(found) == 1 else None


def _by_id(id: UUID, kind: str | None) -> Iterator[Found]:
    lookups: dict[str, Callable[[UUID], Iterator[Found]]] = {
        "request": _request,
        "batch": _batch,
        "file": _file,
        "key": _key,
        "other": _other,
    }
    wanted = "request" if kind in _REQUESTS else kind
    for name, look in lookups.items():
        if wanted in (None, name):
            yield from look(id)


def _request(id: UUID) -> Iterator[Found]:
    view = get_request if calls.reads_all() else get_user_request
    for whose in [{}] if calls.reads_all() else [{"user_id": user} for user in _accounts()]:
        found = _asked(view, request_id=id, **whose)
        if found:
            note = " · ".join(
                str(found[name]) for name in ("model", "status_code") if name in found
            )
            yield Found("Request", str(id), url_for("ui_requests.detail", request_id=id), note, is_exact=True)  # fmt: skip
            return


def _batch(id: UUID) -> Iterator[Found]:
    found = _asked(get_batch, batch_id=str(id))
    if found:
        yield Found("Batch", found["id"], url_for("ui_batches.detail", batch_id=found["id"]), found["status"], is_exact=True)  # fmt: skip


def _file(id: UUID) -> Iterator[Found]:
    found = _asked(get_file, file_id=str(id))
    if found:
        yield Found("File", found["filename"], url_for("ui_files.detail", file_id=found["id"]), found["id"], is_exact=True)  # fmt: skip


def _key(id: UUID) -> Iterator[Found]:
    found = _asked(find_api_key, key_id=id)
    if found:
        yield _as_key(found, is_exact=True)


def _other(id: UUID) -> Iterator[Found]:
    """What has only one operation and no form of its own: people, groups, organisations, endpoints, models."""
    organization = _asked(get_organization, organization_id=id)
    if organization:
        yield _as_organization(organization, is_exact=True)
    elif user := _asked(get_user, user_id=id):
        yield _as_person(user, is_exact=True)
    if group := _asked(get_group, group_id=id):
        yield _as_group(group, is_exact=True)
    if endpoint := _asked(get_endpoint, id=id):
        yield _as_endpoint(endpoint, is_exact=True)
    if model := _asked(get_model, id=id):
        yield _as_model(model, is_exact=True)


def _answers(text: str) -> Iterator[Found]:
    """Calls of the last hour whose answer bears this id: an upstream's ids stand nowhere else."""
    since = rfc3339(clock.now() - _RECENT)
    path = {} if calls.reads_all() else {"user_id": "current"}
    query = {"body_contains": text, "timestamp_after": since, "limit": MOST}
    found = _asked(calls.listing(), query=query, **path) or {"entries": []}
    for call in found["entries"]:
        note = f"{call.get('model', '')} · {call['status_code']} · of the last hour"
        url = url_for("ui_requests.detail", request_id=call["request_id"])
        yield Found("Request", call["request_id"], url, note)


def _models(text: str) -> Iterator[Found]:
    # (Of many aliases that contain the text, the one that is it may not be among the first.)
    named = _asked(list_models, query={"alias": text, "limit": 1})
    if named and named["data"]:
        yield _as_model(named["data"][0], is_exact=True)
        return
    for model in _listed(list_models, text):
        yield _as_model(model, is_exact=False)


def _keys(text: str) -> Iterator[Found]:
    for key in _listed(find_api_keys, text):
        yield _as_key(key, is_exact=text in (key["name"], key.get("key_prefix")))


def _endpoints(text: str) -> Iterator[Found]:
    for endpoint in _asked(list_endpoints, query={"search": text, "limit": MOST}) or []:
        yield _as_endpoint(endpoint, is_exact=endpoint["name"] == text)


def _people(text: str) -> Iterator[Found]:
    for user in _listed(list_users, text):
        yield _as_person(user, is_exact=text in (user["email"], user["username"]))


def _organizations(text: str) -> Iterator[Found]:
    # (Of their own people get all, whatever is searched for.)
    wanted = text.casefold()
    for organization in _listed(list_organizations, text):
        if any(wanted in organization[name].casefold() for name in ("username", "email")):
            yield _as_organization(organization, is_exact=organization["username"] == text)


def _groups(text: str) -> Iterator[Found]:
    for group in _listed(list_groups, text):
        yield _as_group(group, is_exact=group["name"] == text)


def _as_model(model: Mapping[str, Any], *, is_exact: bool) -> Found:
    return Found("Model", model["alias"], url_for("ui_models.detail", alias=model["alias"]), is_exact=is_exact)  # fmt: skip


def _as_key(key: Mapping[str, Any], *, is_exact: bool) -> Found:
    url = url_for("ui_keys.detail", key_id=key["id"])
    return Found("API key", key["name"], url, key.get("key_prefix") or "", is_exact)


def _as_endpoint(endpoint: Mapping[str, Any], *, is_exact: bool) -> Found:
    url = url_for("ui_endpoints.detail", endpoint_id=endpoint["id"])
    return Found("Endpoint", endpoint["name"], url, endpoint["url"], is_exact)


def _as_person(user: Mapping[str, Any], *, is_exact: bool) -> Found:
    url = url_for("ui_people.detail", user_id=user["id"])
    return Found("Person", user["email"], url, user.get("username", ""), is_exact)


def _as_organization(organization: Mapping[str, Any], *, is_exact: bool) -> Found:
    url = url_for("ui_people.organization", organization_id=organization["id"])
    return Found("Organisation", organization["username"], url, organization.get("email", ""), is_exact)  # fmt: skip


def _as_group(group: Mapping[str, Any], *, is_exact: bool) -> Found:
    return Found("Group", group["name"], url_for("ui_people.group", group_id=group["id"]), is_exact=is_exact)  # fmt: skip


def _listed(view: operations.View, text: str, **path: Any) -> list[Any]:
    found = _asked(view, query={"search": text, "limit": MOST}, **path)
    return found["data"] if found else []


def _accounts() -> list[UUID | str]:
    """Whose calls somebody may have who does not read everybody's."""
    return ["current", *(membership.organization_id for membership in guard.identify().memberships)]


def _asked(view: operations.View, **asked: Any) -> Any:
    """What an operation answers; None where it refuses: what somebody may not see is not there."""
    try:
        return operations.run(view, **asked)
    except DatabaseAway:
        raise
    except DwctlError:
        return None
