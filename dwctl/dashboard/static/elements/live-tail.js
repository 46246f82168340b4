// Puts calls on top of the list as they are written down. It respects the reader: while somebody points at the table, has the focus in it or reads a
// call, new rows wait behind a button. Rows come as HTML from the list's own template; `src` streams them, `since` is when the list was made.
import { notify } from "../app.js";

const MOST_ROWS = 100;
const REMEMBERED = 5000;
const AGAIN_MS = 2000;
const SLOWEST_AGAIN_MS = 30000;
// Rows are committed a moment after the time that they bear; what comes twice is known by its id.
const OVERLAP_US = 5_000_000;
const SKIPPED_FOR_MS = 5000;
const GRACE_MS = 1000;

class LiveTail extends HTMLElement {
  #on = false;
  #stream = null;
  #again = 0;
  #failures = 0;
  #last = "";
  #seen = new Set();
  #waiting = [];
  #count = 0;
  #pointed = false;
  #leaving = 0;
  #painting = 0;
  #quiet = 0;

  connectedCallback() {
    this.button = this.querySelector("[data-live]");
    this.button.hidden = false;
    this.button.addEventListener("click", this);
    this.list = this.closest("request-list");
    this.table = this.list.querySelector("table");
    for (const kind of ["pointerover", "pointerleave", "focusout"]) this.table?.addEventListener(kind, this);
    this.list.querySelector("dialog")?.addEventListener("close", this);
    document.addEventListener("visibilitychange", this);
    this.#last = String(Date.parse(this.getAttribute("since")) * 1000 - OVERLAP_US);
    for (const row of this.list.querySelectorAll("tr[data-row]")) this.#seen.add(row.dataset.row);
    if (new URLSearchParams(location.search).has("live")) this.#start();
  }

  disconnectedCallback() {
    this.#off();
    clearTimeout(this.#leaving);
    document.removeEventListener("visibilitychange", this);
  }

  handleEvent(event) {
    if (event.type === "click") return this.#on ? this.#stop() : this.#start();
    if (event.type === "visibilitychange") return this.#on && (document.hidden ? this.#pause() : this.#connect());
    if (event.type === "pointerleave") {
      // Time to reach the button: what waits would be put in, and the button gone, on the way there.
      this.#leaving = setTimeout(() => {
        this.#pointed = false;
        this.#paintSoon();
      }, GRACE_MS);
      return;
    }
    if (event.type === "pointerover") {
      clearTimeout(this.#leaving);
      this.#pointed = event.pointerType !== "touch";
    }
    this.#paintSoon();
  }

