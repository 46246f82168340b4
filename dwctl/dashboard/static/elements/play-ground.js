// <play-ground>: the screen's behaviour. It holds the state, has it sent, and keeps it in the address's fragment, which never leaves the browser.
// Attributes: the tunnel's addresses (chat, responses, completions, embeddings, rerank), the API's (ai), a log row's (request-page), where models are
// searched (models), on which model it opens (model), and, of a replayed call, its route and body (replay-uri, replay).
import { notify } from "../app.js";
import { grow } from "./dom.js";
import { ask } from "./play-ask.js";
import { blank } from "./play-answers.js";
import { Wrong, bodyFor, pathOf } from "./play-bodies.js";
import { bindSettings, bindTexts, mark } from "./play-fields.js";
import { MOST_IMAGES, asDataUrl, filesOf, pictures } from "./play-images.js";
import { ModelChooser } from "./play-models.js";
import { stateOf } from "./play-replay.js";
import { curl, python, sdk } from "./play-snippets.js";
import { KINDS, fresh, packed, unpacked } from "./play-state.js";
import { Conversation } from "./play-turns.js";

const NIL = "00000000-0000-0000-0000-000000000000";
const REMEMBERED_AFTER_MS = 400;
const ADDRESSES = { "chat/completions": "chat", responses: "responses", completions: "completions", embeddings: "embeddings", rerank: "rerank" };

const noResults = () => Object.fromEntries(KINDS.filter((kind) => kind !== "chat").map((kind) => [kind, []]));

class PlayGround extends HTMLElement {
  async connectedCallback() {
    this.listeners = new AbortController();
    this.running = new Set();
    this.results = noResults();
    this.#find();
    // On a phone the parameters would stand before everything else.
    if (matchMedia("(max-width: 900px)").matches) this.querySelector(".play-side").open = false;
    document.getElementById("play-actions").hidden = false;
    this.#listen();
    await this.#open();
    await this.chooser.learn(this.getAttribute("lately"));
    if (this.isConnected) this.#offer();
  }

  disconnectedCallback() {
    this.listeners.abort();
    this.stop();
  }

  #find() {
    const part = (name) => this.#part(name);
    for (const name of ["top", "system", "turns", "draft", "draft-images", "texts", "prompt", "query", "documents", "settings", "send", "said"]) this[name.replace("-", "")] = part(name);
    this.conversation = new Conversation({
      list: this.turns,
      again: (place) => this.#again(place),
      goOn: (turn) => this.#goOn(turn),
      changed: () => this.#changed(),
      of: {
        blank,
        tariffOf: (answer) => this.chooser.tariff(answer.model, answer.tier),
        requestUrl: (id) => this.getAttribute("request-page").replace(NIL, id),
        modelUrl: (alias) => this.chooser.known.get(alias)?.url,
        isPlain: () => this.state.plain,
        changed: () => this.#changed(),
        painted: () => this.#follow(),
      },
    });
    const known = JSON.parse(part("known").textContent);
    this.chooser = new ModelChooser({ popup: part("models"), chips: part("chips"), known: known.models, hasMore: known.has_more, searchUrl: this.getAttribute("models"), changed: (aliases) => this.#choose(aliases) });
  }

  // (What stands in the page's heading is outside.)
  #part(name) {
    return this.querySelector(`[data-part="${name}"]`) ?? document.querySelector(`#play-actions [data-part="${name}"]`);
  }

