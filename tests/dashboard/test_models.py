"""Models: the catalogue and the list, a page for each alias whatever it is, forms that do what the API does, prices, access, routing."""

from __future__ import annotations

import html
import re
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import psycopg
import pytest
from flask.testing import FlaskClient
from playwright.sync_api import Page, expect

from dwctl.dashboard import model_paths, model_words
from tests import browser
from tests.cast import Cast
from tests.catalog.conftest import Admin, unique
from tests.dashboard import forms
from tests.dashboard.house import SMALL, House
from tests.usage import deltas

ODD = [
    "acme/chat 2", "100% <b>bold</b>", "émoji 🐼/模型", "a//b", "-/new", "-", "~tilde", "..", "a/../b", "a/", "/a", "a;b?c#d&e=f",
    "<script>alert(1)</script>", "a\\b", "new", "a+b", "x" * 512, "模" * 512, "'\"`{{7*7}}",
]  # fmt: skip


def page(client: FlaskClient, path: str, who: str = "admin") -> str:
    answer = forms.get(client, who, path)
    assert answer.status_code == 200, answer.text[:2000]
    return answer.text


def address(alias: str) -> str:
    return f"/models/{model_paths.to_path(alias)}"


def of(id: str, rest: str) -> str:
    return f"/models/-/{id}/{rest}"


def change(client: FlaskClient, id: str, rest: str, tab: str = "", **fields: Any) -> Any:
    """Send a form of a model's page."""
    return forms.submit(client, "admin", f"/models/-/{id}?tab={tab}", of(id, rest), fields)


def shown(admin: Admin, id: str, include: str = "pricing,groups,components") -> dict[str, Any]:
    return dict(admin.get(f"/models/{id}", include=include).json)


def group(admin: Admin) -> str:
    return str(admin.post("/groups", {"name": unique("group")}).json["id"])


class TestAddresses:
    @pytest.mark.parametrize("alias", ODD)
    def test_every_alias_has_a_page_that_shows_it_as_text(
        self, admin: Admin, client: FlaskClient, alias: str
    ) -> None:
        made = admin.model(alias=alias)
        if len(alias) < 500:
            listed = page(
                client,
                f"/models?search={alias[:1].replace('%', '%25') if alias[:1].isalnum() else ''}",
            )
            links = [html.unescape(link) for link in re.findall(r'<td class="name"><a href="([^"]+)" title', listed)]  # fmt: skip
            assert any(made["alias"] in html.unescape(page(client, link)) for link in links[:1])
        text = page(client, f"/models/-/{made['id']}")
        assert f"<h1>{html.escape(alias.strip(), quote=True).replace('&#x27;', '&#39;').replace('&quot;', '&#34;')}</h1>" in text  # fmt: skip
        assert "<script>alert" not in text
        assert "49" not in re.findall(r"<h1>(.*?)</h1>", text)[0]
        admin.delete(f"/models/{made['id']}")

    @pytest.mark.parametrize("alias", ODD)
    def test_the_path_says_the_alias_back(self, alias: str) -> None:
        assert model_paths.from_path(model_paths.to_path(alias)) == alias

    def test_what_is_no_code_of_ours_is_taken_as_it_is(self) -> None:
        assert [model_paths.from_path(text) for text in ("~", "~%%", "~/w")] == ["", "~%%", "~/w"]

    def test_what_nobody_calls_so_is_404_in_words(self, client: FlaskClient, cast: Cast) -> None:
        answer = forms.get(client, "admin", "/models/no-such-model")
        assert answer.status_code == 404
        assert "There is no model called &#39;no-such-model&#39;" in answer.text

    def test_a_deleted_model_is_shown_to_managers_until_another_has_the_alias(
        self, admin: Admin, client: FlaskClient
    ) -> None:
        alias = unique("again")
        admin.delete(f"/models/{admin.model(alias=alias, description='the first')['id']}")
        assert "is deleted" in page(client, address(alias))
        admin.model(alias=alias, description="the second")
        assert "the second" in page(client, address(alias))

    def test_a_model_that_its_server_does_not_list_says_so(
        self, admin: Admin, client: FlaskClient, sql: psycopg.Connection[Any]
    ) -> None:
        made = admin.model()
        sql.execute("UPDATE deployed_models SET status = 'inactive' WHERE id = %s", (made["id"],))
        assert "did not list it" in page(client, address(made["alias"]))
        assert made["alias"] in page(client, f"/models?state=inactive&search={made['alias']}")


