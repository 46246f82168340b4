// The conversation as it stands: each turn can be read, changed, removed, given another role, and answered anew from there.
import { button, element, grow } from "./dom.js";
import { AnswerView } from "./play-answer.js";
import { pictures } from "./play-images.js";

const ROLES = ["user", "assistant", "system", "developer"];

export class Conversation {
  #views = new WeakMap();

  // list: where turns stand. again(place): have the turn at that place answered anew. goOn(turn): send its tools' results. of: see AnswerView.
  constructor({ list, again, goOn, changed, of }) {
    Object.assign(this, { list, again, goOn, changed, of });
  }

  show(turns) {
    this.turns = turns;
    this.list.replaceChildren(...turns.map((turn, place) => this.#turn(turn, place)));
  }

  viewOf(answer) {
    let view = this.#views.get(answer);
    if (!view) this.#views.set(answer, (view = new AnswerView({ answer, ...this.of })));
    return view;
  }

  // The same texts in the other way of showing them.
  reshow() {
    for (const turn of this.turns) for (const answer of turn.answers ?? []) this.viewOf(answer).reshow();
  }

  // The turns of these answers anew; whoever writes in another one is not disturbed.
  refresh(answers) {
    this.turns.forEach((turn, place) => {
      if (turn.answers?.some((answer) => answers.includes(answer))) this.list.children[place]?.replaceWith(this.#turn(turn, place));
    });
  }

  lastOfPerson() {
    return [...this.list.querySelectorAll('[data-role="user"] textarea')].at(-1);
  }

  #turn(turn, place) {
    const article = element("article.card.play-turn", { data: { role: turn.role } });
    // What embeddings and rerank give is no part of a conversation.
    if (!turn.isResult) article.append(this.#head(turn, place));
    if (turn.role === "assistant") article.append(this.#answers(turn));
    else if (turn.role === "raw") article.append(this.#raw(turn));
    else article.append(this.#text(turn, "text", `Message ${place + 1}, ${turn.role}`), pictures(turn.images, (images) => ((turn.images = images), this.changed(), this.show(this.turns))));
    return article;
  }

  #head(turn, place) {
    const remove = button("Remove", () => (this.turns.splice(place, 1), this.changed(), this.show(this.turns)), { "aria-label": `Remove message ${place + 1}` });
    const label = turn.role === "assistant" ? "Answer again" : "Answer from here";
    const again = button(label, () => this.again(place), { "aria-label": `${label}: message ${place + 1}` });
    return element("div.card-head", {}, this.#role(turn, place), element("span.row-of", {}, ...(turn.role === "raw" ? [] : [again]), ...this.#edits(turn), remove));
  }

  #role(turn, place) {
    if (turn.role === "raw") return element("span.muted", {}, `${turn.raw.role ?? turn.raw.type ?? "item"} (as JSON)`);
    const select = element("select", { "aria-label": `Role of message ${place + 1}` }, ...ROLES.map((role) => new Option(role, role, false, role === turn.role)));
    if (!ROLES.includes(turn.role)) select.prepend(new Option(turn.role, turn.role, true, true));
    select.addEventListener("change", () => {
      const text = turn.answers?.[0].text ?? turn.text;
      this.turns[place] = select.value === "assistant" ? { role: "assistant", answers: [{ ...this.of.blank(""), text }] } : { role: select.value, text, images: turn.images ?? [] };
      this.changed();
      this.show(this.turns);
    });
    return select;
  }

  #edits(turn) {
    if (turn.role !== "assistant") return [];
    const edit = button("Edit", () => {
      const isOpen = edit.textContent === "Edit";
      edit.textContent = isOpen ? "Show" : "Edit";
      turn.isEdited = isOpen;
      const article = edit.closest("article");
      article.lastElementChild.replaceWith(isOpen ? this.#editors(turn) : this.#answers(turn));
      if (!isOpen) for (const answer of turn.answers) this.viewOf(answer).reshow();
    });
    return [edit];
  }

  #editors(turn) {
    return element("div.stack", {}, ...turn.answers.map((answer) => this.#text(answer, "text", `Answer of ${answer.model || "assistant"}`)));
  }

  #answers(turn) {
    const side = element("div.play-answers", { data: { count: turn.answers.length } }, ...turn.answers.map((answer) => this.viewOf(answer).element));
    const calls = turn.answers.some((answer) => answer.calls.length);
    if (!calls) return side;
    const send = button("Send the results", () => this.goOn(turn), { className: "small primary" });
    return element("div.stack", {}, side, element("p.play-go-on", {}, send));
  }

  #raw(turn) {
    return element("pre", { tabIndex: 0 }, element("code", {}, JSON.stringify(turn.raw, null, 2).slice(0, 20_000)));
  }

  #text(holder, member, label) {
    const area = element("textarea", { value: holder[member], spellcheck: false, "aria-label": label });
    area.addEventListener("input", () => {
      holder[member] = area.value;
      grow(area);
      this.changed();
    });
    grow(area);
    return area;
  }
}
