import psycopg
import pytest
from flask import Flask

from dwctl.mail.templates import Templates
from dwctl.web import current
from tests.identity.doors import NOBODY, Doors, app_with, register, unique
from tests.organizations.company import Company, company, mails, person, token_for

FIELDS = {"id", "email", "role", "status", "created_at", "expires_at"}


@pytest.fixture(scope="module")
def environ(environ: dict[str, str]) -> dict[str, str]:
    return environ | {"DWCTL_ORGANIZATIONS__INVITATIONS_PER_MINUTE": "0"}


@pytest.fixture
def acme(app: Flask, sql: psycopg.Connection) -> Company:
    return company(app, sql, second="owner", adam="admin", ann="member")


def address() -> str:
    return f"{unique('Invited')}@People.example"


class TestInvite:
    @pytest.mark.parametrize("known", [True, False])
    def test_the_answer_does_not_say_who_has_an_account(
        self, app: Flask, sql: psycopg.Connection, acme: Company, known: bool
    ) -> None:
        email = person(app, sql).email if known else address()
        answer = acme["adam"]("POST", f"{acme.path}/invites", {"email": email, "role": "admin"})
        assert answer.status_code == 201
        assert set(answer.json) == FIELDS
        assert (answer.json["email"], answer.json["role"], answer.json["status"]) == (email, "admin", "pending")  # fmt: skip
        (values,) = mails(sql, email)
        token = values["link"].removeprefix("http://localhost:3001/org-invite?token=")
        assert len(token) == 43
        kept = sql.execute("SELECT user_id, invite_token_hash, expires_at - created_at FROM user_organizations WHERE id = %s", (answer.json["id"],)).fetchone()  # fmt: skip
        assert kept
        assert (kept[0], kept[1] == token, kept[2].days) == (None, False, 7)
        words = Templates(current.parts(app).settings).fill("org_invite", values)
        assert all(values["link"] in text for text in (words.text, words.html))

    @pytest.mark.parametrize(
        ("who", "body", "status", "message"),
        [
            ("owner", {"email": "nonsense"}, 400, "Invalid email address"),
            ("owner", {"email": "a@b"}, 400, "Invalid email address"),
            ("owner", {"email": "A <a@b.example>"}, 400, "Invalid email address"),
            ("owner", {"email": "a@b.example\r\nBcc: x@y.example"}, 422, "email: Must not contain control characters."),
            ("owner", {"role": "king"}, 400, "Invalid role 'king'. Must be one of: owner, admin, member"),
            ("adam", {"role": "owner"}, 403, "Insufficient permissions to Update Organization {id} owners: only an owner makes, changes or removes owners"),
            ("ann", {}, 403, "Insufficient permissions to Update Organization {id} members"),
        ],
    )  # fmt: skip
    def test_rules(
        self,
        acme: Company,
        sql: psycopg.Connection,
        who: str,
        body: dict[str, str],
        status: int,
        message: str,
    ) -> None:
        email = address()
        answer = acme[who]("POST", f"{acme.path}/invites", {"email": email} | body)
        assert (answer.status_code, answer.json["message"]) == (status, message.format(id=acme.id))
        assert list(mails(sql, email)) == []

    def test_one_at_a_time_in_any_case(self, sql: psycopg.Connection, acme: Company) -> None:
        email, path = address(), f"{acme.path}/invites"
        first = acme.invite(email)
        for spelling in (email, email.lower(), email.upper()):
            again = acme["adam"]("POST", path, {"email": spelling})
            assert (again.status_code, again.json["resource"]) == (409, "unknown")
        member = acme["adam"]("POST", path, {"email": acme["ann"].email.upper()})
        assert (member.status_code, member.json["message"]) == (409, "This person is a member already")  # fmt: skip
        sql.execute("UPDATE user_organizations SET expires_at = now() WHERE organization_id = %s AND status = 'pending'", (acme.id,))  # fmt: skip
        assert acme.invite(email.lower()) != first

    def test_it_is_taken_back(self, app: Flask, sql: psycopg.Connection, acme: Company) -> None:
        ben = person(app, sql)
        made = acme["owner"]("POST", f"{acme.path}/invites", {"email": ben.email}).json
        path, token = f"{acme.path}/invites/{made['id']}", token_for(sql, ben.email)
        other = company(app, sql)
        assert other["owner"]("DELETE", f"{other.path}/invites/{made['id']}").status_code == 404
        assert acme["ann"]("DELETE", path).status_code == 403
        assert acme["adam"]("DELETE", path).status_code == 204
        gone = acme["adam"]("DELETE", path)
        assert (gone.status_code, gone.json["message"]) == (404, f"Pending invite with ID {made['id']} in organization {acme.id} not found")  # fmt: skip
        assert ben("POST", f"/organizations/invites/{token}/accept").status_code == 404

    def test_it_is_sent_again_with_another_link(
        self, app: Flask, sql: psycopg.Connection, acme: Company
    ) -> None:
        ben = person(app, sql)
        made = acme["owner"]("POST", f"{acme.path}/invites", {"email": ben.email}).json
        first = token_for(sql, ben.email)
        sql.execute("UPDATE user_organizations SET expires_at = now() WHERE id = %s", (made["id"],))
        answer = acme["adam"]("POST", f"{acme.path}/invites/{made['id']}/resend")
        assert answer.status_code == 200
        assert set(answer.json) == FIELDS
        assert answer.json["expires_at"] > made["expires_at"]
        links = [m["link"].partition("=")[2] for m in mails(sql, ben.email)]
        assert len(links) == 2
        (second,) = set(links) - {first}
        statuses = [ben("GET", f"/organizations/invites/{t}").status_code for t in (first, second)]
        assert statuses == [404, 200]

    def test_an_admin_does_not_send_an_owners_again(self, sql: psycopg.Connection, acme: Company) -> None:  # fmt: skip
        acme.invite(address(), "owner")
        (id,) = sql.execute("SELECT id FROM user_organizations WHERE organization_id = %s AND status = 'pending'", (acme.id,)).fetchone()  # type: ignore[misc]  # fmt: skip
        assert acme["adam"]("POST", f"{acme.path}/invites/{id}/resend").status_code == 403

    def test_an_address_has_so_many_sent_and_no_more(
        self, environ: dict[str, str], sql: psycopg.Connection
    ) -> None:
        sql.execute("DELETE FROM sign_in_attempts")
        with app_with(environ, organizations__invitations_per_minute="2") as app:
            acme = company(app, sql)
            answers = [acme["owner"]("POST", f"{acme.path}/invites", {"email": address()}) for _ in range(3)]  # fmt: skip
        assert [a.status_code for a in answers] == [201, 201, 429]
        assert int(answers[-1].headers["Retry-After"]) in range(1, 61)


