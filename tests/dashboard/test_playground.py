"""The playground: whom it shows which models, what it replays, and its behaviour in a browser, to the upstream and back."""

from __future__ import annotations

import base64
import json
import os
import re
import subprocess
import sys
import zlib
from functools import cache
from typing import Any
from urllib.parse import quote, urlencode

import pytest
import requests
from playwright.sync_api import Page, expect

from tests import browser
from tests.dashboard.house import BROKEN, LARGE, PASSWORD, SMALL, House
from tests.gateway import PRICE, UNKNOWN, unique
from tests.processes import eventually

Json = dict[str, Any]

PIXEL = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
HOSTILE = (
    """<script>document.title = "owned"</script>

<img src=x onerror="document.title='owned'"> <svg onload="document.title='owned'"><style>* { display: none }</style></svg>

[run](javascript:document.title='owned') [data](data:text/html,<script>1</script>) [fine](https://example.com/page)

![spy](https://spy.example/pixel.png) ![inline](data:image/png;base64,iVBORw0KGgo=)

<div style="position:fixed;inset:0" onclick=alert(1)>covered</div>

| a | b |
|---|---|
"""
    + "| <b onmouseover=alert(1)>x</b> | `y` |\n" * 300
)


def fragment(**state: Any) -> str:
    """A link to the playground as it makes them."""
    packer = zlib.compressobj(wbits=-15)
    packed = packer.compress(json.dumps(state).encode()) + packer.flush()
    return "/playground#s=" + base64.urlsafe_b64encode(packed).decode().rstrip("=")


def chat(*models: str, said: str = "Hello", **more: Any) -> str:
    return fragment(models={"chat": list(models)}, draft={"text": said, "images": []}, **more)


def as_person(house: House, name: str, path: str) -> requests.Response:
    """A page without a browser, in a session of that person."""
    return requests.get(
        house.url + path, cookies=_session(house.url, house.people[name].email), timeout=20
    )


@cache
def _session(url: str, email: str) -> dict[str, str]:
    body = {"email": email, "password": PASSWORD}
    answer = requests.post(f"{url}/authentication/login", json=body, timeout=20)
    assert answer.ok, answer.text
    return dict(answer.cookies)


def last_seen(house: House) -> Json:
    body: Json = house.gateway.upstream.seen()[-1]["body"]
    return body


def modules(page: Page, script: str, argument: Any = None) -> Any:
    """Run a script that has the page's own modules: `load("name.js")` gives one."""
    page.goto("/playground")
    source = page.locator('script[src*="elements/play-ground.js"]').get_attribute("src")
    return page.evaluate(
        f"async ([folder, given]) => {{ const load = name => import(folder + name); {script} }}",
        [str(source).removesuffix("play-ground.js"), argument],
    )


# --- what the server shows


def test_only_models_that_the_person_may_call_are_offered_with_their_prices(house: House) -> None:
    closed = house.gateway.model("ok", alias=unique("closed"), everyone=False)
    found = {who: as_person(house, who, "/playground/models").json()["models"] for who in ("member", "admin")}  # fmt: skip
    for models in found.values():
        assert closed not in {model["alias"] for model in models}
    (small,) = as_person(house, "member", f"/playground/models?q={SMALL}").json()["models"]
    assert float(small["tariffs"]["realtime"]["input"]) == float(PRICE[0])
    assert small["tariffs"]["flex"]["input"] != small["tariffs"]["realtime"]["input"]


def test_a_call_is_replayed_for_those_who_may_read_it_alone(house: House) -> None:
    said = "Tell me <b>&amp;</b> this"
    member = house.people["member"].account
    answer = house.gateway.chat(BROKEN, by=member, body={"messages": [{"role": "user", "content": said}]})  # fmt: skip
    path = f"/playground?replay={answer.headers['x-request-id']}"
    house.gateway.log_of(answer)
    for who in ("member", "admin", "viewer"):
        page = as_person(house, who, path)
        assert page.status_code == 200
        assert "Tell me &lt;b&gt;" in page.text
        assert said not in page.text
    assert as_person(house, "biller", path).status_code == 404
    assert as_person(house, "member", f"/playground?replay={UNKNOWN}").status_code == 404
    assert as_person(house, "member", "/playground?replay=%3Cscript%3E").status_code == 400