class TestRoles:
    def test_a_member_sees_what_they_may_call_and_its_price(
        self, admin: Admin, client: FlaskClient
    ) -> None:
        price = {"name": "n", "input_price_per_token": "0.000002", "output_price_per_token": "0.000008", "api_key_purpose": "realtime"}  # fmt: skip
        open_, closed = admin.model(everyone=True, tariffs=[price]), admin.model()
        listed = page(client, "/models", "alice")
        assert open_["alias"] in listed
        assert closed["alias"] not in listed
        assert "$2.00 · $8.00" in listed
        one = page(client, address(open_["alias"]), "alice")
        assert "Sample code" in one
        for secret in ("Routing", "Access", "Delete", open_["hosted_on"], "Limits"):
            assert secret not in one, secret
        assert forms.get(client, "alice", address(closed["alias"])).status_code == 404
        assert open_["alias"] in page(client, f"{address(open_['alias'])}?tab=code", "alice")

    @pytest.mark.parametrize("who", ["alice", "viewer", "biller"])
    @pytest.mark.parametrize("path", ["{alias}?tab=routing", "{alias}?tab=prices", "{alias}?tab=access", "-/new", "-/new?type=composite", "-/{id}/edit"])  # fmt: skip
    def test_what_managers_see_is_403_by_address(
        self, admin: Admin, client: FlaskClient, who: str, path: str
    ) -> None:
        model = admin.model(everyone=True)
        assert forms.get(client, who, "/models/" + path.format(**model)).status_code == 403

    @pytest.mark.parametrize("rest", ["edit", "delete", "prices", "groups", "hide", "components", "components/add", "rules", "tools", f"groups/{UUID(int=0)}/revoke", f"components/{UUID(int=1)}/remove", f"prices/{UUID(int=1)}/withdraw", f"tools/{UUID(int=1)}/detach"])  # fmt: skip
    def test_no_member_changes_anything(self, admin: Admin, client: FlaskClient, rest: str) -> None:
        model = admin.model(everyone=True)
        fields = {"confirm": model["alias"], "tool": str(UUID(int=1)), "group": "Everyone", "alias": model["alias"]}  # fmt: skip
        answer = forms.submit(client, "alice", "/account", of(model["id"], rest), fields)
        assert answer.status_code == 403, answer.text[:3000]
        assert shown(admin, model["id"])["updated_at"] == model["updated_at"]

    def test_a_viewer_sees_calls_of_what_they_may_use(
        self, admin: Admin, client: FlaskClient, sql: psycopg.Connection[Any]
    ) -> None:
        model = admin.model(everyone=True)
        deltas.add(sql, datetime.now(UTC), model=model["alias"])
        assert "p50 · p95" in page(client, "/models", "viewer")
        assert "p50 · p95" not in page(client, "/models", "alice")