  #listen() {
    const { signal } = this.listeners;
    const on = (target, what, does) => target.addEventListener(what, does, { signal });
    on(this.send, "click", () => this.submit());
    on(this.#part("stop"), "click", () => this.stop());
    on(this, "keydown", (event) => this.#key(event));
    on(document, "keydown", (event) => event.key === "Escape" && this.stop());
    on(this.top, "change", (event) => this.#setTop(event.target));
    on(this.system, "input", () => this.#take("system", this.system));
    on(this.prompt, "input", () => this.#take("prompt", this.prompt));
    on(this.query, "input", () => this.#take("query", this.query));
    on(this.draft, "input", () => ((this.state.draft.text = this.draft.value), grow(this.draft), this.#changed()));
    on(this.draft, "paste", (event) => filesOf(event.clipboardData).length && (event.preventDefault(), this.#attach(filesOf(event.clipboardData))));
    on(this, "dragover", (event) => filesOf(event.dataTransfer).length && event.preventDefault());
    on(this, "drop", (event) => filesOf(event.dataTransfer).length && (event.preventDefault(), this.#attach(filesOf(event.dataTransfer))));
    const file = this.#part("file");
    on(file, "change", () => this.#attach([...file.files]).then(() => (file.value = "")));
    on(this.#part("image-url"), "submit", (event) => (event.preventDefault(), this.#attachUrl(event.target)));
    on(this.#part("code"), "toggle", (event) => event.target.open && this.#writeOut());
    on(this.#part("link"), "click", () => this.#copyLink());
    on(this.#part("new"), "click", () => this.#startAnew());
    on(window, "hashchange", () => this.#open());
    on(window, "scroll", () => (this.isAtEnd = innerHeight + scrollY >= document.documentElement.scrollHeight - 80));
  }

  // --- the state, from the address or a replayed call, and onto the page

  async #open() {
    this.stop();
    const text = location.hash.startsWith("#s=") ? location.hash.slice(3) : "";
    const found = text ? await unpacked(text) : this.#replayed();
    if (text && !found) notify("This link is damaged: the playground opens empty.");
    this.#use(found ?? this.#begun());
  }

  // On the model that the address names, for what that does.
  #begun() {
    const state = fresh();
    const alias = this.getAttribute("model");
    if (!alias) return state;
    state.kind = this.chooser.kindOf(alias);
    state.models[state.kind] = [alias];
    return state;
  }

  #replayed() {
    const body = this.getAttribute("replay");
    if (!body) return null;
    try {
      const found = stateOf(this.getAttribute("replay-uri"), JSON.parse(body));
      if (!found) notify("This call is none that the playground can make.");
      return found;
    } catch {
      notify("The log holds only a part of this call's body: it cannot be replayed.");
      return null;
    }
  }

  #use(state) {
    this.state = state;
    for (const turn of state.turns) if (turn.answers) turn.answers = turn.answers.map((answer) => ({ ...blank(answer.model), ...answer }));
    this.results = noResults();
    bindSettings(this.settings, state, () => this.#changed());
    this.system.value = state.system;
    this.prompt.value = state.prompt;
    this.query.value = state.query;
    bindTexts(this.texts, state.texts, "Text", () => this.#changed());
    bindTexts(this.documents, state.documents, "Document", () => this.#changed());
    this.#show();
  }

  #show() {
    const { state } = this;
    const { kind, api } = state;
    for (const field of this.top.querySelectorAll("input, select")) {
      if (field.type === "radio") field.checked = field.value === kind;
      else if (field.type === "checkbox") field.checked = state[field.name];
      else if (field.name === "api") field.value = api;
    }
    for (const part of this.querySelectorAll("[data-kind]")) part.hidden = !part.dataset.kind.split(" ").includes(kind);
    for (const part of this.querySelectorAll("[data-api]")) part.hidden ||= kind === "chat" && part.dataset.api !== api;
    this.#offer();
    this.conversation.show(kind === "chat" ? state.turns : this.results[kind]);
    this.#showDraft();
    this.send.querySelector("span").textContent = { chat: "Send", completions: "Complete", embeddings: "Embed", rerank: "Rank" }[kind];
  }

  // Where none is chosen, the one to begin with, as soon as it is known which of them answer.
  #offer() {
    const { kind, models } = this.state;
    const first = models[kind].length ? null : this.chooser.first(kind);
    if (first) models[kind].push(first);
    this.chooser.show(kind, models[kind]);
  }

  #showDraft() {
    const { draft } = this.state;
    this.draft.value = draft.text;
    grow(this.draft);
    this.draftimages.replaceChildren(pictures(draft.images, (images) => ((draft.images = images), this.#changed(), this.#showDraft())));
  }

  #take(member, area) {
    this.state[member] = area.value;
    grow(area);
    this.#changed();
  }

  #setTop(field) {
    const { state } = this;
    if (field.type === "checkbox") state[field.name] = field.checked;
    else if (["kind", "api"].includes(field.name)) state[field.name] = field.value;
    else return;
    this.#changed();
    if (field.name === "plain") this.conversation.reshow();
    else if (field.name !== "stream") {
      this.stop();
      this.#show();
    }
  }

  #choose(aliases) {
    this.state.models[this.state.kind] = aliases;
    this.chooser.show(this.state.kind, aliases);
    this.#changed();
  }

  #changed() {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.#remember(), REMEMBERED_AFTER_MS);
  }

  // Into the address, in place: what is typed is no step of the history.
  async #remember() {
    clearTimeout(this.timer);
    const { text, isWhole } = await packed(this.state);
    if (this.isConnected) history.replaceState(history.state, "", location.pathname + location.search + (text ? `#s=${text}` : ""));
    return isWhole;
  }

  async #copyLink() {
    const isWhole = await this.#remember();
    try {
      await navigator.clipboard.writeText(location.href);
      notify(isWhole ? "The link is copied. It holds all that is here; nothing of it is stored on the server." : "The link is copied, without the images: they are too large for one.");
    } catch {
      notify("The browser lets pages copy only over HTTPS: copy this page's address.");
    }
  }

  #startAnew() {
    this.stop();
    const kept = this.state;
    this.#use({ ...fresh(), kind: kept.kind, api: kept.api, models: kept.models, stream: kept.stream, plain: kept.plain });
    this.#changed();
    this.draft.focus();
  }

  // --- images

  async #attach(files) {
    const { images } = this.state.draft;
    for (const file of files) {
      if (images.length >= MOST_IMAGES) return notify(`At most ${MOST_IMAGES} images go into a message.`);
      try {
        images.push(await asDataUrl(file));
      } catch (error) {
        notify(error.message);
      }
    }
    this.#changed();
    this.#showDraft();
  }

  #attachUrl(form) {
    const url = form.elements.url.value.trim();
    if (!/^https?:\/\//.test(url)) return notify("An image's address begins with https://");
    this.state.draft.images.push(url);
    form.reset();
    form.closest("details").open = false;
    this.#changed();
    this.#showDraft();
  }

  // --- sending

  submit() {
    if (this.running.size) return;
    const { state } = this;
    if (state.kind !== "chat") return this.#answered(state.models[state.kind], this.results[state.kind]);
    const { draft } = state;
    const said = draft.text || draft.images.length ? { role: "user", ...draft } : null;
    if (!said && !state.turns.length) return this.#tell("Write a message first.", this.draft);
    if (said) state.turns.push(said);
    if (!this.#answered(state.models.chat, state.turns)) {
      if (said) state.turns.pop();
      return;
    }
    state.draft = { text: "", images: [] };
    this.#showDraft();
  }

  stop() {
    for (const controller of this.running) controller.abort();
  }

  #again(place) {
    if (this.running.size) return;
    const { turns, models } = this.state;
    const kept = turns.slice(place);
    turns.length = turns[place].role === "assistant" ? place : place + 1;
    if (!this.#answered(models.chat, turns)) turns.push(...kept.slice(turns.length - place));
  }

  #goOn(turn) {
    const { turns } = this.state;
    if (this.running.size) return;
    turns.length = turns.indexOf(turn) + 1;
    const models = turn.answers.filter((answer) => answer.calls.length).map((answer) => answer.model).filter(Boolean);
    this.#answered(models.length ? models : this.state.models.chat, turns);
  }

  // Have these models answer what is there; false where it cannot be sent as it is.
  #answered(models, turns) {
    const { state } = this;
    this.said.textContent = "";
    if (!models.length) return this.#tell("Choose a model first.", this.querySelector('[data-part="models"] summary'));
    let bodies;
    try {
      bodies = models.map((model) => bodyFor(state, model));
    } catch (error) {
      if (!(error instanceof Wrong)) throw error;
      return this.#tell(error.message, mark(this.settings, error.field, error.message) || this.querySelector(`[data-part="${error.field}"] textarea, textarea[data-part="${error.field}"]`));
    }
    const answers = models.map(blank);
    if (state.kind !== "chat") turns.length = 0;
    turns.push({ role: "assistant", answers, isResult: state.kind !== "chat" });
    this.conversation.show(turns);
    this.isAtEnd = true;
    this.#run(answers.map((answer, place) => ({ answer, body: bodies[place] })));
    return true;
  }

  async #run(calls) {
    const path = pathOf(this.state);
    const url = this.getAttribute(ADDRESSES[path]);
    const api = ADDRESSES[path];
    this.#isRunning(true);
    await Promise.all(calls.map((call) => this.#one(call, url, api)));
    this.#isRunning(false);
    this.said.textContent = calls.map(({ answer }) => `${answer.model}: ${{ done: "answered", stopped: "stopped", cut: "cut off", failed: "failed" }[answer.state]}`).join(", ");
    this.conversation.refresh(calls.map(({ answer }) => answer));
    this.#follow();
    await this.#remember();
  }

  async #one({ answer, body }, url, api) {
    const controller = new AbortController();
    this.running.add(controller);
    const view = this.conversation.viewOf(answer);
    view.documents = body.documents ?? body.input;
    const ticking = setInterval(() => view.touch(), 100);
    await ask({ url, body, api, answer, signal: controller.signal, changed: () => view.touch() });
    clearInterval(ticking);
    this.running.delete(controller);
    if (answer.error?.param) mark(this.settings, answer.error.param, answer.error.message);
  }

  #isRunning(runs) {
    const [shown, hidden] = runs ? [this.#part("stop"), this.send] : [this.send, this.#part("stop")];
    const hadFocus = document.activeElement === hidden;
    shown.hidden = false;
    hidden.hidden = true;
    if (hadFocus) shown.focus();
    this.toggleAttribute("busy", runs);
  }

  #tell(text, where) {
    this.said.textContent = text;
    where?.closest?.("details:not(.popup)")?.setAttribute("open", "");
    where?.focus();
    return false;
  }

  // A reader at the end stays there; one who scrolled away is left alone.
  #follow() {
    if (this.isAtEnd && this.isConnected) scrollTo(0, document.documentElement.scrollHeight);
  }

  #key(event) {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
      event.preventDefault();
      this.submit();
    } else if (event.key === "ArrowUp" && event.target === this.draft && !this.draft.value) {
      const last = this.conversation.lastOfPerson();
      if (!last) return;
      event.preventDefault();
      last.focus();
    }
  }

  // --- the same by the API

  #writeOut() {
    const { state } = this;
    const path = pathOf(state);
    const turns = state.draft.text || state.draft.images.length ? [...state.turns, { role: "user", ...state.draft }] : state.turns;
    const write = { curl, python, sdk };
    let body;
    try {
      body = bodyFor({ ...state, turns }, state.models[state.kind][0] ?? "MODEL");
    } catch (error) {
      body = null;
      this.#tell(error.message, mark(this.settings, error.field, error.message));
    }
    for (const [name, written] of Object.entries(write)) document.querySelector(`#play-actions [data-code="${name}"] code`).textContent = body ? written(this.getAttribute("ai"), path, body) : "";
  }
}

customElements.define("play-ground", PlayGround);
