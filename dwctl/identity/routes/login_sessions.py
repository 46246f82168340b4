"""A person's login sessions: which browsers are signed in, and how to sign them out."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from flask import Response, after_this_request

from dwctl.access import guard
from dwctl.access.caller import Caller
from dwctl.access.permissions import Operation, Resource
from dwctl.db import db
from dwctl.identity import sessions, users
from dwctl.identity.routes.users import target_of
from dwctl.identity.sign_in_schemas import EndSessionsQuery, SessionPage, SessionsQuery
from dwctl.web import current, pagination
from dwctl.web.dumping import Extended
from dwctl.web.schemas import Blueprint

blueprint = Blueprint("login_sessions", __name__, description="Login sessions")
guard.protect(blueprint)


def may_see_sessions(caller: Caller, user_id: UUID | str, **_path: Any) -> None:
    """One's own sessions; everybody's for those who may change every user."""
    _insist(caller, Operation.READ, user_id)


def may_end_sessions(caller: Caller, user_id: UUID | str, **_path: Any) -> None:
    """One's own sessions; everybody's for those who may change every user."""
    _insist(caller, Operation.UPDATE, user_id)


def _insist(caller: Caller, operation: Operation, user_id: UUID | str) -> None:
    target = target_of(caller, user_id)
    allowed = guard.may_for(caller, Resource.USERS, Operation.UPDATE, target)
    guard.insist(allowed or target == caller.user_id, Resource.USERS, operation, target)


@blueprint.route("/users/<user:user_id>/sessions", methods=["GET"])
@guard.checks(may_see_sessions)
@blueprint.arguments(SessionsQuery, location="query")
@blueprint.response(200, SessionPage)
def list_sessions(query: dict[str, int], user_id: UUID | str) -> dict[str, Any]:
    """List the browsers in which a user is signed in, the last used first"""
    session, caller = db.session(), guard.identify()
    user = users.shown(session, target_of(caller, user_id))
    found, total = pagination.page(session, sessions.living(user.id), **query)
    shown = [Extended(one, is_current=one.id == caller.login_session_id) for one in found]
    return pagination.envelope(shown, total, **query)


@blueprint.route("/users/<user:user_id>/sessions", methods=["DELETE"])
@guard.checks(may_end_sessions)
@blueprint.arguments(EndSessionsQuery, location="query")
@blueprint.response(204)
def end_sessions(query: dict[str, bool], user_id: UUID | str) -> None:
    """Sign a user out everywhere

    With `others=true` the session that this request came with goes on. API keys are no sessions: they stay.
    """
    session, caller = db.session(), guard.identify()
    user = users.get(session, target_of(caller, user_id))
    if query["others"] and caller.login_session_id is not None:
        sessions.end_others(session, user.id, caller.login_session_id)
    else:
        sessions.end_all(session, user.id)
        _forget_if(user.id == caller.user_id and caller.login_session_id is not None)
    session.commit()


@blueprint.route("/users/<user:user_id>/sessions/<id:session_id>", methods=["DELETE"])
@guard.checks(may_end_sessions)
@blueprint.response(204)
def end_session(user_id: UUID | str, session_id: UUID) -> None:
    """Sign a user out in one browser"""
    session, caller = db.session(), guard.identify()
    sessions.end_one(session, target_of(caller, user_id), session_id)
    _forget_if(session_id == caller.login_session_id)
    session.commit()


def _forget_if(is_ours: bool) -> None:
    """Have the browser forget a cookie that means nothing any more."""
    if is_ours:

        @after_this_request
        def forget(response: Response) -> Response:
            sessions.clear_cookies(response, current.settings().auth.native.session)
            return response
