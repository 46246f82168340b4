// <file-upload data-url data-token data-most>: sends the chosen file, shows how far it is, and goes on where the server says, or shows which lines are wrong.
// The browser streams the file from the disk; nothing of it is read here but the wrong lines, to show how they begin.
const LONGEST_EXCERPT = 160;
const GZIP = [0x1f, 0x8b];

class FileUpload extends HTMLElement {
  connectedCallback() {
    this.form = this.querySelector("form");
    this.chosen = this.querySelector("input[type=file]");
    this.bar = this.querySelector("progress");
    this.said = this.querySelector("[data-said]");
    this.stop = this.querySelector("[data-cancel]");
    this.answer = this.querySelector("[data-answer]");
    this.form.addEventListener("submit", (event) => {
      event.preventDefault();
      if (this.chosen.files[0]) this.send(this.chosen.files[0]);
    });
    this.stop.addEventListener("click", () => this.sending?.abort());
    this.addEventListener("dragover", (event) => event.preventDefault());
    this.addEventListener("drop", (event) => {
      event.preventDefault();
      if (!event.dataTransfer.files.length || this.sending) return;
      this.chosen.files = event.dataTransfer.files;
      this.form.requestSubmit();
    });
  }

  disconnectedCallback() {
    this.sending?.abort();
  }

  send(file) {
    if (this.sending) return;
    const most = Number(this.dataset.most);
    this.answer.replaceChildren();
    if (most && file.size > most) return this.say(`This file has ${size(file.size)}; at most ${size(most)} are taken. Split it.`);
    const form = new FormData();
    form.append("purpose", "batch");
    form.append("file", file);
    // fetch does not say how much of a body has been sent.
    const sending = (this.sending = new XMLHttpRequest());
    const begun = performance.now();
    sending.upload.addEventListener("progress", (event) => this.tell(event, begun));
    sending.addEventListener("load", () => this.take(sending, file));
    sending.addEventListener("error", () => this.say("The connection broke. Nothing was kept of the file; send it again."));
    sending.addEventListener("abort", () => this.say("Cancelled. Nothing was kept of the file."));
    sending.addEventListener("loadend", () => this.busy(false));
    sending.open("POST", this.dataset.url);
    sending.setRequestHeader("X-CSRF-Token", this.dataset.token);
    sending.setRequestHeader("HX-Request", "true");
    sending.setRequestHeader("HX-Request-Type", "partial");
    this.busy(true);
    sending.send(form);
  }

  busy(isBusy) {
    if (!isBusy) this.sending = undefined;
    this.bar.hidden = this.stop.hidden = !isBusy;
    this.form.querySelector("button:not([data-cancel])").disabled = this.chosen.disabled = isBusy;
  }

  tell({ loaded, total }, begun) {
    const seconds = Math.max((performance.now() - begun) / 1000, 0.05);
    this.bar.max = total;
    this.bar.value = loaded;
    const left = loaded < total ? ` · ${size(loaded / seconds)}/s` : " · checking the last lines";
    this.say(`${size(loaded)} of ${size(total)}${left}`);
  }

  say(text) {
    this.said.textContent = text;
  }

  take(sending, file) {
    const next = sending.getResponseHeader("Location") ?? sending.getResponseHeader("HX-Redirect");
    if (sending.status < 400 && next) {
      this.say("Every line is right.");
      return location.assign(next);
    }
    this.say("Nothing was kept of the file.");
    const shown = document.createElement("template");
    shown.innerHTML = sending.responseText;
    this.answer.replaceChildren(shown.content);
    this.answer.focus();
    excerpt(file, this.answer);
  }
}

// How the wrong lines begin, read from the disk up to the last of them.
async function excerpt(file, answer) {
  const wanted = new Map([...answer.querySelectorAll("[data-line]")].map((cell) => [Number(cell.dataset.line), cell]));
  const begin = new Uint8Array(await file.slice(0, 2).arrayBuffer());
  if (!wanted.size || GZIP.every((byte, at) => begin[at] === byte)) return;
  const last = Math.max(...wanted.keys());
  const decoder = new TextDecoder();
  const reader = file.stream().getReader();
  let number = 1;
  let kept = "";
  const end = () => {
    const cell = wanted.get(number);
    if (cell) cell.textContent = kept.length > LONGEST_EXCERPT ? `${kept.slice(0, LONGEST_EXCERPT)} …` : kept;
    kept = "";
    number += 1;
  };
  while (number <= last) {
    const { done, value } = await reader.read();
    if (done) break;
    const [first, ...others] = decoder.decode(value, { stream: true }).split("\n");
    kept = (kept + first).slice(0, LONGEST_EXCERPT + 1);
    for (const text of others) {
      end();
      if (number > last) break;
      kept = text.slice(0, LONGEST_EXCERPT + 1);
    }
  }
  if (number <= last) end();
  reader.cancel();
}

function size(bytes) {
  const units = ["B", "KiB", "MiB", "GiB"];
  let at = 0;
  while (bytes >= 1024 && at < units.length - 1) {
    bytes /= 1024;
    at += 1;
  }
  return `${at ? bytes.toFixed(1) : Math.round(bytes)} ${units[at]}`;
}

customElements.define("file-upload", FileUpload);
