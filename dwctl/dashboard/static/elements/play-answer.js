// One model's answer on the page: text while it grows, reasoning folded, tool calls with a place for their results, figures, errors. Painted once a frame.
import { element } from "./dom.js";
import { GrowingText } from "./markdown.js";
import { cost, guessed, money } from "./play-cost.js";
import { resultOf } from "./play-results.js";

const WORDS = { waiting: "Waiting", writing: "Writing", done: "Done", stopped: "Stopped", cut: "Cut off", failed: "Failed" };
const KINDS = { waiting: "busy", writing: "busy", done: "good", stopped: "warn", cut: "warn", failed: "bad" };

export class AnswerView {
  // shown: {answer, tariffOf(answer), requestUrl(id), modelUrl(alias), isPlain(), changed(), documents}
  constructor(shown) {
    Object.assign(this, shown);
    this.element = element("section.play-answer", { "aria-label": this.answer.model ? `Answer of ${this.answer.model}` : "Answer" });
    this.head = element("div.play-answer-head");
    this.body = element("div.play-text");
    this.thoughts = element("details.play-thoughts", { hidden: true }, element("summary", {}, "Reasoning"), element("div.play-text"));
    this.extras = element("div.play-extras");
    this.figures = element("p.play-figures.muted.small");
    this.element.append(this.head, this.thoughts, this.body, this.extras, this.figures);
    this.reshow();
  }

  // Anew from the beginning, as markdown or as plain text.
  reshow() {
    this.text = new GrowingText(this.body, { plain: this.isPlain(), ready: () => this.touch() });
    this.thought = new GrowingText(this.thoughts.lastChild, { plain: true });
    this.extrasOf = "";
    this.touch();
  }

  get isRunning() {
    return this.answer.state === "waiting" || this.answer.state === "writing";
  }

  touch() {
    if (this.frame) return;
    this.frame = requestAnimationFrame(() => {
      this.frame = 0;
      this.paint();
    });
  }

  paint() {
    const { answer } = this;
    const over = !this.isRunning;
    this.#paintHead();
    if (answer.thoughts) {
      this.thoughts.hidden = false;
      this.thought.show(answer.thoughts, { over });
    }
    this.body.hidden = !answer.text;
    if (answer.text) this.text.show(answer.text, { over });
    this.#paintExtras(over);
    this.#paintFigures(over);
    this.painted?.();
  }

  #paintHead() {
    const { model, state, waits, tier } = this.answer;
    const word = state === "waiting" && (waits || tier === "flex") ? "Waiting for a worker (flex)" : WORDS[state];
    const wanted = `${model}\n${word ?? ""}`;
    if (this.headOf === wanted) return;
    this.headOf = wanted;
    const url = this.modelUrl(model);
    this.head.replaceChildren(url ? element("a.play-model", { href: url }, model) : element("strong", {}, model || "Assistant"), element(`span.state.${KINDS[state] ?? "plain"}`, { hidden: !word }, word ?? ""));
  }

  #paintExtras(over) {
    const { answer } = this;
    const wanted = JSON.stringify([over, answer.refusal, answer.error, answer.calls.map((call) => [call.name, call.arguments]), Boolean(answer.result), answer.finish]);
    if (this.extrasOf === wanted) return;
    this.extrasOf = wanted;
    this.extras.replaceChildren(
      ...answer.calls.filter(Boolean).map((call) => this.#call(call, over)),
      ...(answer.refusal ? [element("p.advice.banner", {}, `Refused: ${answer.refusal}`)] : []),
      ...(answer.finish === "length" || answer.finish === "max_output_tokens" ? [element("p.advice.banner", {}, "The answer reached its longest: raise max tokens to read on.")] : []),
      ...(answer.finish === "content_filter" ? [element("p.advice.banner", {}, "The provider's filter ended this answer.")] : []),
      ...(answer.result ? [resultOf(answer.result, this.documents ?? [])] : []),
      ...(answer.error ? [this.#problem(answer.error)] : []),
    );
  }

  #call(call, over) {
    const result = element("textarea", { rows: 2, value: call.result ?? "", spellcheck: false, disabled: !over, oninput: () => ((call.result = result.value), this.changed()) });
    return element(
      "div.play-call",
      {},
      element("p", {}, "calls ", element("code", {}, call.name)),
      element("pre", { tabIndex: 0 }, element("code", {}, indented(call.arguments))),
      element("label.stacked", {}, element("span", {}, "Its result"), result),
    );
  }

  #problem(error) {
    const code = [this.answer.status, error.code, error.param].filter(Boolean).join(" · ");
    const credit = error.balance === undefined ? "" : ` The balance is $${error.balance}${error.needed === undefined ? "" : `, this call needs $${error.needed}`}.`;
    return element("div.problem.banner", { role: "alert" }, element("p", {}, error.message), element("p.small", {}, [code, error.advice].filter(Boolean).join(" — ") + credit));
  }

  #paintFigures(over) {
    const { answer } = this;
    if (!answer.began) {
      this.figures.replaceChildren(...(answer.request ? [this.#link()] : []));
      return;
    }
    const about = answer.usage ? "" : "≈ ";
    const usage = answer.usage ?? { prompt: guessed(answer.prompt ?? ""), completion: Math.max(answer.pieces, guessed(answer.text + answer.thoughts)) };
    const now = over ? answer.ended ?? performance.now() : performance.now();
    const seconds = (now - (answer.first ?? now)) / 1000;
    const parts = [
      answer.first && answer.pieces ? ["first token", duration(answer.first - answer.began)] : null,
      [over ? "in all" : "so far", duration(now - answer.began)],
      seconds > 0.05 && usage.completion > 1 ? ["", `${about}${(usage.completion / seconds).toFixed(usage.completion / seconds < 10 ? 1 : 0)} tokens/s`] : null,
      answer.state === "failed" && !answer.usage ? null : ["", `${about}${usage.prompt.toLocaleString("en")} in, ${usage.completion.toLocaleString("en")} out`],
      this.#priced(usage, about),
    ].filter(Boolean);
    this.figures.replaceChildren(...parts.flatMap(([label, value, title]) => [element("span.pair", { title: title ?? "" }, label ? `${label} ` : "", element("b", {}, value))]), ...(answer.request ? [this.#link()] : []));
  }

  #priced(usage, about) {
    const { answer } = this;
    if (answer.state === "failed" && !answer.usage) return null;
    const sum = answer.charged ?? cost(this.tariffOf(answer), usage);
    return sum === null ? ["", "no price"] : ["", `${about}${money(sum)}`, `$${sum}`];
  }

  #link() {
    return element("a", { href: this.requestUrl(this.answer.request) }, "In the log");
  }
}

const duration = (ms) => (ms < 1000 ? `${Math.round(ms)} ms` : `${(ms / 1000).toFixed(ms < 10000 ? 2 : 1)} s`);

function indented(text) {
  try {
    return JSON.stringify(JSON.parse(text), null, 2);
  } catch {
    return text;
  }
}
