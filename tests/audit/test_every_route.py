"""Every route of the admin API that changes something leaves entries: a new one has no place here, and fails, until it is given one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import psycopg
import pytest
from flask import Flask
from werkzeug.test import TestResponse

from tests.audit.conftest import Entries
from tests.audit.vocabulary import ACTIONS
from tests.cast import Cast
from tests.fake_upstream import FakeUpstream
from tests.identity.doors import NIL, PASSWORD, Doors, insert_user, log_in, register, unique
from tests.identity.routes.test_command_line import CHALLENGE, QUERY, VERIFIER, told
from tests.identity.test_resets import ask, confirm, link_of, send
from tests.organizations.company import company, person, token_for

PREFIXES = ("/admin/api/v1", "/authentication")
UNAUDITED = {
    "playground.infer": "a call: it is in the log of calls",
    "endpoints.validate_endpoint": "asks a server for its models, changes nothing",
    "endpoints.compare_endpoint": "asks a server for its models, changes nothing",
    "connections.try_connection": "looks at a source, changes nothing",
    "connections.start_sync": "work, shown with its synchronisation (who asked for it, when); what it makes are files and batches",
    "session.choose_organization": "sets a cookie of the caller's, changes no row",
    "support.request_support": "sends a mail, changes nothing",
    "password_resets.request_reset": "anybody may ask, for any address; the password that it sets is in the log",
}
"""Routes without an entry, each with the reason."""

Case = Callable[["Stage"], TestResponse]


class Stage:
    """Makes what a route needs, as the platform manager."""

    def __init__(self, app: Flask, call: Doors, cast: Cast, sql: psycopg.Connection[Any]) -> None:
        self.app, self.call, self.cast, self.sql = app, call, cast, sql
        self.upstream_url = ""

    def __call__(self, method: str, path: str, body: Any = None) -> TestResponse:
        return self.call("admin", method, path, body)

    def made(self, path: str, body: Any) -> str:
        answer = self("POST", path, body)
        assert answer.status_code < 300, answer.text
        return str(answer.json["id"])

    def group(self) -> str:
        return self.made("/groups", {"name": unique("group")})

    def person(self) -> str:
        return str(insert_user(self.sql))

    def endpoint(self, **more: Any) -> str:
        body = {"name": unique("server"), "url": "http://127.0.0.1:9/v1", "sync": False} | more
        return self.made("/endpoints", body)

    def model(self) -> str:
        body = {"type": "standard", "model_name": unique("model"), "hosted_on": self.endpoint()}
        return self.made("/models", body)

    def priced(self) -> tuple[str, str]:
        """A model, and its tariff."""
        model = self.model()
        self("POST", f"/models/{model}/tariffs", _tariff()[0])
        return model, self("GET", f"/models/{model}/tariffs").json["data"][0]["id"]

    def composite(self) -> str:
        return self.made("/models", {"type": "composite", "model_name": unique("composite")})

    def key(self) -> str:
        return self.made("/users/current/api-keys", {"name": unique("key")})

    def connection(self) -> str:
        config = {
            "bucket": "b",
            "region": "us-east-1",
            "access_key_id": "a",
            "secret_access_key": "s",
        }
        return self.made("/connections", {"provider": "s3", "name": "bucket", "config": config})

    def member(self) -> tuple[str, str]:
        group, person = self.group(), self.person()
        assert self("POST", f"/groups/{group}/users/{person}").status_code == 204
        return group, person

    def granted(self) -> tuple[str, str]:
        group, model = self.group(), self.model()
        assert self("POST", f"/groups/{group}/models/{model}").status_code == 204
        return group, model

    def composed(self) -> tuple[str, str]:
        composite, model = self.composite(), self.model()
        assert self("POST", f"/models/{composite}/components/{model}", {}).status_code == 200
        return composite, model

    def tool(self) -> str:
        return self.made("/tool-sources", {"name": unique("tool"), "url": "http://127.0.0.1:9/t"})

    def attached(self, kind: str, id: str) -> str:
        path = f"/{kind}/{id}/tool-sources/{self.tool()}"
        assert self("PUT", path).status_code == 204
        return path

    def provider(self) -> str:
        answer = self("POST", "/provider-display-configs", {"provider_key": unique("provider")})
        assert answer.status_code == 201, answer.text
        return str(answer.json["provider_key"])

    def organization(self) -> str:
        body = {"name": unique("org"), "email": f"{unique()}@x.example", "owner_id": self.person()}
        return "/organizations/" + self.made("/organizations", body)

    def membership(self) -> str:
        organization, person = self.organization(), self.person()
        answer = self("POST", f"{organization}/members", {"user_id": person})
        assert answer.status_code == 201, answer.text
        return f"{organization}/members/{person}"

    def invitation(self) -> str:
        organization = self.organization()
        body = {"email": f"{unique()}@x.example"}
        return f"{organization}/invites/" + self.made(f"{organization}/invites", body)

    def invited(self, answer: str) -> TestResponse:
        guest, organization = person(self.app, self.sql), self.organization()
        self.made(f"{organization}/invites", {"email": guest.email})
        token = token_for(self.sql, guest.email)
        return guest("POST", f"/organizations/invites/{token}/{answer}")

    def leaving(self) -> TestResponse:
        acme = company(self.app, self.sql, ann="member")
        return acme["ann"]("POST", f"{acme.path}/leave")

    def signed_in(self) -> Any:
        return register(self.app)[0]

    def sessions(self) -> str:
        return f"/users/{register(self.app)[1]['id']}/sessions"

    def reset(self) -> TestResponse:
        _, user = register(self.app)
        assert ask(self.app, user["email"]).status_code == 200
        with TemporaryDirectory() as folder:
            mails = send(self.app, Path(folder))
        return confirm(self.app, link_of(next(mail for mail in mails if user["email"] in mail)))

    def code(self) -> TestResponse:
        query = f"{QUERY}&code_challenge={CHALLENGE}"
        given = dict(told(self.signed_in().post(f"{PREFIXES[0]}/auth/cli-callback{query}")))
        body = {"code": given["code"], "code_verifier": VERIFIER}
        return self.app.test_client().post("/authentication/cli-token", json=body)


def _tariff() -> list[dict[str, Any]]:
    return [
        {
            "name": "price",
            "input_price_per_token": "0.000001",
            "output_price_per_token": "0.000002",
            "api_key_purpose": "realtime",
        }
    ]


def _sign_in(stage: Stage) -> TestResponse:
    _, person = register(stage.app)
    return log_in(stage.app, person["email"])[1]


CASES: dict[str, tuple[set[str], Case]] = {
    "users.create_user": (
        {"user.created", "user.role_added"},
        lambda s: s("POST", "/users", {"username": unique(), "email": f"{unique()}@x.example", "roles": []}),
    ),
    "users.update_user": (
        {"user.updated", "user.role_added"},
        lambda s: s("PATCH", f"/users/{s.person()}", {"display_name": "Other", "roles": ["BillingManager"]}),
    ),
    "users.delete_user": ({"user.deleted"}, lambda s: s("DELETE", f"/users/{s.person()}")),
    "users.add_user_group": (
        {"group.member_added"},
        lambda s: s("POST", f"/users/{s.person()}/groups/{s.group()}"),
    ),
    "users.remove_user_group": (
        {"group.member_removed"},
        lambda s: s("DELETE", "/users/{1}/groups/{0}".format(*s.member())),
    ),
    "api_keys.create_api_key": (
        {"api_key.created"},
        lambda s: s("POST", "/users/current/api-keys", {"name": unique("key")}),
    ),
    "api_keys.update_api_key": (
        {"api_key.updated"},
        lambda s: s("PATCH", f"/users/current/api-keys/{s.key()}", {"capacity": 7}),
    ),
    "api_keys.delete_api_key": (
        {"api_key.deleted"},
        lambda s: s("DELETE", f"/users/current/api-keys/{s.key()}"),
    ),
    "groups.create_group": ({"group.created"}, lambda s: s("POST", "/groups", {"name": unique()})),
    "groups.update_group": (
        {"group.updated"},
        lambda s: s("PATCH", f"/groups/{s.group()}", {"description": "other"}),
    ),
    "groups.delete_group": (
        {"group.deleted", "group.member_removed"},
        lambda s: s("DELETE", f"/groups/{s.member()[0]}"),
    ),
    "groups.add_group_user": (
        {"group.member_added"},
        lambda s: s("POST", f"/groups/{s.group()}/users/{s.person()}"),
    ),
    "groups.remove_group_user": (
        {"group.member_removed"},
        lambda s: s("DELETE", "/groups/{}/users/{}".format(*s.member())),
    ),
    "model access.grant_model": (
        {"group.model_granted"},
        lambda s: s("POST", f"/groups/{NIL}/models/{s.model()}"),
    ),
    "model access.revoke_model": (
        {"group.model_revoked"},
        lambda s: s("DELETE", "/groups/{}/models/{}".format(*s.granted())),
    ),
    "endpoints.create_endpoint": (
        {"endpoint.created"},
        lambda s: s("POST", "/endpoints", {"name": unique("server"), "url": "http://127.0.0.1:9/v1", "sync": False}),
    ),
    "endpoints.update_endpoint": (
        {"endpoint.updated"},
        lambda s: s("PATCH", f"/endpoints/{s.endpoint()}", {"description": "other"}),
    ),
    "endpoints.delete_endpoint": (
        {"endpoint.deleted"},
        lambda s: s("DELETE", f"/endpoints/{s.endpoint()}"),
    ),
    "endpoints.synchronize_endpoint": (
        {"model.created"},
        lambda s: s("POST", f"/endpoints/{s.endpoint(url=s.upstream_url)}/synchronize"),
    ),
    "models.create_model": (
        {"model.created", "model.tariff_added"},
        lambda s: s(
            "POST",
            "/models",
            {"type": "standard", "model_name": unique(), "hosted_on": s.endpoint(), "tariffs": _tariff()},
        ),
    ),
    "models.add_tariff": (
        {"model.tariff_added"},
        lambda s: s("POST", f"/models/{s.model()}/tariffs", _tariff()[0]),
    ),
    "models.withdraw_tariff": (
        {"model.tariff_changed"},
        lambda s: s("DELETE", "/models/{}/tariffs/{}".format(*s.priced())),
    ),
    "models.update_model": (
        {"model.updated"},
        lambda s: s("PATCH", f"/models/{s.model()}", {"description": "other"}),
    ),
    "models.delete_model": ({"model.deleted"}, lambda s: s("DELETE", f"/models/{s.model()}")),
    "components.add_component": (
        {"model.component_added"},
        lambda s: s("POST", f"/models/{s.composite()}/components/{s.model()}", {}),
    ),
    "components.update_component": (
        {"model.component_changed"},
        lambda s: s("PATCH", "/models/{}/components/{}".format(*s.composed()), {"weight": 7}),
    ),
    "components.remove_component": (
        {"model.component_removed"},
        lambda s: s("DELETE", "/models/{}/components/{}".format(*s.composed())),
    ),
    "connections.create_connection": (
        {"connection.created"},
        lambda s: s(
            "POST",
            "/connections",
            {
                "provider": "s3",
                "name": "bucket",
                "config": {"bucket": "b", "region": "r", "access_key_id": "a", "secret_access_key": "s"},
            },
        ),
    ),
    "connections.delete_connection": (
        {"connection.deleted"},
        lambda s: s("DELETE", f"/connections/{s.connection()}"),
    ),
    "transactions.create_transaction": (
        {"credit.granted"},
        lambda s: s(
            "POST",
            "/transactions",
            {"user_id": s.person(), "transaction_type": "admin_grant", "amount": "1.5", "source_id": unique()},
        ),
    ),
    "authentication.register": (
        {"user.created", "user.role_added", "user.signed_in"},
        lambda s: s.app.test_client().post(
            "/authentication/register",
            json={"username": unique(), "email": f"{unique()}@x.example", "password": PASSWORD},
        ),
    ),
    "authentication.login": ({"user.signed_in"}, _sign_in),
    "authentication.logout": (
        {"user.session_ended"},
        lambda s: s.signed_in().post("/authentication/logout"),
    ),
    "account.change_password": (
        {"user.credential_changed"},
        lambda s: s.signed_in().post(
            "/authentication/password-change",
            json={"current_password": PASSWORD, "new_password": "another-password"},
        ),
    ),
    "password_resets.confirm_reset": ({"user.credential_changed"}, lambda s: s.reset()),
    "command_line.confirm_command_line": ({"api_key.created"}, lambda s: s("POST", f"/auth/cli-callback{QUERY}")),
    "command_line_exchange.exchange_code": ({"api_key.created"}, lambda s: s.code()),
    "login_sessions.end_sessions": ({"user.session_ended"}, lambda s: s("DELETE", s.sessions())),
    "login_sessions.end_session": (
        {"user.session_ended"},
        lambda s: s("DELETE", (path := s.sessions()) + "/" + s("GET", path).json["data"][0]["id"]),
    ),
    "api_keys.rotate_api_key": (
        {"api_key.credential_changed"},
        lambda s: s("POST", f"/users/current/api-keys/{s.key()}/rotate", {}),
    ),
    "api_keys.end_retired_secrets": (
        {"api_key.secrets_ended"},
        lambda s: (
            s("POST", (path := f"/users/current/api-keys/{s.key()}") + "/rotate", {}),
            s("DELETE", path + "/retired-secrets"),
        )[-1],
    ),
    "tool sources.create_tool_source": (
        {"tool_source.created"},
        lambda s: s("POST", "/tool-sources", {"name": unique("tool"), "url": "http://127.0.0.1:9/t"}),
    ),
    "tool sources.update_tool_source": (
        {"tool_source.updated"},
        lambda s: s("PATCH", f"/tool-sources/{s.tool()}", {"timeout_secs": 7}),
    ),
    "tool sources.delete_tool_source": ({"tool_source.deleted"}, lambda s: s("DELETE", f"/tool-sources/{s.tool()}")),
    "tool sources.attach_tool_source_to_model": (
        {"model.tool_attached"},
        lambda s: s("PUT", f"/deployments/{s.model()}/tool-sources/{s.tool()}"),
    ),
    "tool sources.detach_tool_source_from_model": (
        {"model.tool_detached"},
        lambda s: s("DELETE", s.attached("deployments", s.model())),
    ),
    "tool sources.attach_tool_source_to_group": (
        {"group.tool_attached"},
        lambda s: s("PUT", f"/groups/{s.group()}/tool-sources/{s.tool()}"),
    ),
    "tool sources.detach_tool_source_from_group": (
        {"group.tool_detached"},
        lambda s: s("DELETE", s.attached("groups", s.group())),
    ),
    "providers.create_provider": (
        {"provider.created"},
        lambda s: s("POST", "/provider-display-configs", {"provider_key": unique("provider")}),
    ),
    "providers.update_provider": (
        {"provider.updated"},
        lambda s: s("PATCH", f"/provider-display-configs/{s.provider()}", {"display_name": "Other"}),
    ),
    "providers.delete_provider": (
        {"provider.deleted"},
        lambda s: s("DELETE", f"/provider-display-configs/{s.provider()}"),
    ),
    "organizations.create_organization": (
        {"organization.created", "organization.role_added", "organization.member_added"},
        lambda s: s("POST", "/organizations", {"name": unique("org"), "email": "a@x.example", "owner_id": s.person()}),
    ),
    "organizations.update_organization": (
        {"organization.updated"},
        lambda s: s("PATCH", s.organization(), {"display_name": "Other"}),
    ),
    "organizations.delete_organization": (
        {"organization.deleted", "organization.member_removed"},
        lambda s: s("DELETE", s.organization()),
    ),
    "organization_members.add_member": (
        {"organization.member_added"},
        lambda s: s("POST", f"{s.organization()}/members", {"user_id": s.person()}),
    ),
    "organization_members.change_member_role": (
        {"organization.member_changed"},
        lambda s: s("PATCH", s.membership(), {"role": "admin"}),
    ),
    "organization_members.remove_member": (
        {"organization.member_removed"},
        lambda s: s("DELETE", s.membership()),
    ),
    "organization_members.leave_organization": ({"organization.member_removed"}, lambda s: s.leaving()),
    "organization_invitations.create_invite": (
        {"organization.invited"},
        lambda s: s("POST", f"{s.organization()}/invites", {"email": f"{unique()}@x.example"}),
    ),
    "organization_invitations.resend_invite": (
        {"organization.invitation_changed"},
        lambda s: s("POST", f"{s.invitation()}/resend"),
    ),
    "organization_invitations.delete_invite": (
        {"organization.invitation_removed"},
        lambda s: s("DELETE", s.invitation()),
    ),
    "organization_invitations.accept_invite": ({"organization.member_added"}, lambda s: s.invited("accept")),
    "organization_invitations.decline_invite": ({"organization.invitation_removed"}, lambda s: s.invited("decline")),
}  # fmt: skip
"""Route to the actions that it leaves at least, and a request to it that changes something."""

BY_THEMSELVES = {
    *(name for name in CASES if name.startswith(("authentication.", "account.", "password_resets."))),
    "command_line_exchange.exchange_code",
    "organization_members.leave_organization",
    "organization_invitations.accept_invite",
    "organization_invitations.decline_invite",
}  # fmt: skip
"""What people do who are no managers, or are not signed in yet."""


@pytest.fixture
def stage(
    app: Flask, call: Doors, cast: Cast, sql: psycopg.Connection[Any], upstream: FakeUpstream
) -> Stage:
    made = Stage(app, call, cast, sql)
    made.upstream_url = upstream.url
    return made


def test_every_route_that_changes_something_is_known_here(app: Flask) -> None:
    changing = {
        rule.endpoint
        for rule in app.url_map.iter_rules()
        if rule.rule.startswith(PREFIXES) and (rule.methods or set()) - {"GET", "HEAD", "OPTIONS"}
    }
    unknown = changing - CASES.keys() - UNAUDITED.keys()
    assert not unknown, f"give each a case (or, with its reason, an exception) above: {unknown}"
    assert not (CASES.keys() | UNAUDITED.keys()) - changing


@pytest.mark.parametrize("route", CASES)
def test_a_change_leaves_its_entries(route: str, stage: Stage, entries: Entries) -> None:
    expected, case = CASES[route]
    answer = case(stage)
    found = entries(answer)
    actions = {entry["action"] for entry in found}
    assert expected <= actions
    assert actions <= ACTIONS, "docs/audit.md explains each"
    if route not in BY_THEMSELVES:
        assert {entry["actor_id"] for entry in found} == {stage.cast["admin"]}
        assert {entry["actor_name"] for entry in found} == {"admin"}
    for entry in found:
        assert entry["through"] in ("proxy_header", "session", "api_key", "sign_in")
        assert entry["address"] == "127.0.0.1"
        assert "<" not in entry["route"]
        assert (entry["before"] or entry["after"]) is not None