class TestList:
    def test_sums_lead_to_the_calls_that_make_them(
        self, admin: Admin, client: FlaskClient, sql: psycopg.Connection[Any]
    ) -> None:
        model = admin.model(alias=unique("counted"))
        for status in (200, 200, 200, 500):
            deltas.add(sql, datetime.now(UTC) - timedelta(minutes=1), model=model["alias"], status_code=status)  # fmt: skip
        listed = page(client, f"/models?search={model['alias']}&range=7d")
        # Whoever may not read everybody's calls has no link to their own alone.
        assert f'href="/requests?model={model["alias"]}' not in listed
        assert re.search(r">\s*4\s*<", listed)
        assert "25\u202f% errors" in listed
        one = page(client, address(model["alias"]))
        assert 'title="$0.400000000000000"' in one

    def test_it_goes_on_by_cursor_and_every_model_comes_once(
        self, admin: Admin, client: FlaskClient, sql: psycopg.Connection[Any]
    ) -> None:
        prefix, endpoint = unique("many"), admin.endpoint()
        sql.execute(
            "INSERT INTO deployed_models (id, model_name, alias, created_by, hosted_on)"
            " SELECT gen_random_uuid(), 'm', %s || n, %s, %s FROM generate_series(1, 120) n",
            (prefix, str(UUID(int=0)), endpoint),
        )
        seen, where = [], f"/models?search={prefix}&sort=alias"
        while where:
            text = page(client, where)
            seen += re.findall(rf">({prefix}\d+)</a>", text)
            further = re.search(r'rel="next" href="([^"]+)"', text)
            where = f"/models{html.unescape(further[1])}" if further else ""
        assert (len(seen), len(set(seen))) == (120, 120)

    def test_filters_find(self, admin: Admin, client: FlaskClient) -> None:
        mark = unique("mark")
        one, other = (admin.model(alias=f"{mark}-{name}", model_type=kind) for name, kind in (("one", "CHAT"), ("other", "RERANKER")))  # fmt: skip
        mine = group(admin)
        admin.post(f"/groups/{mine}/models/{one['id']}")
        for query in (f"model_type=CHAT&search={mark}", f"endpoint_id={one['hosted_on']}", f"group={mine}", f"is_composite=false&search={mark}-one"):  # fmt: skip
            text = page(client, f"/models?{query}")
            assert one["alias"] in text, query
            assert other["alias"] not in text, query

    def test_a_part_of_the_page_is_the_rows_alone(self, admin: Admin, client: FlaskClient) -> None:
        admin.model()
        asked = {"HX-Request": "true", "HX-Request-Type": "partial"}
        answer = client.get("/models", headers=Cast.headers("admin") | asked)
        assert "<html" not in answer.text
        assert "<table" in answer.text

    def test_nothing_found_and_nothing_there_say_what_next(
        self, client: FlaskClient, cast: Cast
    ) -> None:
        assert "Show all models" in page(client, "/models?search=nothing-is-called-so")

    @pytest.mark.parametrize("query", ["endpoint_id=x", f"endpoint_id={UUID(int=5)}", "group=x", "sort=x", "is_composite=x", "range=x", "after=x"])  # fmt: skip
    def test_odd_addresses_are_refused_in_words(
        self, client: FlaskClient, cast: Cast, query: str
    ) -> None:
        answer = forms.get(client, "admin", f"/models?{query}")
        assert answer.status_code in (400, 404), answer.text
        assert "<h1>" in answer.text


EVERYTHING = {
    "alias": "", "display_name": "A name", "description": "Two\nlines", "model_type": "CHAT", "capabilities": "vision\nreasoning",
    "requests_per_second": "100", "requests_per_second.per": "minute", "burst_size": "5", "tokens_per_minute": "60,000", "capacity": "8",
    "batch_capacity": "4", "throughput": "2.5", "throughput.per": "second", "windows": "some", "window": "24h",
    "metadata.provider": "Acme", "metadata.context_window": "131072", "metadata.released_at": "2026-01-31", "metadata.extra": '{"a": [1]}',
    "sanitize_responses.shown": "1", "sanitize_responses": "true", "trusted.shown": "1", "open_responses_adapter.shown": "1",
    "provider_pricing.mode": "per_token", "provider_pricing.input_price_per_token": "0.5", "provider_pricing.output_price_per_token": "",
}  # fmt: skip