def test_without_script_it_says_what_it_needs_and_shows_the_call(house: House) -> None:
    page = as_person(house, "member", "/playground").text
    without = page.partition("<noscript>")[2].partition("</noscript>")[0]
    assert "needs JavaScript" in without
    assert f"{house.url}/ai/v1/chat/completions" in without


# --- in a browser


def test_an_answer_streams_with_figures_and_a_link_to_its_log_row(page: Page, house: House) -> None:
    page.goto("/playground")
    page.locator('[data-part="models"]').evaluate("popup => { popup.open = true }")
    page.get_by_label(f"Remove {page.locator('.play-chip .cut').inner_text()}").click()
    page.get_by_text("Choose a model").click()
    page.get_by_label("Find a model").fill(LARGE)
    page.keyboard.press("Enter")
    page.get_by_label("Your message").fill("Count")
    page.keyboard.press("Control+Enter")
    answer = page.get_by_label(f"Answer of {LARGE}")
    expect(answer).to_contain_text("w39")
    expect(answer).to_contain_text("Done")
    # 9 and 3 tokens, as the upstream reports them, at the model's tariff.
    expect(answer).to_contain_text("9 in, 3 out")
    expect(answer.locator('[title="$0.00042"]')).to_have_text("$0.00042")
    assert last_seen(house)["messages"] == [{"role": "user", "content": "Count"}]
    row = str(answer.get_by_role("link", name="In the log").get_attribute("href"))
    id = row.rpartition("/")[2]
    assert float(house.gateway.log_of(id).total_cost) == 0.00042
    # The address holds it all: a reload has it, with the link; the server was not told.
    expect(page).to_have_url(re.compile("#s="))
    page.reload()
    expect(page.get_by_label(f"Answer of {LARGE}")).to_contain_text("w39")
    assert page.get_by_role("link", name="In the log").get_attribute("href") == row
    expect(page.get_by_label("Message 1, user")).to_have_value("Count")


def test_stopping_reaches_the_upstream_and_keeps_what_came(page: Page, house: House) -> None:
    upstream = house.gateway.upstream
    page.goto(chat(house.gateway.model("chunks-20+hold-stream", price=None)))
    page.get_by_role("button", name="Send", exact=True).click()
    answer = page.get_by_label(re.compile("Answer of"))
    expect(answer).to_contain_text("w2")
    expect(answer).to_contain_text("Writing")
    upstream.wait_active(1)
    page.keyboard.press("Escape")
    expect(answer).to_contain_text("Stopped")
    upstream.wait_active(0)
    assert upstream.seen()[-1]["outcome"] == "left"
    expect(answer).to_contain_text("w2")
    expect(page.get_by_role("button", name="Send", exact=True)).to_be_visible()


def test_models_stand_side_by_side_and_each_goes_on_with_its_own_answer(page: Page, house: House) -> None:  # fmt: skip
    thinks = house.gateway.model("reasoning")
    page.goto(chat(LARGE, thinks))
    page.get_by_role("button", name="Send", exact=True).click()
    expect(page.get_by_label(f"Answer of {LARGE}")).to_contain_text("Done")
    expect(page.get_by_label(f"Answer of {thinks}")).to_contain_text("Done")
    thoughts = page.get_by_label(f"Answer of {thinks}").get_by_text("Let me think.")
    expect(thoughts).to_be_hidden()
    page.get_by_label(f"Answer of {thinks}").locator("summary").click()
    expect(thoughts).to_be_visible()
    page.get_by_label("Your message").fill("And then?")
    page.keyboard.press("Control+Enter")
    expect(page.get_by_label(f"Answer of {LARGE}").nth(1)).to_contain_text("Done")
    expect(page.get_by_label(f"Answer of {thinks}").nth(1)).to_contain_text("Done")
    told = {seen["body"]["model"]: seen["body"]["messages"] for seen in house.gateway.upstream.seen()[-2:]}  # fmt: skip
    assert [message["content"] for message in told["reasoning"]] == ["Hello", "Hello there friend", "And then?"]  # fmt: skip
    assert told["chunks-40"][1]["content"].startswith("w0 w1")


