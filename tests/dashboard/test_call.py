"""A call's story: what its page says of calls that really happened, and to whom."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from decimal import Decimal
from html import unescape
from uuid import UUID, uuid4

import pytest
import requests
from playwright.sync_api import Page, expect

from tests import browser
from tests.dashboard.house import BROKEN, PASSWORD, SMALL, House
from tests.gateway import Account, request_id, unique
from tests.processes import eventually

_TAG = re.compile(r"<[^>]+>")


@dataclass(frozen=True)
class Shown:
    """A page as people read it."""

    status: int
    html: str

    @property
    def text(self) -> str:
        return _read(self.html)

    @property
    def verdict(self) -> str:
        return _read(self._part(r'<p class="verdict-text".*?</p>'))

    @property
    def steps(self) -> dict[str, str]:
        """By name; of several targets the last one."""
        found = re.findall(
            r'<li class="step [^>]*data-step="(\w+)">(.*?)</li>', self.html, re.DOTALL
        )
        return {name: _read(step) for name, step in found}

    def body(self, name: str) -> str:
        return self._part(rf'data-body="{name}".*?</section>')

    def _part(self, pattern: str) -> str:
        found = re.search(pattern, self.html, re.DOTALL)
        assert found, self.text[-2000:]
        return found[0]


def _read(html: str) -> str:
    return re.sub(r"\s+", " ", unescape(_TAG.sub(" ", html)).replace("\u202f", " ")).strip()


class Visits:
    """Pages as one of the house, without a browser."""

    def __init__(self, house: House) -> None:
        self._house = house
        self._sessions: dict[str, requests.Session] = {}

    def session(self, person: str) -> requests.Session:
        if person not in self._sessions:
            session = self._sessions[person] = requests.Session()
            body = {"email": self._house.people[person].email, "password": PASSWORD}
            session.post(
                f"{self._house.url}/authentication/login", json=body, timeout=20
            ).raise_for_status()
        return self._sessions[person]

    def __call__(self, path: object, person: str = "admin", **more: object) -> Shown:
        answer = self.session(person).get(f"{self._house.url}/requests/{path}", timeout=20, **more)  # type: ignore[arg-type]
        return Shown(answer.status_code, answer.text)


@pytest.fixture(scope="module")
def visit(house: House) -> Visits:
    return Visits(house)


@pytest.fixture
def story(house: House, visit: Visits) -> Callable[..., Shown]:
    """The page of a call, once it is in the log."""

    def story(answer: requests.Response | UUID, person: str = "admin") -> Shown:
        log = house.gateway.log_of(answer)
        return visit(log.request_id, person)

    return story


@pytest.fixture
def member(house: House) -> Account:
    return house.people["member"].account


Story = Callable[..., Shown]


class TestServed:
    def test_at_once(self, house: House, member: Account, story: Story) -> None:
        found = story(house.gateway.chat(SMALL, by=member))
        assert found.verdict.startswith("200 Served in")
        assert list(found.steps) == ["received", "admitted", "sent", "first", "done", "charged"]
        assert "POST /chat/completions" in found.steps["received"]
        assert "by the tariff “price”" in found.steps["charged"]

    def test_streamed_it_shows_what_the_model_said(
        self, house: House, member: Account, story: Story
    ) -> None:
        answer = house.gateway.chat("chat-large", by=member, stream=True)
        _ = answer.content
        found = story(answer)
        assert found.steps["first"].startswith("+")
        assert "First token" in found.steps["first"]
        assert "tokens a second" not in found.steps["first"], "three tokens are no rate"
        assert '<span class="tag">assistant</span>' in found.body("answered")

    def test_after_another_target_had_failed(
        self, house: House, member: Account, story: Story
    ) -> None:
        pool = house.gateway.pool("fail-503", "nowhere", "ok")
        found = story(house.gateway.chat(pool, by=member))
        first, second, third = (
            re.findall(r"server\d-\w+", found.verdict)[1:]
            + re.findall(r"server\d-\w+", found.verdict)[:1]
        )
        assert (
            f"by {third} after {first} answered 503 and {second} gave no whole answer"
            in found.verdict
        )
        assert "Try 3" in found.steps["sent"]

    def test_by_a_worker(self, house: House, member: Account, story: Story) -> None:
        made = house.gateway.respond(SMALL, service_tier="flex", background=True, by=member)
        eventually(lambda: house.gateway.state(made.json()["id"]) == "completed")
        found = story(request_id(made.json()["id"]))
        assert "It asked for flex, so it waited for a worker, within 1h." in found.steps["queued"]
        assert re.search(r"By \S+ \(\d+\)", found.steps["claimed"])

    def test_of_its_member_without_who_served_it(
        self, house: House, member: Account, story: Story
    ) -> None:
        answer = house.gateway.chat(house.gateway.pool("fail-503", "ok"), by=member)
        found = story(answer, "member")
        assert re.match(r"200 Served in [\d.]+ m?s", found.verdict)
        assert not re.search(r"server\d-", found.html)
        assert "Sent to the model" in found.steps["sent"]


class TestRefused:
    @pytest.mark.parametrize(
        ("model", "account", "status", "said", "advice"),
        [
            (
                "no-such-model",
                {},
                404,
                "does not exist or you do not have access",
                "Check the name",
            ),
            (SMALL, {"credit": None}, 402, "Account balance too low", "Add credits"),
        ],
    )
    def test_it_says_why_and_what_helps(
        self, house: House, story: Story, model: str, account: dict[str, None], status: int, said: str, advice: str
    ) -> None:  # fmt: skip
        found = story(house.gateway.chat(model, by=house.gateway.account(**account)))
        assert found.verdict.startswith(f"{status} Refused with {status} before anything was sent")
        assert said in found.verdict
        assert advice in found.text
        assert list(found.steps) == ["received", "refused", "charged"]

    def test_the_limit_is_named(self, house: House, story: Story) -> None:
        account = house.gateway.account(requests_per_second=0.01, burst_size=1)
        for _ in range(2):
            answer = house.gateway.chat(SMALL, by=account)
        assert "this API key takes 0.01 a second" in story(answer).verdict


class TestFailed:
    def test_a_provider_that_fails(self, house: House, member: Account, story: Story) -> None:
        found = story(house.gateway.chat(BROKEN, by=member))
        assert re.match(r"500 Failed after .* with 500: \S+ answered 500[.;]", found.verdict)
        assert "Not charged" in found.steps["charged"]

    def test_a_stream_that_breaks_off_is_no_success(
        self, house: House, member: Account, story: Story
    ) -> None:
        answer = house.gateway.chat(house.gateway.model("half"), by=member, stream=True)
        _ = answer.content
        found = story(answer)
        assert "Broke off after" in found.verdict
        assert "Broke off" in found.steps["done"]

    def test_its_caller_left(self, house: House, member: Account, story: Story) -> None:
        answer = house.gateway.chat(house.gateway.model("hold-stream"), by=member, stream=True)
        answer.close()
        assert "Its caller left after" in story(answer).verdict


def test_the_price_adds_up_to_what_the_ledger_has(
    house: House, member: Account, story: Story
) -> None:
    model = house.gateway.model(
        "usage-1201-47+cached-803+thought-13",
        price=None,
        tariffs=[
            {
                "name": "odd",
                "input_price_per_token": "0.00000123",
                "output_price_per_token": "0.000004567",
                "cached_input_price_per_token": "0.000000307",
                "reasoning_price_per_token": "0.00000511",
                "api_key_purpose": "realtime",
            }
        ],
    )
    answer = house.gateway.chat(model, by=member)
    found = story(answer)
    table = found.html[found.html.index('id="price"') :]
    amounts = [
        Decimal(one) for one in re.findall(r'<td class="num mono lead">([\d.]+)</td>', table)
    ]
    assert len(amounts) == 5
    (charge,) = house.gateway.left(answer).charges
    assert sum(amounts[:-1]) == amounts[-1] == charge.amount
    assert str(charge.id) in found.html
    assert "does not add up" not in found.text


class TestNotOver:
    @pytest.fixture
    def waiting(self, house: House, member: Account) -> Iterator[str]:
        """The id of a response behind two others at a model that runs one at a time, none of which ends by itself."""
        model = house.gateway.flexible("hold", alias=unique("one-place"), batch_capacity=1)
        made = []
        for number in range(3):
            made.append(house.gateway.respond(model, f"Hello {number}", service_tier="flex", background=True, by=member).json()["id"])  # fmt: skip
            if not number:
                house.gateway.begun(made[0])
        yield made[-1]
        for id in made:
            house.gateway.cancel(id, by=member)

    def test_it_says_why_it_waits_and_behind_how_many(self, visit: Visits, waiting: str) -> None:
        for person in ("admin", "member"):
            found = visit(request_id(waiting), person)
            assert found.verdict.startswith("pending Waiting for")
            assert "the model's one place is taken, and 1 call is due before it." in found.verdict
            assert 'hx-trigger="every' in found.html

    def test_cancelled_before_anybody_began_it(
        self, house: House, visit: Visits, member: Account, waiting: str
    ) -> None:
        house.gateway.cancel(waiting, by=member)
        found = visit(request_id(waiting))
        assert "Ended before any worker had begun it" in found.verdict
        assert "hx-trigger" not in found.html

    def test_others_do_not_see_it(self, visit: Visits, waiting: str) -> None:
        assert visit(request_id(waiting), "manager").status == 404


class TestWhoMay:
    def test_only_its_owner_and_readers_of_the_log(
        self, house: House, member: Account, visit: Visits
    ) -> None:
        id = house.gateway.log_of(house.gateway.chat(SMALL, by=member)).request_id
        assert [
            visit(id, person).status
            for person in ("admin", "viewer", "member", "manager", "biller")
        ] == [200, 200, 200, 404, 404]

    def test_what_is_not_there(self, visit: Visits) -> None:
        assert visit(uuid4()).status == 404
        assert visit("nonsense").status == 400


class TestBodies:
    HOSTILE = '</pre><script>alert(1)</script><img src=x onerror="alert(1)">'

    def test_html_stays_text(self, house: House, member: Account, story: Story) -> None:
        found = story(house.gateway.converse(house.gateway.model("echo"), self.HOSTILE, by=member))
        assert "<script>alert" not in found.html
        assert "<img src=x" not in found.html
        assert found.text.count("<script>alert(1)</script>") >= 2

    @pytest.mark.parametrize(
        "sent",
        [b'{"model": "x", "messages": ' + b"[" * 3000 + b"]" * 3000 + b"}", b"\xff\xfe\x00\x01", b"", b'{"model": "x", "messages": [{"role": "user", "content": "' + b"x" * 200_000 + b'"}]}'],
        ids=["deep", "binary", "empty", "huge"],
    )  # fmt: skip
    def test_odd_ones_are_shown_within_bounds(
        self, house: House, member: Account, story: Story, sent: bytes
    ) -> None:
        found = story(house.gateway.post("/chat/completions", sent, by=member))
        assert found.status == 200
        assert "Refused with" in found.verdict
        assert len(found.html) < 400_000

    def test_of_what_is_not_kept_there_is_none(self, house: House, story: Story) -> None:
        account = house.gateway.account(zero_data_retention=True)
        answer = house.gateway.converse(house.gateway.model("echo"), "my secret words", by=account)
        found = story(answer)
        assert "zero data retention" in found.text
        assert "secret words" not in found.html
        assert "Replay" not in found.text


class TestAround:
    def test_neighbours_are_those_of_the_list(self, house: House, visit: Visits) -> None:
        account = house.gateway.account()
        ids = [
            str(house.gateway.log_of(house.gateway.chat(model, by=account)).request_id)
            for model in (SMALL, "no-such-model", SMALL)
        ]

        def beside(id: str, way: str, **filters: str) -> str:
            address = f"{house.url}/requests/{id}/{way}"
            answer = visit.session("admin").get(address, params={"user": str(account.id), **filters}, timeout=20, allow_redirects=False)  # fmt: skip
            assert answer.status_code == 303
            return answer.headers["location"]

        assert ids[1] in beside(ids[2], "older")
        assert ids[0] in beside(ids[2], "older", model=SMALL)
        assert f"model={SMALL}" in beside(ids[2], "older", model=SMALL)
        assert ids[1] in beside(ids[0], "newer", status="4xx")
        assert ids[0] in beside(ids[0], "older"), "there is none: it stays where it is"

    def test_compared_with_the_call_before(self, house: House, visit: Visits) -> None:
        account = house.gateway.account()
        for said in ("The first question", "The second question"):
            answer = house.gateway.converse(SMALL, said, by=account)
            house.gateway.log_of(answer)
        found = visit(f"{answer.headers['x-request-id']}/compare")
        assert '<span class="gone">-      "content": &#34;The first' in found.html.replace(
            "&#34;content&#34;", '"content"'
        )
        assert "The second question" in found.text

    def test_the_command_sends_the_same_again(
        self, house: House, member: Account, story: Story
    ) -> None:
        found = story(house.gateway.converse(SMALL, 'it\'s "quoted" $HOME', by=member))
        command = unescape(re.search(r"<code>(curl [^<]*/ai/v1/[^<]*)</code>", found.html)[1])  # type: ignore[index]
        assert command.startswith(f"curl {house.url}/ai/v1/chat/completions")
        assert """it'"'"'s \\"quoted\\" $HOME""" in command

    def test_the_part_for_a_drawer_is_no_page(
        self, visit: Visits, house: House, member: Account
    ) -> None:
        id = house.gateway.log_of(house.gateway.chat(SMALL, by=member)).request_id
        found = visit(id, headers={"HX-Request": "true", "HX-Request-Type": "partial"})
        assert found.html.lstrip().startswith('<div class="stack" id="call"')