  #start() {
    this.#on = true;
    this.#note("1");
    this.#tell("Live");
    this.button.setAttribute("aria-pressed", "true");
    this.button.classList.add("is-live");
    if (!document.hidden) this.#connect();
  }

  #off() {
    this.#on = false;
    this.#pause();
    this.#waiting = [];
    this.#count = 0;
    this.#offer();
    this.button.setAttribute("aria-pressed", "false");
    this.button.classList.remove("is-live");
    this.#tell("Live");
  }

  #stop() {
    this.#off();
    this.#note("");
  }

  // The address is the view: a reload goes on, and so does the list under other filters.
  #note(live) {
    const here = new URL(location);
    if (live) here.searchParams.set("live", live);
    else here.searchParams.delete("live");
    history.replaceState(history.state, "", here);
    const kept = document.querySelector("#filters [name=live]");
    if (kept) kept.value = live;
  }

  #pause() {
    clearTimeout(this.#again);
    this.#stream?.abort();
    this.#stream = null;
  }

  #tell(words) {
    this.button.querySelector(".live-word").textContent = words;
  }

  async #connect() {
    this.#pause();
    const stream = (this.#stream = new AbortController());
    try {
      const headers = { "Last-Event-ID": this.#last, "HX-Request": "true", "HX-Request-Type": "partial" };
      const answer = await fetch(this.getAttribute("src"), { headers, signal: stream.signal });
      if (answer.headers.has("HX-Redirect")) return this.#refused("You are signed out. Load the page again to sign in.");
      if (!answer.ok) {
        const page = new DOMParser().parseFromString(await answer.text(), "text/html");
        const words = page.querySelector("p")?.textContent ?? `The live view ended (${answer.status}).`;
        // What may be better soon is tried again; the rest is said.
        if (answer.status !== 503) return this.#refused(words);
        throw new Error(words);
      }
      this.#failures = 0;
      this.#tell("Live");
      await this.#read(answer.body, stream.signal);
    } catch (error) {
      if (stream.signal.aborted) return;
      this.#failures += 1;
      this.#tell("Reconnecting…");
    }
    if (this.#stream === stream && this.#on && !document.hidden) {
      const wait = Math.min(AGAIN_MS * 2 ** Math.max(0, this.#failures - 1), SLOWEST_AGAIN_MS);
      this.#again = setTimeout(() => this.#connect(), wait);
    }
  }

  #refused(words) {
    this.#stop();
    notify(words);
  }

  // A stream that is read by hand can come back with the last event's id after the tab was hidden, and says why it was refused; EventSource does neither.
  async #read(body, signal) {
    const reader = body.pipeThrough(new TextDecoderStream()).getReader();
    let text = "";
    for (;;) {
      const { value, done } = await reader.read();
      if (done || signal.aborted) return;
      const events = (text + value).split("\n\n");
      text = events.pop();
      for (const event of events) this.#heard(event);
    }
  }

  #heard(event) {
    const fields = { data: [] };
    for (const line of event.split("\n")) {
      const [name, ...rest] = line.split(": ");
      if (name === "data") fields.data.push(rest.join(": "));
      else fields[name] = rest.join(": ");
    }
    if (fields.id) this.#last = fields.id;
    if (fields.event === "row") this.#arrived(fields.data.join("\n"));
    if (fields.event === "skipped") this.#skipped(JSON.parse(fields.data[0]).calls);
  }

  #arrived(html) {
    const template = document.createElement("template");
    template.innerHTML = html;
    const row = template.content.querySelector("tr[data-row]");
    if (!row || this.#seen.has(row.dataset.row)) return;
    this.#seen.add(row.dataset.row);
    if (this.#seen.size > REMEMBERED) this.#seen.delete(this.#seen.values().next().value);
    this.#count += 1;
    this.#waiting.push(row);
    if (this.#waiting.length > MOST_ROWS) this.#waiting.shift();
    this.#paintSoon();
  }

  #skipped(calls) {
    this.#tell(`Live, a sample: ${calls.toLocaleString("en")} more a second`);
    clearTimeout(this.#quiet);
    this.#quiet = setTimeout(() => this.#on && this.#tell("Live"), SKIPPED_FOR_MS);
  }

  get #isRead() {
    return this.#pointed || this.querySelector("[data-new]:hover") || this.table?.contains(document.activeElement) || this.list.querySelector("dialog")?.open;
  }

  // Once a frame, however many rows have come.
  #paintSoon() {
    this.#painting ||= requestAnimationFrame(() => {
      this.#painting = 0;
      if (this.#isRead) this.#offer();
      else this.#paint();
    });
  }

  #offer() {
    let offer = this.querySelector("[data-new]");
    if (!this.#count) return offer?.remove();
    if (!offer) {
      offer = document.createElement("button");
      offer.type = "button";
      offer.className = "primary";
      offer.dataset.new = "";
      offer.addEventListener("click", (event) => {
        event.stopPropagation();
        this.#paint();
      });
      this.append(offer);
    }
    offer.textContent = `${this.#count.toLocaleString("en")} new`;
  }

  #paint() {
    const rows = this.#waiting.splice(0).reverse();
    this.#count = 0;
    this.#offer();
    if (!rows.length) return;
    // An empty list has no table yet: the page makes it.
    if (!this.table) return location.reload();
    for (const row of rows) row.classList.add("fresh");
    const list = this.table.tBodies[0];
    list.prepend(...rows);
    while (list.rows.length > MOST_ROWS) list.lastElementChild.remove();
  }
}

customElements.define("live-tail", LiveTail);