@pytest.mark.parametrize("api", ["chat", "responses"])
def test_a_tools_result_is_typed_in_and_sent_on(page: Page, house: House, api: str) -> None:
    tools = [{"type": "function", "function": {"name": "look_up", "parameters": {"type": "object", "properties": {}}}}]  # fmt: skip
    page.goto(chat(house.gateway.model("tools"), api=api, set={"tools": json.dumps(tools)}))
    page.get_by_role("button", name="Send", exact=True).click()
    expect(page.get_by_text("calls look_up")).to_be_visible()
    page.get_by_label("Its result").fill("12 degrees")
    page.get_by_role("button", name="Send the results").click()
    expect(page.get_by_label("Answer of tools").nth(1)).to_contain_text("Hello there friend")
    asked = last_seen(house)
    assert asked["tools"][0]["function"]["name"] == "look_up"
    call, result = asked["messages"][-2:]
    assert call["tool_calls"][0]["function"] == {"name": "look_up", "arguments": '{"city":"Oslo"}'}
    assert (result["role"], result["content"]) == ("tool", "12 degrees")
    assert result["tool_call_id"] == call["tool_calls"][0]["id"]


def test_an_image_is_shown_and_sent_as_a_data_url(page: Page, house: House) -> None:
    page.goto(chat(SMALL, said="What is this?"))
    page.locator('[data-part="file"]').set_input_files(
        [{"name": "pixel.png", "mimeType": "image/png", "buffer": PIXEL}]
    )
    expect(page.get_by_role("img", name="Image 1")).to_be_visible()
    page.get_by_text("Image by address").click()
    page.get_by_label("Address; the model's server fetches it").fill("https://pictures.example/cat.png")  # fmt: skip
    page.keyboard.press("Enter")
    page.get_by_role("button", name="Send", exact=True).click()
    expect(page.get_by_label(f"Answer of {SMALL}")).to_contain_text("Done")
    text, first, second = last_seen(house)["messages"][0]["content"]
    assert text == {"type": "text", "text": "What is this?"}
    assert first["image_url"]["url"] == "data:image/png;base64," + base64.b64encode(PIXEL).decode()
    assert second["image_url"]["url"] == "https://pictures.example/cat.png"
    page.locator('[data-part="file"]').set_input_files(
        [{"name": "a.svg", "mimeType": "image/svg+xml", "buffer": b"<svg/>"}]
    )
    expect(page.locator("#notice")).to_contain_text("no picture that models read")


def test_texts_are_embedded_and_documents_ranked(page: Page, house: House) -> None:
    embeds, ranks = house.gateway.model("embed-small"), house.gateway.model("rank")
    page.goto(fragment(kind="embeddings", models={"embeddings": [embeds], "rerank": [ranks]}))
    page.get_by_role("textbox", name="Text 1").fill("a cat")
    page.get_by_role("textbox", name="Text 2").fill("a dog")
    page.get_by_role("button", name="Embed", exact=True).click()
    row = page.get_by_role("row", name="a dog")
    expect(row.get_by_role("cell")).to_have_text(["a dog", "2", "0.5590", "0.2500, -0.5000", "1.0000", "1.0000"])  # fmt: skip
    page.get_by_text("Rerank", exact=True).click()
    page.get_by_label("Query").fill("pets")
    page.get_by_role("textbox", name="Document 1").fill("a stone")
    page.get_by_role("textbox", name="Document 2").fill("a hamster")
    page.keyboard.press("Control+Enter")
    expect(page.get_by_role("row").nth(1).get_by_role("cell")).to_have_text(["1", "a hamster", "1.0000", "2"])  # fmt: skip
    assert last_seen(house)["query"] == "pets"