class TestForms:
    def test_a_model_made_by_the_form_is_the_one_that_the_api_makes(
        self, admin: Admin, client: FlaskClient
    ) -> None:
        endpoint, names = admin.endpoint(), (unique("form"), unique("api"))
        fields = EVERYTHING | {"model_name": names[0], "hosted_on": endpoint}
        answer = forms.submit(client, "admin", "/models/-/new", "/models/-/new", fields)
        assert answer.status_code == 303, answer.text
        by_api = admin.model(
            model_name=names[1], hosted_on=endpoint, display_name="A name", description="Two\nlines", model_type="CHAT",
            capabilities=["vision", "reasoning"], requests_per_second=100 / 60, burst_size=5, tokens_per_minute=60000, capacity=8, batch_capacity=4,
            throughput=2.5, allowed_batch_completion_windows=["24h"],
            metadata={"provider": "Acme", "context_window": 131072, "released_at": "2026-01-31", "extra": {"a": [1]}},
            sanitize_responses=True, trusted=False, open_responses_adapter=False,
            provider_pricing={"mode": "per_token", "input_price_per_token": "0.0000005"},
        )  # fmt: skip
        (by_form,) = admin.get("/models", alias=names[0]).json["data"]
        own = {"id", "model_name", "alias", "created_at", "updated_at"}
        expected = shown(admin, by_api["id"], "")
        assert {k: v for k, v in by_form.items() if k not in own} == {k: v for k, v in expected.items() if k not in own}  # fmt: skip

    @pytest.mark.parametrize("kind", ["standard", "composite"])
    def test_saved_as_it_stands_it_changes_nothing(
        self, admin: Admin, client: FlaskClient, kind: str
    ) -> None:
        more: dict[str, Any] = {"requests_per_second": 0.1, "throughput": 7, "capabilities": ["a"], "description": " x ", "metadata": {"extra": {"k": "é"}}, "allowed_batch_completion_windows": []}  # fmt: skip
        if kind == "composite":
            more |= {"type": kind, "hosted_on": None, "fallback_on_status": [5, 429], "fallback_max_attempts": 2, "lb_strategy": "priority"}  # fmt: skip
        else:
            more |= {"provider_pricing": {"mode": "hourly", "rate": "1.5", "input_token_cost_ratio": "0.25"}}  # fmt: skip
        id = admin.model(**more)["id"]
        before = shown(admin, id)
        where = of(id, "edit")
        fields = forms.fields(page(client, where), "")
        answer = client.post(where, data=fields, headers=Cast.headers("admin"))
        assert answer.status_code == 303, answer.text
        assert shown(admin, id) | {"updated_at": ""} == before | {"updated_at": ""}

    def test_emptied_fields_are_cleared(self, admin: Admin, client: FlaskClient) -> None:
        id = admin.model(description="x", capacity=5, metadata={"provider": "p"})["id"]
        where = of(id, "edit")
        fields = forms.fields(page(client, where), "") | {"description": "", "capacity": "", "metadata.provider": ""}  # fmt: skip
        assert client.post(where, data=fields, headers=Cast.headers("admin")).status_code == 303
        after = shown(admin, id)
        assert after["description"] is None
        assert "capacity" not in after
        assert "metadata" not in after

    @pytest.mark.parametrize(
        ("field", "value", "said"),
        [
            ("burst_size", "many", "Not a valid integer"),
            ("requests_per_second", "1e400", "finite|Special numeric|too large"),
            ("capacity", "0", "greater than zero"),
            ("alias", "x" * 600, "Longer than maximum length"),
            ("alias", "   ", "must not be empty|Model name and alias"),
            ("metadata.released_at", "soon", "Not a valid date"),
            ("metadata.extra", "{no json", "Not a valid mapping"),
            ("metadata.extra", "[]", "Not a valid mapping"),
            ("provider_pricing.input_price_per_token", "dear", "Not a plain decimal"),
        ],
    )
    def test_what_is_wrong_stands_beside_its_field_and_what_was_typed_stays(
        self, admin: Admin, client: FlaskClient, field: str, value: str, said: str
    ) -> None:
        fields = EVERYTHING | {"model_name": unique("wrong"), "hosted_on": admin.endpoint(), "display_name": "Kept <b>", field: value}  # fmt: skip
        answer = forms.submit(client, "admin", "/models/-/new", "/models/-/new", fields)
        if field == "alias" and not value.strip():
            assert answer.status_code == 303, "an empty alias is the name"
            return
        assert answer.status_code == 422, answer.status_code
        assert re.search(said, answer.text), answer.text[:5000]
        assert 'value="Kept &lt;b&gt;"' in answer.text
        assert html.escape(value, quote=True).replace("&quot;", "&#34;") in answer.text

    def test_a_taken_alias_is_told(self, admin: Admin, client: FlaskClient) -> None:
        taken = admin.model()
        fields = EVERYTHING | {"model_name": "m", "alias": taken["alias"], "hosted_on": taken["hosted_on"]}  # fmt: skip
        answer = forms.submit(client, "admin", "/models/-/new", "/models/-/new", fields)
        assert answer.status_code == 422
        assert 'role="alert"' in answer.text

    def test_deleting_takes_the_typed_alias(self, admin: Admin, client: FlaskClient) -> None:
        model = admin.model()
        wrong = change(client, model["id"], "delete", confirm="something else")
        assert wrong.status_code == 422
        assert shown(admin, model["id"])
        assert change(client, model["id"], "delete", confirm=model["alias"]).status_code == 303
        assert admin.get(f"/models/{model['id']}").status_code == 404

    def test_the_call_that_is_shown_is_one_that_works(
        self, admin: Admin, client: FlaskClient
    ) -> None:
        model = admin.model(alias=unique("it's"))
        text = html.unescape(page(client, address(model["alias"])))
        assert f"/admin/api/v1/models/{model['id']}" in text


