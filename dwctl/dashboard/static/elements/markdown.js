// Markdown of a model, painted while it grows. What a model writes is hostile: HTML in it is shown as the text that it is, what the parser makes passes
// DOMPurify, links leave in a tab of their own, and pictures of other hosts are links.
//
// Text that is complete (up to a blank line outside of a code fence) is parsed once and stays; only the rest is parsed again with each paint, and as plain
// text where it has become long. So a paint costs the same at the end of a long answer as at its beginning.
const MOST_PARSED_AGAIN = 4000;
const MOST_PARSED = 60000;
const MOST_OF_A_NODE = 4000;
const PICTURE = /^data:image\/(png|jpeg|gif|webp);base64,/;
const RULES = {
  ALLOWED_TAGS: ["a", "b", "blockquote", "br", "code", "del", "em", "h1", "h2", "h3", "h4", "h5", "h6", "hr", "i", "img", "input", "li", "ol", "p", "pre", "strong", "table", "tbody", "td", "th", "thead", "tr", "ul"],
  ALLOWED_ATTR: ["align", "alt", "checked", "disabled", "href", "src", "start", "title", "type"],
  ALLOWED_URI_REGEXP: /^(?:https?:|mailto:|data:image\/(?:png|jpeg|gif|webp);base64,)/i,
  ALLOW_DATA_ATTR: false,
  ALLOW_ARIA_ATTR: false,
  RETURN_DOM_FRAGMENT: true,
};

const escaped = (text) => text.replace(/[&<>"']/g, (sign) => `&#${sign.charCodeAt(0)};`);

const renderer = {
  html: ({ text }) => (/^<br\s*\/?>$/i.test(text.trim()) ? "<br>" : escaped(text)),
  image: ({ href, text }) =>
    PICTURE.test(href) ? `<img alt="${escaped(text)}" src="${escaped(href)}">` : `<a href="${escaped(href)}">${escaped(text || href)} (picture)</a>`,
};

let loading;
// The libraries, on first use. Gives what makes a fragment of a text.
export function load() {
  loading ??= Promise.all([import("../vendor/marked.js"), import("../vendor/purify.js")]).then(([{ Marked }, { default: purify }]) => {
    const marked = new Marked({ gfm: true, renderer });
    return (text) => finished(purify.sanitize(marked.parse(text), RULES));
  });
  return loading;
}

function finished(fragment) {
  for (const link of fragment.querySelectorAll("a")) {
    if (!link.hasAttribute("href")) {
      link.replaceWith(...link.childNodes);
      continue;
    }
    link.target = "_blank";
    link.rel = "noopener noreferrer nofollow";
  }
  for (const picture of fragment.querySelectorAll("img")) if (!PICTURE.test(picture.getAttribute("src") ?? "")) picture.remove();
  for (const box of fragment.querySelectorAll("input")) {
    if (box.type !== "checkbox") box.remove();
    box.disabled = true;
    box.setAttribute("aria-label", box.checked ? "done" : "to do");
  }
  for (const table of fragment.querySelectorAll("table")) wrapped(table, "scroll").tabIndex = 0;
  for (const code of fragment.querySelectorAll("pre")) {
    code.tabIndex = 0;
    wrapped(code, "copyable").append(copyButton());
  }
  return fragment;
}

function wrapped(element, name) {
  const around = document.createElement("div");
  around.className = name;
  element.replaceWith(around);
  around.append(element);
  return around;
}

function copyButton() {
  const button = document.createElement("button");
  button.type = "button";
  button.className = "quiet small";
  button.dataset.copy = "";
  button.append(document.createElement("span"));
  button.firstChild.textContent = "Copy";
  return button;
}

// Where what is complete of a text ends. Reads each line once.
export class Boundary {
  at = 0;
  #read = 0;
  #fence = null;
  #blankBehind = null;

  advance(text) {
    for (let end = text.indexOf("\n", this.#read); end !== -1; end = text.indexOf("\n", this.#read)) {
      this.#line(text.slice(this.#read, end), end + 1);
      this.#read = end + 1;
    }
    // How a line begins shows before it has ended.
    if (this.#blankBehind !== null && /^\S/.test(text.slice(this.#read, this.#read + 1))) this.at = this.#blankBehind;
    return this.at;
  }

  #line(line, next) {
    const mark = /^ {0,3}(`{3,}|~{3,})/.exec(line)?.[1];
    if (this.#fence) {
      if (mark?.startsWith(this.#fence) && line.trim() === mark) this.#fence = null;
      return;
    }
    if (!line.trim()) {
      this.#blankBehind = next;
      return;
    }
    // An indented line goes on with the list or the code before the blank one.
    if (this.#blankBehind !== null && !/^\s/.test(line)) this.at = this.#blankBehind;
    this.#blankBehind = null;
    if (mark) this.#fence = mark;
  }
}

// An element that shows a text that grows. `plain`: as it is, without markdown.
export class GrowingText {
  #element;
  #tail = document.createElement("div");
  #boundary = new Boundary();
  #settled = 0;
  #shownPlain = 0;
  #parse = null;
  #plain;

  // ready: called once markdown can be read, where that was not so from the beginning; until then the text is shown as it is.
  constructor(element, { plain = false, ready = () => {} } = {}) {
    this.#element = element;
    this.#plain = plain;
    element.replaceChildren(this.#tail);
    if (!plain)
      load().then((parse) => {
        this.#parse = parse;
        ready();
      });
  }

  // Show this text, which begins as the one before did. `over`: nothing more will come.
  show(text, { over = false } = {}) {
    if (this.#plain || !this.#parse) return this.#addPlain(text);
    const boundary = this.#boundary.advance(text);
    if (boundary > this.#settled) {
      this.#tail.before(...this.#made(text.slice(this.#settled, boundary)));
      this.#settled = boundary;
      this.#clear();
    }
    const rest = text.slice(this.#settled);
    if (rest.length <= (over ? MOST_PARSED : MOST_PARSED_AGAIN)) {
      this.#clear();
      this.#tail.replaceChildren(...this.#made(rest));
    } else {
      if (!this.#shownPlain) this.#clear();
      this.#addPlain(text, this.#settled);
    }
  }

  #made(text) {
    if (text.length > MOST_PARSED) return [plainBlock(text)];
    return [...this.#parse(text).childNodes];
  }

  #clear() {
    this.#tail.replaceChildren();
    this.#shownPlain = 0;
  }

  #addPlain(text, from = 0) {
    const fresh = text.slice(Math.max(from, this.#shownPlain));
    let last = this.#tail.lastElementChild;
    if (!last || !last.classList.contains("play-plain") || last.textContent.length > MOST_OF_A_NODE) {
      // A new block begins at a line's end only, where the eye sees no difference.
      const lineEnd = last ? fresh.indexOf("\n") : -1;
      if (last && lineEnd === -1 && last.textContent.length < 8 * MOST_OF_A_NODE) {
        last.lastChild.appendData(fresh);
        this.#shownPlain = text.length;
        return;
      }
      if (last) last.lastChild.appendData(fresh.slice(0, lineEnd));
      last = plainBlock(fresh.slice(lineEnd + 1));
      this.#tail.append(last);
    } else last.lastChild.appendData(fresh);
    this.#shownPlain = text.length;
  }
}

function plainBlock(text) {
  const block = document.createElement("div");
  block.className = "play-plain";
  block.append(document.createTextNode(text));
  return block;
}