@pytest.mark.parametrize("streams", [True, False])
def test_a_text_is_gone_on_with_and_replayed(page: Page, house: House, streams: bool) -> None:
    page.goto(fragment(kind="completions", models={"completions": [SMALL]}, stream=streams, set={"temperature": "0.5", "stop": "END"}))  # fmt: skip
    send = page.get_by_role("button", name="Complete", exact=True)
    send.click()
    expect(page.get_by_role("status").filter(has_text="Write a text to go on with first.")).to_be_visible()  # fmt: skip
    page.get_by_label("Text to go on with").fill("Once upon a time")
    send.click()
    answer = page.get_by_label(f"Answer of {SMALL}")
    expect(answer).to_contain_text("Hello there friend")
    seen = last_seen(house)
    assert (seen["prompt"], seen["temperature"], seen["stop"]) == ("Once upon a time", 0.5, ["END"])
    assert seen.get("stream", False) is streams
    row = str(answer.get_by_role("link", name="In the log").get_attribute("href"))
    eventually(lambda: as_person(house, "admin", row).ok)
    page.goto(f"/playground?replay={row.rpartition('/')[2]}")
    expect(page.get_by_label("Text to go on with")).to_have_value("Once upon a time")


@pytest.mark.parametrize("person", ["admin", "member"])
def test_it_opens_on_a_model_that_answers(page: Page, house: House, person: str) -> None:
    fails = house.gateway.model("fail-500", alias=f"a-{unique('fails')}")
    for _ in range(2):
        house.gateway.chat(fails, by=house.people["member"].account)
    eventually(lambda: as_person(house, person, "/playground/lately").json().get(fails) == [2, 2])
    page.goto("/playground")
    chosen = page.locator(".play-chip .play-model")
    expect(chosen).to_have_count(1)
    calls, failed = as_person(house, person, "/playground/lately").json()[chosen.inner_text()]
    assert failed < calls / 2
    page.locator('[data-part="models"] summary').click()
    expect(page.get_by_role("button", name=fails)).to_contain_text("fails now")


@pytest.mark.parametrize(("kind", "shown"), [(None, "Send"), ("CHAT", "Send"), ("EMBEDDINGS", "Embed")])  # fmt: skip
def test_try_it_opens_on_that_very_model(page: Page, house: House, kind: str | None, shown: str) -> None:  # fmt: skip
    """Whatever is in its alias, and whichever is called most."""
    alias = house.gateway.model(
        "ok", alias=f"a/b c?d#e%f%20&g {unique('m')}", price=None, wait=False
    )
    id = house.gateway.admin("GET", f"/models?{urlencode({'alias': alias})}").json()["data"][0]["id"]  # fmt: skip
    house.gateway.admin("PATCH", f"/models/{id}", {"model_type": kind})
    page.goto(f"/models/{quote(alias)}")
    with page.expect_response(re.compile("/playground/lately")):
        page.get_by_role("link", name="Try it").click()
    expect(page.locator(".play-chip")).to_have_count(1)
    expect(page.locator(".play-chip .play-model")).to_have_text(alias)
    expect(page.locator('[data-part="send"]')).to_contain_text(shown)


