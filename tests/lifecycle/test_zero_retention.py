"""Zero data retention, of an account or of a key, and a gateway that shows no bodies: nothing is kept of what calls say, but the bill."""

from __future__ import annotations

from collections.abc import Iterator

import orjson
import pytest

from tests.cast import Cast
from tests.gateway import ADMIN, Account, Gateway, Held, Json, assert_openai_error, marker
from tests.lifecycle.test_store import call, places_of
from tests.processes import IMPATIENT, Service, eventually

ZERO = {"zero_data_retention": True}


@pytest.fixture(scope="module")
def environ(environ: dict[str, str]) -> dict[str, str]:
    """Streams leave word of what they have said all the time."""
    return environ | IMPATIENT | {"DWCTL_RECORDER__PROGRESS_INTERVAL": "100ms"}


@pytest.fixture(scope="module")
def service(environ: dict[str, str], cast: Cast) -> Iterator[Service]:
    """The second web process shows no bodies, the third has no request log."""
    with Service(environ) as running:
        with running.at_once():
            running.start_web()
            running.start_web(DWCTL_REQUEST_LOGGING__BODIES="false")
            running.start_web(DWCTL_ENABLE_ANALYTICS="false")
            running.start_worker()
        yield running


@pytest.fixture(scope="module")
def private(stage: Gateway) -> Account:
    """Whose account wants nothing to be kept."""
    account = stage.account()
    stage.admin("PATCH", f"/users/{account.id}", ZERO)
    policy(stage, account, "zero_data_retention")
    return account


@pytest.fixture(scope="module")
def by_private_key(stage: Gateway) -> Account:
    """Whose key does, from its first call on."""
    return stage.account(**ZERO)


def policy(stage: Gateway, account: Account, wanted: str | None) -> None:
    """Wait until every web process has heard what is kept of an account's calls."""
    for web in stage.service.webs[:1]:

        def heard(url: str = web.url) -> bool:
            refused = stage.post("/chat/completions", {"model": "none"}, by=account, url=url)
            found: bool = stage.log_of(refused).bodies == wanted
            return found

        eventually(heard, 5)


MODES: dict[str, tuple[str, Json]] = {
    "response stream": ("/responses", {"stream": True}),
    "flex response stream": ("/responses", {"service_tier": "flex", "stream": True}),
    "chat": ("/chat/completions", {}),
    "flex chat": ("/chat/completions", {"service_tier": "flex"}),
}


@pytest.mark.parametrize(("path", "mode"), MODES.values(), ids=MODES)
def test_nothing_is_kept_of_an_account_that_wants_that(
    stage: Gateway, private: Account, path: str, mode: Json
) -> None:
    mark = marker()
    # It lasts long enough to have a row while it runs, and echoes.
    model = stage.flexible("echo+slow-1100")
    answer = call(stage, path, model, mark, by=private, **mode)
    assert answer.status_code == 200, answer.text
    assert mark in answer.text
    log = stage.log_of(answer)
    assert (log.status_code, log.bodies) == (200, "zero_data_retention")
    assert (log.request_headers, log.user_id) == (None, private.id)
    assert len(stage.charges(f"resp_{log.request_id}")) == 1
    id = f"resp_{log.request_id}"
    refused = (
        stage.get(f"/responses/{id}", by=private),
        stage.get(f"/responses/{id}/input_items", by=private),
        stage.respond(model, "And?", previous_response_id=id, by=private),
    )
    assert [answer.status_code for answer in refused] == [404, 404, 404]
    eventually(lambda: not places_of(stage, mark), 5)


def test_of_the_url_there_is_no_query(stage: Gateway, private: Account) -> None:
    mark, body = marker(), {"model": stage.flexible("echo"), "messages": []}
    for path, more, by in (
        ("/chat/completions", {}, private),
        ("/rerank", {"query": "q", "documents": []}, private),
        ("/chat/completions", {"model": "none"}, private),
        ("/chat/completions", {"store": False}, None),
        ("/chat/completions", {"store": False, "model": "none"}, None),
    ):
        answer = stage.post(f"{path}?q={mark}", body | more, by=by)
        assert stage.log_of(answer).uri == path
    assert stage.log_of(stage.get(f"/models?q={mark}", by=private)).uri == "/models"
    assert places_of(stage, mark) == []