PRICE = {"name": "realtime", "api_key_purpose": "realtime", "completion_window": "1h", "input_price_per_token": "2", "output_price_per_token": "8.5", "cached_input_price_per_token": "", "reasoning_price_per_token": "", "valid_from": ""}  # fmt: skip


class TestPrices:
    def test_a_price_for_a_million_is_one_for_a_token(
        self, admin: Admin, client: FlaskClient
    ) -> None:
        id = admin.model()["id"]
        assert change(client, id, "prices", "prices", **PRICE).status_code == 303
        (tariff,) = shown(admin, id)["tariffs"]
        assert (Decimal(tariff["input_price_per_token"]), Decimal(tariff["output_price_per_token"])) == (Decimal("0.000002"), Decimal("0.0000085"))  # fmt: skip
        assert "completion_window" not in tariff, "only batches have one"
        text = page(client, f"/models/-/{id}?tab=prices")
        assert "in force" in text
        assert "no tariff for batch calls with the window" in text

    def test_one_to_come_is_in_the_readers_zone_and_can_be_taken_back(
        self, admin: Admin, client: FlaskClient
    ) -> None:
        id = admin.model()["id"]
        change(client, id, "prices", "prices", **PRICE)
        client.set_cookie("dw_zone", "Asia%2FTokyo")
        later = PRICE | {"valid_from": "2040-01-01T09:00", "input_price_per_token": "3"}
        assert change(client, id, "prices", "prices", **later).status_code == 303
        rows = admin.get(f"/models/{id}/tariffs").json["data"]
        assert [row["valid_from"] for row in rows][:1] == ["2040-01-01T00:00:00Z"]
        assert rows[1]["valid_until"] == "2040-01-01T00:00:00Z"
        text = page(client, f"/models/-/{id}?tab=prices")
        assert text.count("to come") >= 1
        assert "01 Jan 2040 09:00" in text
        assert change(client, id, f"prices/{rows[0]['id']}/withdraw", "prices").status_code == 303
        assert len(admin.get(f"/models/{id}/tariffs").json["data"]) == 1

    def test_past_ones_stay_and_cannot_be_ended_again(
        self, admin: Admin, client: FlaskClient
    ) -> None:
        id = admin.model()["id"]
        for price in ("2", "3"):
            change(client, id, "prices", "prices", **PRICE | {"input_price_per_token": price})
        text = page(client, f"/models/-/{id}?tab=prices")
        assert text.count("/withdraw") == 1
        past = admin.get(f"/models/{id}/tariffs").json["data"][-1]["id"]
        again = change(client, id, f"prices/{past}/withdraw", "prices")
        assert (again.status_code, "This tariff is over" in again.text) == (422, True)

    @pytest.mark.parametrize(("field", "value"), [("input_price_per_token", "free"), ("output_price_per_token", ""), ("name", ""), ("valid_from", "tomorrow"), ("input_price_per_token", "NaN")])  # fmt: skip
    def test_what_is_no_price_is_refused_beside_its_field(
        self, admin: Admin, client: FlaskClient, field: str, value: str
    ) -> None:
        id = admin.model()["id"]
        answer = change(client, id, "prices", "prices", **PRICE | {field: value})
        assert answer.status_code == 422
        assert f'id="field-{field}-problem"' in answer.text
        assert admin.get(f"/models/{id}/tariffs").json["data"] == []