def test_a_failed_call_of_the_log_opens_with_all_that_it_had(page: Page, house: House) -> None:
    sent = {
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": [{"type": "text", "text": "Look"}, {"type": "image_url", "image_url": {"url": "https://a.example/b.png"}}]},
            {"role": "assistant", "content": None, "tool_calls": [{"id": "c1", "type": "function", "function": {"name": "see", "arguments": "{}"}}]},
            {"role": "tool", "tool_call_id": "c1", "content": "a cat"},
            {"role": "user", "content": "So?", "name": "ada"},
        ],
        "temperature": 0.25,
        "max_tokens": 77,
        "stop": ["END"],
        "presence_penalty": 0.5,
    }  # fmt: skip
    answer = house.gateway.chat(BROKEN, by=house.people["member"].account, body=sent)
    house.gateway.log_of(answer)
    page.goto(f"/playground?replay={answer.headers['x-request-id']}")
    expect(page.get_by_text("Replays")).to_contain_text(answer.headers["x-request-id"])
    expect(page.get_by_label("System prompt")).to_have_value("Be brief.")
    expect(page.get_by_label("Temperature")).to_have_value("0.25")
    browser.expect_status(page, 500, 502)
    page.get_by_role("button", name="Send", exact=True).click()
    failed = page.get_by_label(f"Answer of {BROKEN}")
    expect(failed.get_by_role("alert")).to_contain_text("Send it again, or try another model.")
    expect(failed).to_contain_text("Failed")
    again = last_seen(house)
    for name, value in sent.items():
        assert again[name] == value


def test_what_a_model_writes_is_never_more_than_text(page: Page, house: House) -> None:
    page.goto(chat(house.gateway.model("echo"), said=HOSTILE))
    title = page.title()
    page.get_by_role("button", name="Send", exact=True).click()
    answer = page.get_by_label("Answer of echo")
    expect(answer).to_contain_text("Done")
    expect(answer.get_by_role("row")).to_have_count(301)
    expect(answer).to_contain_text("<script>document.title")
    text = answer.locator(".play-text").last
    for element in ("script", "svg", "style", "b", "[style]", "[onclick]", "[onerror]", "[onmouseover]"):  # fmt: skip
        expect(text.locator(element)).to_have_count(0)
    links = text.get_by_role("link")
    assert [link.get_attribute("href") for link in links.all()] == ["https://example.com/page", "https://spy.example/pixel.png"]  # fmt: skip
    for link in links.all():
        assert link.get_attribute("rel") == "noopener noreferrer nofollow"
        assert link.get_attribute("target") == "_blank"
    assert [image.get_attribute("src") for image in text.locator("img").all()] == ["data:image/png;base64,iVBORw0KGgo="]  # fmt: skip
    # As it is, where that is wanted.
    page.get_by_label("Plain text").check()
    expect(answer).to_contain_text("| <b onmouseover=alert(1)>x</b>")
    assert page.title() == title


def test_a_stream_that_is_cut_shows_what_came(page: Page, house: House) -> None:
    page.goto(chat(house.gateway.model("chunks-40+cut")))
    page.get_by_role("button", name="Send", exact=True).click()
    answer = page.get_by_label(re.compile("Answer of"))
    expect(answer).to_contain_text("Cut off")
    expect(answer).to_contain_text("w5")
    expect(answer.get_by_role("alert")).to_contain_text("What came is kept above")


def test_flex_waits_for_a_worker_and_says_so(page: Page, house: House) -> None:
    page.goto(chat(SMALL, api="responses", set={"tier": "flex"}))
    page.get_by_role("button", name="Send", exact=True).click()
    answer = page.get_by_label(f"Answer of {SMALL}")
    expect(answer).to_contain_text("Hello there friend")
    expect(answer).to_contain_text("Done")
    # 9 and 3 tokens at the price of the window, not of realtime.
    expect(answer.locator('[title="$0.0015"]')).to_be_visible()


def test_what_the_api_refuses_is_said_at_its_field(page: Page, house: House) -> None:
    page.goto(chat(SMALL, api="responses", set={"extra": '{"temperature": "hot"}', "tools": "[1"}))
    page.get_by_role("button", name="Send", exact=True).click()
    expect(page.get_by_label("Tools", exact=True)).to_be_focused()
    expect(page.get_by_label("Tools", exact=True)).to_have_accessible_description(re.compile("Not JSON"))  # fmt: skip
    page.get_by_label("Tools", exact=True).fill("")
    browser.expect_status(page, 400)
    page.get_by_role("button", name="Send", exact=True).click()
    alert = page.get_by_role("alert")
    expect(alert).to_contain_text("temperature")
    said = alert.locator("p").first.inner_text()
    expect(page.get_by_label("Temperature")).to_have_accessible_description(said)