def test_a_response_says_that_it_is_not_stored_and_so_does_its_request_upstream(
    stage: Gateway, by_private_key: Account
) -> None:
    for path_of_upstream, adapter in (("chat", True), ("responses", False)):
        mark = marker()
        model = stage.flexible(
            "echo", alias=f"echo-{path_of_upstream}", open_responses_adapter=adapter
        )
        answer = stage.respond(model, mark, by=by_private_key)
        assert not adapter or answer.json()["store"] is False
        assert stage.log_of(answer).bodies == "zero_data_retention"
        assert places_of(stage, mark) == []
        (sent,) = stage.sent(mark)
        assert ('"store":false' in sent["raw"]) == (not adapter)


def test_a_chat_that_wants_to_be_stored_is_not_stored_by_the_upstream(
    stage: Gateway, by_private_key: Account
) -> None:
    mark = marker()
    model = stage.flexible("echo")
    assert call(stage, "/chat/completions", model, mark, by=by_private_key, store=True).ok
    assert call(stage, "/chat/completions", model, mark, by=by_private_key).ok
    first, second = stage.sent(mark)
    assert '"store":false' in first["raw"]
    assert "store" not in second["raw"]


@pytest.mark.parametrize("more", [{"background": True}, {"stream": True, "background": True}])
def test_what_could_only_be_fetched_later_is_refused(
    stage: Gateway, private: Account, more: Json
) -> None:
    answer = stage.respond(stage.flexible("plain"), by=private, **more)
    assert assert_openai_error(answer, 400)["param"] == "store"


@pytest.mark.parametrize("path", ["/responses", "/chat/completions"])
def test_what_is_not_kept_cannot_be_given_again(
    stage: Gateway, private: Account, path: str
) -> None:
    model = stage.flexible("plain")
    answer = call(stage, path, model, "x", by=private, headers={"Idempotency-Key": "k"})
    assert assert_openai_error(answer, 400)["param"] == "store"


def test_a_queued_chat_that_is_not_kept_is_shown_to_nobody_while_it_waits(
    stage: Gateway, private: Account
) -> None:
    mark, model = marker(), stage.flexible("echo+slow-1500")
    held = Held(
        lambda: call(stage, "/chat/completions", model, mark, by=private, service_tier="flex")
    )
    waiting = "SELECT r.id FROM fusillade.requests r JOIN fusillade.request_templates t ON t.id = r.template_id WHERE strpos(t.body, %s) > 0"
    (row,) = eventually(lambda: stage.all(waiting, mark))
    assert stage.get(f"/responses/resp_{row.id}", by=private).status_code == 404
    seen = stage.admin("GET", f"/batches/requests/{row.id}").json()
    assert seen["body"] == ""
    assert mark in held.answer().text
    eventually(lambda: not places_of(stage, mark), 5)


def test_a_refused_call_of_such_an_account_shows_nothing(stage: Gateway, private: Account) -> None:
    mark = marker()
    log = stage.log_of(stage.post("/chat/completions", {"model": "none", "x": mark}, by=private))
    assert (log.bodies, log.status_code, log.user_id) == ("zero_data_retention", 404, private.id)
    assert places_of(stage, mark) == []


def test_it_can_be_switched_off_again(stage: Gateway) -> None:
    account = stage.account(**ZERO)
    policy(stage, account, "zero_data_retention")
    stage.admin("PATCH", f"/users/{account.id}/api-keys/{account.key_id}", {"zero_data_retention": None})  # fmt: skip
    policy(stage, account, "zero_data_retention")
    stage.admin("PATCH", f"/users/{account.id}/api-keys/{account.key_id}", {"zero_data_retention": False})  # fmt: skip
    policy(stage, account, None)
    mark = marker()
    answer = stage.respond(stage.flexible("echo"), mark, by=account)
    assert stage.get(f"/responses/{answer.json()['id']}", by=account).ok
    assert places_of(stage, mark)