class TestAccess:
    def test_groups_are_granted_by_name_and_revoked(
        self, admin: Admin, client: FlaskClient, cast: Cast
    ) -> None:
        id, name = admin.model()["id"], unique("<b>team</b> 100%")
        made = admin.post("/groups", {"name": name}).json["id"]
        assert "Nobody may call this model" in page(client, f"/models/-/{id}?tab=access")
        assert change(client, id, "groups", "access", group=name).status_code == 303
        assert [one["id"] for one in shown(admin, id)["groups"]] == [made]
        assert html.escape(name) in page(client, f"/models/-/{id}?tab=access")
        assert change(client, id, f"groups/{made}/revoke", "access").status_code == 303
        assert shown(admin, id)["groups"] == []
        wrong = change(client, id, "groups", "access", group="nobody's")
        assert (wrong.status_code, "There is no group called" in wrong.text) == (422, True)

    def test_hiding_takes_it_from_all_groups(
        self,
        admin: Admin,
        client: FlaskClient,
    ) -> None:
        id = admin.model(everyone=True)["id"]
        admin.post(f"/groups/{group(admin)}/models/{id}")
        assert change(client, id, "hide", "access").status_code == 303
        assert shown(admin, id)["groups"] == []

    def test_tools_are_attached_and_detached(self, admin: Admin, client: FlaskClient) -> None:
        id, name = admin.model()["id"], unique("tool")
        tool = admin.post("/tool-sources", {"name": name, "url": "https://tools.example/x"}).json["id"]  # fmt: skip
        assert change(client, id, "tools", "access", tool=tool).status_code == 303
        assert [one["id"] for one in admin.get(f"/deployments/{id}/tool-sources").json] == [tool]
        assert change(client, id, f"tools/{tool}/detach", "access").status_code == 303
        assert admin.get(f"/deployments/{id}/tool-sources").json == []
        assert change(client, id, "tools", "access", tool="x").status_code == 422


class TestRouting:
    def test_components_are_added_weighed_ordered_and_removed(
        self, admin: Admin, client: FlaskClient
    ) -> None:
        id = admin.model(type="composite", hosted_on=None)["id"]
        one, other = admin.model(), admin.model()
        for place, part in enumerate((one, other)):
            added = change(client, id, "components/add", "routing", alias=part["alias"], weight="30", sort_order=str(place))  # fmt: skip
            assert added.status_code == 303, added.text
        fields = {f"weight-{one['id']}": "90", f"sort_order-{one['id']}": "5", f"enabled-{one['id']}": "on", f"weight-{other['id']}": "10", f"sort_order-{other['id']}": "1"}  # fmt: skip
        assert change(client, id, "components", "routing", **fields).status_code == 303
        found = [(part["model"]["id"], part["weight"], part["enabled"]) for part in shown(admin, id)["components"]]  # fmt: skip
        assert found == [(other["id"], 10, False), (one["id"], 90, True)]
        refused = change(client, id, "components", "routing", **fields | {f"weight-{one['id']}": "0"})  # fmt: skip
        assert (refused.status_code, "the weight must be between 1 and 100" in refused.text) == (
            422,
            True,
        )
        assert change(client, id, f"components/{one['id']}/remove", "routing").status_code == 303
        assert [part["model"]["id"] for part in shown(admin, id)["components"]] == [other["id"]]
        unknown = change(client, id, "components/add", "routing", alias="nobody", weight="1")
        assert "There is no model called" in unknown.text

    def test_rules_are_saved_and_circles_refused(self, admin: Admin, client: FlaskClient) -> None:
        one, other = admin.model(), admin.model()
        rules = {"action-batch": "deny", "action-realtime": "redirect", "target-realtime": other["alias"], "action-platform": ""}  # fmt: skip
        assert change(client, one["id"], "rules", "routing", **rules).status_code == 303
        found = {rule["api_key_purpose"]: rule["action"] for rule in shown(admin, one["id"])["traffic_routing_rules"]}  # fmt: skip
        assert found == {"batch": {"type": "deny"}, "realtime": {"type": "redirect", "target": other["alias"]}}  # fmt: skip
        circle = change(client, other["id"], "rules", "routing", **{"action-realtime": "redirect", "target-realtime": one["alias"]})  # fmt: skip
        assert (circle.status_code, "in a circle" in circle.text) == (422, True)
        assert change(client, one["id"], "rules", "routing").status_code == 303
        assert "traffic_routing_rules" not in shown(admin, one["id"])


