// The models that are chosen, and the list to choose from: what the page brought, and, where the account has more, what the server finds for a word.
import { element } from "./dom.js";
import { MOST_MODELS } from "./play-state.js";

const FITS = { chat: ["CHAT", null], completions: ["CHAT", null], embeddings: ["EMBEDDINGS", null], rerank: ["RERANKER", null] };
const WORDS = { CHAT: "chat", EMBEDDINGS: "embeddings", RERANKER: "rerank" };
const SEARCHES_AFTER_MS = 200;
const LEARNS_FOR_MS = 1500;
const FAILS_FROM = 0.5;

export class ModelChooser {
  // popup: the <details> with its search field and list. changed: called with the aliases once they are others.
  constructor({ popup, chips, known, searchUrl, hasMore, changed }) {
    Object.assign(this, { popup, chips, searchUrl, hasMore, changed, known: new Map(known.map((model) => [model.alias, model])), lately: null });
    this.search = popup.querySelector("input");
    this.list = popup.querySelector("ul");
    this.search.addEventListener("input", () => this.#typed());
    this.search.addEventListener("keydown", (event) => {
      if (event.key !== "Enter") return;
      event.preventDefault();
      this.list.querySelector("button:not([disabled])")?.click();
    });
    popup.addEventListener("toggle", () => popup.open && this.search.focus());
  }

  show(kind, aliases) {
    this.kind = kind;
    this.aliases = aliases;
    this.chips.replaceChildren(...aliases.map((alias) => this.#chip(alias)));
    this.popup.hidden = aliases.length >= MOST_MODELS;
    this.popup.querySelector("summary span").textContent = aliases.length ? "Compare with another" : "Choose a model";
    this.#list();
  }

  // What has become of a day's calls: {alias: [calls, failed]}. Where that cannot be told, no model is known to fail.
  async learn(url) {
    let found = {};
    try {
      const answer = await fetch(url, { credentials: "same-origin", headers: { Accept: "application/json" }, signal: AbortSignal.timeout(LEARNS_FOR_MS) });
      if (answer.ok) found = await answer.json();
    } catch {
      // The page opens without.
    }
    this.lately = found;
  }

  // One that fits, for a page that opens with none: rather one that answers, that says what it is for, and that is called most. None until `learn` is over.
  first(kind) {
    if (!this.lately) return undefined;
    const rank = (model) => [this.#fails(model.alias) ? 1 : 0, model.kind ? 0 : 1, -(this.lately[model.alias]?.[0] ?? 0)];
    const fitting = [...this.known.values()].filter((model) => FITS[kind].includes(model.kind));
    return fitting.map((model) => ({ model, rank: rank(model) })).sort((one, other) => one.rank.map((value, at) => value - other.rank[at]).find(Boolean) ?? 0)[0]?.model.alias;
  }

  // For what a model is first of all.
  kindOf(alias) {
    const does = this.known.get(alias)?.kind ?? null;
    return Object.keys(FITS).find((kind) => FITS[kind].includes(does)) ?? "chat";
  }

  #fails(alias) {
    const [calls, failed] = this.lately?.[alias] ?? [0, 0];
    return calls > 0 && failed >= calls * FAILS_FROM;
  }

  // The tariff of a call that says this as its service tier; null where there is none or the model is not known.
  tariff(alias, tier) {
    const tariffs = this.known.get(alias)?.tariffs;
    return tariffs ? (tier === "flex" && tariffs.flex) || tariffs.realtime : null;
  }

  #chip(alias) {
    const model = this.known.get(alias);
    const price = model ? priced(model.tariffs.realtime) : "not in your list";
    const remove = element("button.bare", { type: "button", "aria-label": `Remove ${alias}`, onclick: () => this.changed(this.aliases.filter((one) => one !== alias)) }, "×");
    return element("span.play-chip", {}, model ? element("a.play-model.cut", { href: model.url }, alias) : element("b.cut", {}, alias), element("span.muted.small", {}, price), remove);
  }

  #typed() {
    this.#list();
    clearTimeout(this.timer);
    const word = this.search.value.trim();
    if (this.hasMore && word) this.timer = setTimeout(() => this.#find(word), SEARCHES_AFTER_MS);
  }

  async #find(word) {
    const url = new URL(this.searchUrl, location.href);
    url.searchParams.set("q", word);
    const answer = await fetch(url, { credentials: "same-origin", headers: { Accept: "application/json" } });
    if (!answer.ok) return;
    for (const model of (await answer.json()).models) this.known.set(model.alias, model);
    this.#list();
  }

  #list() {
    const word = this.search.value.trim().toLowerCase();
    const found = [...this.known.values()].filter((model) => !this.aliases.includes(model.alias) && `${model.alias} ${model.name ?? ""}`.toLowerCase().includes(word));
    found.sort((one, other) => FITS[this.kind].includes(other.kind) - FITS[this.kind].includes(one.kind));
    const items = found.slice(0, 100).map((model) => element("li", {}, this.#choice(model)));
    this.list.replaceChildren(...(items.length ? items : [element("li.muted.small", {}, this.known.size ? "No model of that name that you may call." : "There is no model that you may call.")]));
  }

  #choice(model) {
    const chosen = () => {
      this.popup.open = false;
      this.search.value = "";
      this.changed([...this.aliases, model.alias]);
    };
    return element("button.play-choice", { type: "button", onclick: chosen }, element("b.cut", {}, model.alias), element("span.muted.small", {}, [WORDS[model.kind], priced(model.tariffs.realtime), this.#fails(model.alias) && "fails now"].filter(Boolean).join(" · ")));
  }
}

function priced(tariff) {
  if (!tariff) return "no price";
  const per = (price) => `$${Number((Number(price) * 1e6).toPrecision(6))}`;
  return `${per(tariff.input)} in, ${per(tariff.output)} out per million`;
}