def test_an_organisations_wish_holds_for_the_keys_of_its_members(stage: Gateway) -> None:
    member = stage.account()
    body = {"name": marker(), "email": "o@people.example", "owner_id": str(member.id)}
    organization = stage.admin("POST", "/organizations", body).json()["id"]
    assert stage.admin("PATCH", f"/organizations/{organization}", ZERO).json()[
        "zero_data_retention"
    ]
    stage.credit(organization, "10")
    made = stage.session.post(
        f"{stage.url}{ADMIN}/users/{organization}/api-keys",
        json={"name": "of the organization"},
        headers=member.session,
    ).json()
    key = Account(organization, member.email, made["key"], made["id"])
    mark = marker()
    answer = stage.respond(stage.flexible("echo"), mark, by=key)
    assert stage.log_of(answer).bodies == "zero_data_retention"
    assert places_of(stage, mark) == []


def test_a_gateway_without_bodies_keeps_what_its_api_promises(stage: Gateway) -> None:
    off = stage.service.webs[1].url
    chat, response = marker(), marker()
    model = stage.flexible("echo")
    answer = call(stage, "/chat/completions", model, chat, url=off)
    assert stage.log_of(answer).bodies == "off"
    assert places_of(stage, chat) == []
    answer = stage.respond(model, response, url=off)
    assert stage.log_of(answer).bodies == "off"
    assert stage.get(f"/responses/{answer.json()['id']}").ok
    refused = stage.post("/chat/completions", {"model": "none", "x": chat}, url=off)
    assert stage.log_of(refused).bodies == "off"
    assert places_of(stage, chat) == []


def run_batch(stage: Gateway, by: Account, path: str, body: Json) -> Json:
    """A batch of one line, `a`, that has ended."""
    line = {"custom_id": "a", "method": "POST", "url": path, "body": body}
    file = stage.session.post(
        f"{stage.url}/ai/v1/files",
        files={"file": ("a.jsonl", orjson.dumps(line))},
        data={"purpose": "batch"},
        headers=by.authorization,
    ).json()
    order = {"input_file_id": file["id"], "endpoint": path, "completion_window": "24h"}
    batch = stage.post("/batches", order, by=by).json()["id"]

    def ended() -> Json | None:
        found: Json = stage.get(f"/batches/{batch}", by=by).json()
        return found if found["status"] in ("completed", "failed") else None

    done: Json = eventually(ended)
    return done


def test_the_lines_of_a_batch_are_its_owners_until_they_are_deleted(
    stage: Gateway, private: Account
) -> None:
    """A batch is asked for by file, and answered by one: both are kept like files. The log shows nothing of them."""
    mark, model = marker(), stage.flexible("echo")
    body = {"model": model, "messages": [{"role": "user", "content": mark}]}
    done = run_batch(stage, private, "/v1/chat/completions", body)
    output = stage.get(f"/files/{done['output_file_id']}/content", by=private)
    assert mark in output.text
    logged = "SELECT bodies FROM http_analytics WHERE custom_id = 'a' AND user_id = %s"
    assert [row.bodies for row in stage.all(logged, private.id)] == ["zero_data_retention"]


@pytest.mark.parametrize("whose", ["private", "by_private_key"])
def test_upstreams_are_told_not_to_store_the_lines_of_a_batch(
    stage: Gateway, whose: str, request: pytest.FixtureRequest
) -> None:
    private = request.getfixturevalue(whose)
    chat, native = stage.flexible("echo"), stage.flexible("echo", alias="echo-native", open_responses_adapter=False)  # fmt: skip
    for path, model, more in (
        ("/v1/responses", native, {}),
        ("/v1/responses", native, {"store": True}),
        ("/v1/chat/completions", chat, {"store": True}),
    ):
        mark = marker()
        said = {"input": mark} if path == "/v1/responses" else {"messages": [{"role": "user", "content": mark}]}  # fmt: skip
        done = run_batch(stage, private, path, {"model": model, **said, **more})
        assert done["request_counts"]["completed"] == 1
        (sent,) = stage.sent(mark)
        assert '"store":false' in sent["raw"]
        logged = "SELECT bodies FROM http_analytics WHERE fusillade_batch_id = %s"
        assert stage.one(logged, done["id"]).bodies == "zero_data_retention"
        (line,) = stage.get(f"/files/{done['output_file_id']}/content", by=private).iter_lines()
        assert mark in line.decode()