@pytest.mark.parametrize(
    ("per_second", "said"),
    [
        (20, "20 requests a second"),
        (100 / 60, "100 requests a minute"),
        (2.5, "150 requests a minute"),
        (1 / 3600, "1 requests an hour"),
        (0.0001, "0.36 requests an hour"),
    ],
)
def test_limits_are_in_units_that_people_use(per_second: float, said: str) -> None:
    assert model_words.limits({"requests_per_second": per_second}) == [said]


def test_a_page_names_who_has_made_its_model(admin: Admin, client: FlaskClient) -> None:
    alias = admin.model()["alias"]
    assert ">admin@cast.example</a>" in forms.get(client, "admin", f"/models/{alias}").text


@pytest.mark.parametrize(
    ("calls", "errors", "refused", "said"),
    [
        (0, 0, 0, ("no calls for an hour", "")),
        (3, 3, 3, ("only refused calls", "")),
        (50, 49, 49, ("answers", "good")),
        (50, 48, 46, ("50\u202f% errors", "bad")),
        (10, 4, 0, ("40\u202f% errors", "warn")),
    ],
)
def test_refused_calls_say_nothing_of_a_server(
    calls: int, errors: int, refused: int, said: tuple[str, str]
) -> None:
    found = {"last_hour_requests": calls, "last_hour_errors": errors, "last_hour_refused": refused}
    assert model_words.state({"calls": found}) == said
    assert model_words.of_endpoint({"models": found | {"active": 1, "inactive": 0}}) == said


def test_a_call_without_credit_is_no_error_of_its_model(
    admin: Admin, client: FlaskClient, sql: psycopg.Connection
) -> None:
    endpoint = admin.endpoint()
    alias = admin.model(hosted_on=endpoint)["alias"]
    for status in (200, 402, 429):
        deltas.add(sql, datetime.now(UTC) - timedelta(seconds=5), model=alias, status_code=status)
    page = forms.get(client, "admin", f"/models/{alias}").text
    assert re.search(r'>Errors</span>\s*<span class="tile-value "[^>]*>0', page)
    assert re.search(r'>Refused</span>\s*<span class="tile-value "[^>]*>2<', page)
    for path in (f"/models?search={alias}", f"/endpoints/{endpoint}"):
        assert ">answers</span>" in forms.get(client, "admin", path).text


# In a browser


def test_a_filter_stands_in_the_address_and_holds(page: Page, house: House) -> None:
    page.goto("/models")
    rows = page.locator("#models tbody tr")
    expect(rows.filter(has_text=SMALL)).to_have_count(1)
    page.get_by_label("Part of an alias, a name or an endpoint").fill(SMALL)
    expect(rows).to_have_count(1)
    expect(page).to_have_url(re.compile(rf"/models\?search={SMALL}$"))
    page.reload()
    expect(rows).to_have_count(1)
    page.get_by_label("Kind").select_option("true")
    expect(page.get_by_text("No model is like that")).to_be_visible()
    page.go_back()
    expect(rows).to_have_count(1)


def test_a_model_is_priced_by_keyboard(page: Page, house: House) -> None:
    model = house.gateway.admin("POST", "/models", {"type": "composite", "model_name": unique("typed")}).json()  # fmt: skip
    page.goto(f"/models/{model['alias']}?tab=prices")
    page.get_by_label("Input required").focus()
    page.keyboard.type("2")
    page.keyboard.press("Tab")
    page.keyboard.type("8")
    page.keyboard.press("Enter")
    expect(page.get_by_text("Price set.")).to_be_visible()
    expect(page.get_by_role("row", name="in force")).to_contain_text("$8.00")


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [browser.WIDE, browser.NARROW])
def test_pages_of_models_are_for_everybody(page: Page, house: House) -> None:
    team = house.gateway.admin("POST", "/models", {"type": "composite", "model_name": unique("team")}).json()  # fmt: skip
    small = next(one for one in house.gateway.admin("GET", f"/models?alias={SMALL}").json()["data"])
    house.gateway.admin("POST", f"/models/{team['id']}/components/{small['id']}", {"weight": 80})
    found = {}
    for path in ("/models", f"/models/{SMALL}", f"/models/{team['alias']}?tab=routing", f"/models/{SMALL}?tab=prices", f"/models/{SMALL}?tab=access", f"/models/-/{team['id']}/edit"):  # fmt: skip
        page.goto(path)
        found[path] = browser.axe(page)
    assert found == {path: [] for path in found}
