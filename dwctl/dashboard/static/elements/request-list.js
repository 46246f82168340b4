// The list of calls: a plain click or Enter opens a call beside the list, j and k go on through the list, Escape returns to the row.
// Without script, with a modifier key or the middle button the same links lead to the call's page.
const PATIENCE_MS = 80;

class RequestList extends HTMLElement {
  #drawer = null;
  #loading = null;
  #wait = 0;

  connectedCallback() {
    this.#drawer = this.querySelector("dialog.drawer");
    this.addEventListener("click", this);
    this.addEventListener("dw:select", this);
    this.#drawer.addEventListener("close", this);
  }

  disconnectedCallback() {
    this.#loading?.abort();
    clearTimeout(this.#wait);
  }

  handleEvent(event) {
    if (event.type === "close") return this.#closed();
    if (event.type === "dw:select") return this.#drawer.open && this.#show(event.target);
    if (event.target === this.#drawer) return this.#drawer.close();
    if (event.target.closest("[data-previous]")) return this.#step(-1);
    if (event.target.closest("[data-next]")) return this.#step(1);
    if (event.button || event.metaKey || event.ctrlKey || event.shiftKey || event.altKey) return;
    const link = event.target.closest("td.time a");
    const row = link?.closest("tr[data-row]");
    if (!row) return;
    event.preventDefault();
    this.#select(row);
    this.#drawer.showModal();
    this.#show(row);
  }

  get #rows() {
    return [...this.querySelectorAll("tr[data-row]")];
  }

  get #selected() {
    return this.querySelector('tr[aria-selected="true"]');
  }

  #select(row) {
    this.#selected?.removeAttribute("aria-selected");
    row.setAttribute("aria-selected", "true");
    row.scrollIntoView({ block: "nearest" });
  }

  #step(by) {
    const rows = this.#rows;
    const row = rows[rows.indexOf(this.#selected) + by];
    if (!row) return;
    this.#select(row);
    this.#show(row);
  }

  #show(row) {
    const rows = this.#rows;
    const at = rows.indexOf(row);
    const url = row.querySelector("td.time a").href;
    this.#drawer.querySelector("[data-previous]").disabled = at <= 0;
    this.#drawer.querySelector("[data-next]").disabled = at === rows.length - 1;
    this.#drawer.querySelector("[data-page]").href = url;
    // Whoever holds j down passes calls that nobody wants to load.
    clearTimeout(this.#wait);
    this.#wait = setTimeout(() => this.#load(url), PATIENCE_MS);
  }

  async #load(url) {
    this.#loading?.abort();
    const { signal } = (this.#loading = new AbortController());
    const body = this.#drawer.querySelector("[data-call]");
    try {
      const answer = await fetch(url, { headers: { "HX-Request": "true", "HX-Request-Type": "partial" }, signal });
      const elsewhere = answer.headers.get("HX-Redirect");
      if (elsewhere) return location.assign(elsewhere);
      // Our own HTML, as htmx would put it there.
      const html = await answer.text();
      body.innerHTML = html;
      body.dataset.of = url;
      window.htmx?.process(body);
      this.#drawer.scrollTop = 0;
    } catch (error) {
      if (error.name !== "AbortError") body.textContent = "This call could not be loaded. Choose it again, or open its page.";
    }
  }

  #closed() {
    this.#loading?.abort();
    clearTimeout(this.#wait);
    this.#drawer.querySelector("[data-call]").replaceChildren();
    this.#selected?.querySelector("td.time a").focus({ preventScroll: true });
  }
}

customElements.define("request-list", RequestList);