@pytest.mark.parametrize(("share", "reason"), [(0, "not_sampled"), (1, None)])
def test_what_is_not_in_the_sample_is_not_shown_and_can_be_fetched(
    stage: Gateway, share: float, reason: str | None
) -> None:
    account = stage.account(log_sample=share)
    answer = stage.respond(stage.flexible("echo"), marker(), by=account)
    assert stage.log_of(answer).bodies == reason
    assert stage.get(f"/responses/{answer.json()['id']}", by=account).ok
    mark = marker()
    refused = stage.log_of(stage.post("/chat/completions", {"model": "none", "x": mark}, by=account))  # fmt: skip
    assert (refused.bodies, bool(refused.request_body)) == (reason, reason is None)


def test_without_analytics_calls_are_answered_and_fetched_and_cost_nothing(stage: Gateway) -> None:
    web, account, model = stage.service.webs[2], stage.account(), stage.flexible("echo+slow-1100")
    answers = [
        stage.respond(model, "Hello", by=account, url=web.url),
        stage.respond(model, "Hello", by=account, url=web.url, stream=True),
        stage.post("/chat/completions", {"model": "none"}, by=account, url=web.url),
    ]
    assert [answer.status_code for answer in answers] == [200, 200, 404]
    for answer in answers[:2]:
        assert answer.content
        left = stage.left(answer)
        assert (left.request.state, left.logs, left.charges) == ("completed", [], [])
    assert stage.balance(account.id) == 1000
    logged = stage.log_of(stage.respond(stage.flexible("echo"), "x", by=account))
    assert logged.status_code == 200
    assert stage.left(answers[2]).logs == []
    assert "calls are not charged" in web.output()


def test_lines_are_shown_by_the_share_of_the_key_that_their_batch_was_made_with(
    stage: Gateway,
) -> None:
    account = stage.account(log_sample=0)
    body = {"model": stage.flexible("echo"), "messages": [{"role": "user", "content": "x"}]}
    run_batch(stage, account, "/v1/chat/completions", body)
    logged = stage.one("SELECT bodies FROM http_analytics WHERE user_id = %s", account.id)
    assert logged.bodies == "not_sampled"


@pytest.mark.parametrize("name", ["echo", "fail-400"])
def test_the_log_shows_nothing_of_a_line_that_is_not_to_be_stored(
    stage: Gateway, name: str
) -> None:
    """It stands in its owner's files alone."""
    mark, account = marker(), stage.account()
    body = {"model": stage.flexible(name), "messages": [{"role": "user", "content": mark}]}
    run_batch(stage, account, "/v1/chat/completions", {**body, "store": False})
    logged = stage.one("SELECT request_id, bodies FROM http_analytics WHERE user_id = %s", account.id)  # fmt: skip
    assert logged.bodies == "not_stored"
    seen = stage.admin("GET", f"/requests/{logged.request_id}", who="viewer").json()
    assert (seen["request_body"], seen["response_body"]) == (None, None)
    assert stage.get(f"/responses/resp_{logged.request_id}", by=account).status_code == 404


def test_the_log_shows_nothing_of_what_is_not_to_be_stored_and_may_not_be_run(
    stage: Gateway,
) -> None:
    account = stage.account(spend_limit="0.000001")
    refused = stage.respond(
        stage.flexible("echo"), by=account, service_tier="flex", store=False, max_output_tokens=8
    )
    assert_openai_error(refused, 402, "spend_cap_exceeded")
    assert stage.log_of(refused).bodies == "not_stored"