class TestAnswer:
    def test_who_has_link_and_address_becomes_a_member(
        self, app: Flask, sql: psycopg.Connection, acme: Company
    ) -> None:
        ben = person(app, sql)
        token = acme.invite(ben.email.upper(), "admin")
        path = f"/organizations/invites/{token}"
        sql.execute("UPDATE users SET display_name = 'Acme' WHERE id = %s", (acme.id,))
        sql.execute("UPDATE users SET display_name = 'Olga' WHERE id = %s", (acme["owner"].id,))
        shown = ben("GET", path).json
        assert set(shown) == {"org_name", "organization_id", "role", "inviter_name", "expires_at", "for_you"}  # fmt: skip
        assert (shown["organization_id"], shown["for_you"]) == (str(acme.id), True)
        assert (shown["org_name"], shown["role"], shown["inviter_name"]) == ("Acme", "admin", "Olga")  # fmt: skip
        answer = ben("POST", f"{path}/accept")
        assert (answer.status_code, answer.json) == (200, {"message": "Invite accepted"})
        assert acme.roles()[ben.id] == "admin"
        (entry,) = (m for m in ben("GET", f"{acme.path}/members").json if m["user"]["id"] == str(ben.id))  # fmt: skip
        assert set(entry) == {"id", "user", "role", "status", "created_at"}
        assert ben("POST", f"{path}/accept").status_code == 404

    def test_who_registers_with_the_address_may_accept(self, app: Flask, acme: Company) -> None:
        name = unique()
        token = acme.invite(f"{name}@people.example")
        client, user = register(app, name)
        answer = client.post(f"/admin/api/v1/organizations/invites/{token}/accept")
        assert answer.status_code == 200
        assert user["id"] in map(str, acme.roles())

    @pytest.mark.parametrize("verb", ["accept", "decline"])
    def test_nobody_else_answers(
        self, app: Flask, sql: psycopg.Connection, acme: Company, verb: str
    ) -> None:
        token = acme.invite(address())
        answer = person(app, sql)("POST", f"/organizations/invites/{token}/{verb}")
        assert (answer.status_code, answer.json["code"]) == (400, "invitation_for_another_address")

    def test_it_is_declined(self, app: Flask, sql: psycopg.Connection, acme: Company) -> None:
        ben = person(app, sql)
        path = f"/organizations/invites/{acme.invite(ben.email)}"
        assert ben("POST", f"{path}/decline").json == {"message": "Invite declined"}
        assert ben("POST", f"{path}/accept").status_code == 404
        assert len(acme["owner"]("GET", f"{acme.path}/members").json) == 4

    def test_it_runs_out(self, app: Flask, sql: psycopg.Connection, acme: Company) -> None:
        ben = person(app, sql)
        path = f"/organizations/invites/{acme.invite(ben.email)}"
        sql.execute("UPDATE user_organizations SET expires_at = now() WHERE organization_id = %s AND status = 'pending'", (acme.id,))  # fmt: skip
        for method, at in (("GET", path), ("POST", f"{path}/accept"), ("POST", f"{path}/decline")):
            answer = ben(method, at)
            assert (answer.status_code, answer.json["code"]) == (400, "invitation_expired")
        assert acme["owner"]("GET", acme.path).json["member_count"] == 4

    def test_nobody_comes_into_a_fourth(self, app: Flask, sql: psycopg.Connection) -> None:
        ben = person(app, sql)
        tokens = [company(app, sql).invite(ben.email) for _ in range(4)]
        statuses = [ben("POST", f"/organizations/invites/{t}/accept").status_code for t in tokens]
        assert statuses == [200, 200, 200, 400]

    def test_a_member_already(self, app: Flask, sql: psycopg.Connection, acme: Company) -> None:
        ben = person(app, sql)
        token = acme.invite(ben.email)
        sql.execute("INSERT INTO user_organizations (user_id, organization_id) VALUES (%s, %s)", (ben.id, acme.id))  # fmt: skip
        assert ben("POST", f"/organizations/invites/{token}/accept").status_code == 409

    def test_guesses_are_counted(self, app: Flask, sql: psycopg.Connection, acme: Company) -> None:
        ben, eve = person(app, sql), person(app, sql)
        good = f"/organizations/invites/{acme.invite(ben.email)}"
        assert [ben("GET", good).status_code for _ in range(12)] == [200] * 12
        unknown = [eve("GET", f"/organizations/invites/{NOBODY}") for _ in range(11)]
        assert [a.status_code for a in unknown] == [404] * 10 + [429]
        assert unknown[0].json["message"] == "Invite with ID invalid or expired token not found"
        assert [who("GET", good).status_code for who in (eve, ben)] == [429, 200]

    def test_not_without_signing_in(self, call: Doors, acme: Company) -> None:
        assert call(None, "GET", f"/organizations/invites/{acme.invite(address())}").status_code == 401  # fmt: skip