def test_it_is_used_by_keyboard_alone(page: Page, house: House) -> None:
    page.goto(chat(SMALL, said=""))
    page.get_by_label("Your message").focus()
    page.keyboard.type("First")
    page.keyboard.press("Control+Enter")
    expect(page.get_by_label(f"Answer of {SMALL}")).to_contain_text("Done")
    page.keyboard.press("ArrowUp")
    expect(page.get_by_label("Message 1, user")).to_be_focused()
    page.keyboard.type(" of all")
    page.get_by_role("button", name="Answer from here: message 1").focus()
    page.keyboard.press("Enter")
    expect(page.get_by_label("Message 1, user")).to_have_value("First of all")
    expect(page.get_by_label(f"Answer of {SMALL}")).to_contain_text("Done")
    assert last_seen(house)["messages"][-1]["content"] == "First of all"


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [browser.WIDE, browser.NARROW])
def test_it_is_accessible_and_fits(page: Page, house: House, theme: str, width: int) -> None:
    page.goto(chat(SMALL, house.gateway.model("tools"), house.gateway.model("fail-500")))
    browser.expect_status(page, 500, 502)
    page.get_by_role("button", name="Send", exact=True).click()
    expect(page.get_by_label("Answer of fail-500")).to_contain_text("Failed")
    expect(page.get_by_label("Its result")).to_be_enabled()
    assert browser.axe(page) == []
    assert page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0
    browser.shot(page, f"playground-{theme}-{width}")


def test_the_code_that_is_shown_runs_as_printed(page: Page, house: House) -> None:
    page.goto(chat(SMALL, said='It\'s "quoted" & $HOME', stream=False, set={"temperature": "0.5"}))
    page.locator('[data-part="code"] summary').click()
    environment = os.environ | {"API_KEY": house.people["member"].account.key}
    runs = {"curl": ["bash", "-c"], "python": [sys.executable, "-c"], "sdk": [sys.executable, "-c"]}
    for name, command in runs.items():
        code = page.locator(f'[data-code="{name}"] code')
        expect(code).to_contain_text("0.5")
        text = str(code.text_content())
        ran = subprocess.run([*command, text], env=environment, capture_output=True, text=True, timeout=60, check=False)  # fmt: skip
        assert "Hello there friend" in ran.stdout, ran.stderr
        assert last_seen(house)["messages"][0]["content"] == 'It\'s "quoted" & $HOME'


# --- modules without a screen


def test_costs_are_exact(page: Page) -> None:
    found = modules(
        page,
        """const { cost, money } = await load("play-cost.js");
        const tariff = { input: "0.00000020", output: "0.0000008", cached: "0.00000002", reasoning: null };
        return [cost(tariff, { prompt: 3, completion: 1, cached: 1, reasoning: 1 }), cost(null, { prompt: 1 }), cost(tariff, { prompt: 0, completion: 0 }),
                cost({ input: "1.5", output: "0" }, { prompt: 3, completion: 9 }), money("0.000001220"), money("12.345"), money("0")];""",
    )
    assert found == ["0.00000122", None, "0", "4.5", "$0.00000122", "$12.35", "$0"]


def test_events_are_read_however_they_are_cut(page: Page) -> None:
    found = modules(
        page,
        """const { EventReader } = await load("sse.js");
        return given.map(pieces => { const reader = new EventReader(); return pieces.flatMap(piece => reader.push(piece)); });""",
        [["data: a\n\ndata: b\n\n"], ["da", "ta: a\r\n", "\r\ndata:b\r\n\r\n"], [": waiting\n\nevent: x\ndata: 1\ndata: 2\n\n"], ["data: unfinished\n"]],
    )  # fmt: skip
    assert found == [["a", "b"], ["a", "b"], ["1\n2"], []]