# --- in a browser


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [browser.WIDE, browser.NARROW])
def test_everybody_can_read_it(
    page: Page, house: House, member: Account, theme: str, width: int
) -> None:
    answer = house.gateway.chat(house.gateway.pool("fail-503", "ok"), by=member)
    house.gateway.log_of(answer)
    page.goto(f"/requests/{answer.headers['x-request-id']}")
    expect(page.locator(".verdict-text")).to_contain_text("Served in")
    assert browser.axe(page) == []
    browser.shot(page, f"call-{theme}-{width}")
    overflow = page.evaluate(
        "document.documentElement.scrollWidth - document.documentElement.clientWidth"
    )
    assert overflow == 0


@pytest.mark.parametrize("person", ["member"])
def test_a_waiting_call_follows_itself_until_it_is_over(
    page: Page, house: House, member: Account, person: str
) -> None:
    model = house.gateway.flexible("hold", alias=unique("held"))
    made = house.gateway.respond(model, service_tier="flex", background=True, by=member).json()[
        "id"
    ]
    house.gateway.begun(made)
    page.goto(f"/requests/{request_id(made)}")
    expect(page.locator(".verdict-text")).to_contain_text("Running")
    requests.post(f"{house.gateway.upstream.url.removesuffix('/v1')}/release", timeout=20)
    eventually(lambda: house.gateway.of(made).logs)
    expect(page.locator(".verdict-text")).to_contain_text("Served in")
    expect(page.locator("[data-body=answered]")).to_be_visible()
    expect(page.locator("#call")).to_have_count(1)