def test_finished_blocks_are_not_parsed_again_and_long_rests_stay_plain(page: Page) -> None:
    found = modules(
        page,
        """const { GrowingText, load: parser } = await load("markdown.js");
        const parse = await parser();
        const place = document.createElement("div");
        const growing = new GrowingText(place);
        await new Promise(resolve => setTimeout(resolve));
        growing.show("# One\\n\\nTwo *th");
        const first = place.firstChild;
        first.mark = "kept";
        growing.show("# One\\n\\nTwo *three*\\n\\n```\\na\\n\\nb\\n");
        const fence = place.lastChild.textContent;
        const long = "# One\\n\\nTwo *three*\\n\\n```\\na\\n\\nb\\n" + "x\\n".repeat(4000);
        growing.show(long);
        const isPlain = Boolean(place.querySelector(".play-plain"));
        growing.show(long + "```\\n\\nEnd");
        growing.show(long + "```\\n\\nEnd", { over: true });
        return [place.firstChild.mark, first.tagName, fence.includes("b"), isPlain, Boolean(place.querySelector(".play-plain")), place.querySelectorAll("pre").length,
                place.querySelector("em").textContent, place.textContent.trim().endsWith("End")];""",
    )
    assert found == ["kept", "H1", True, True, False, 1, "three", True]


def test_a_link_of_a_stranger_is_taken_for_what_it_is(page: Page) -> None:
    found = modules(
        page,
        """const { cleaned, packed, unpacked, fresh } = await load("play-state.js");
        const state = { ...fresh(), system: "Grüße 🌍", turns: [{ role: "user", text: "Hi", images: [] }] };
        const bomb = new Uint8Array(await new Response(new Blob([new Uint8Array(20_000_000).fill(32)]).stream().pipeThrough(new CompressionStream("deflate-raw"))).arrayBuffer());
        let binary = ""; for (const byte of bomb) binary += String.fromCharCode(byte);
        return { same: JSON.stringify(await unpacked((await packed(state)).text)) === JSON.stringify(state),
                 empty: (await packed(fresh())).text, broken: await unpacked("%%%"), bomb: await unpacked(btoa(binary)),
                 odd: cleaned({ kind: "x", models: { chat: [1, "a", "a", "b", "c", "d", "e"] }, turns: [null, 7, { role: "evil" }, { role: "user", text: 5, images: ["javascript:1"] }], set: { temperature: {}, toString: "x" } }) };""",
    )
    assert (found["same"], found["empty"], found["broken"], found["bomb"]) == (True, "", None, None)
    assert found["odd"]["models"]["chat"] == ["a", "b", "c", "d"]
    assert found["odd"]["turns"] == [{"role": "user", "text": "", "images": []}]
    assert found["odd"]["set"] == {}


def test_a_replayed_request_of_responses_loses_nothing(page: Page) -> None:
    sent = {
        "model": "m",
        "instructions": "Be brief.",
        "input": [
            {"role": "user", "content": [{"type": "input_text", "text": "Look"}, {"type": "input_image", "image_url": "https://a.example/b.png"}]},
            {"type": "function_call", "call_id": "c1", "name": "see", "arguments": "{}"},
            {"type": "function_call_output", "call_id": "c1", "output": "a cat"},
            {"type": "item_reference", "id": "rs_1"},
        ],
        "reasoning": {"effort": "low", "summary": "auto"},
        "text": {"format": {"type": "json_schema", "name": "answer", "schema": {"type": "object"}, "strict": True}},
        "tools": [{"type": "function", "name": "see", "parameters": {}}],
        "tool_choice": {"type": "function", "name": "see"},
        "max_output_tokens": 5,
        "metadata": {"a": "b"},
        "stream": True,
    }  # fmt: skip
    found = modules(
        page,
        """const { stateOf } = await load("play-replay.js");
        const { bodyFor } = await load("play-bodies.js");
        return bodyFor(stateOf("/responses", given), "m");""",
        sent,
    )
    assert found == sent
