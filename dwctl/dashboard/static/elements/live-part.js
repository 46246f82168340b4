// <live-part data-src="…" data-every="5">: a part of a page that brings itself up to date, and stays where it is for whoever points at it.
// What has the same shape as before is changed in its place. What has another one is put in only while nobody points at it, types in it, or has opened
// something in it. It ends where the server says `data-over`, and does nothing in a hidden tab.
class LivePart extends HTMLElement {
  connectedCallback() {
    this.timer = setInterval(() => this.refresh(), 1000 * Number(this.dataset.every || 5));
  }

  disconnectedCallback() {
    clearInterval(this.timer);
    this.asking?.abort();
  }

  async refresh() {
    if (document.hidden || this.asking) return;
    this.asking = new AbortController();
    try {
      const answer = await fetch(this.dataset.src, {
        headers: { "HX-Request": "true", "HX-Request-Type": "partial" },
        signal: this.asking.signal,
      });
      const elsewhere = answer.headers.get("HX-Redirect");
      if (elsewhere) return location.assign(elsewhere);
      if (answer.headers.get("HX-Refresh") === "true") return location.reload();
      this.classList.toggle("failed", !answer.ok);
      if (answer.ok) this.put(await answer.text());
    } catch (error) {
      if (error.name !== "AbortError") this.classList.add("failed");
    } finally {
      this.asking = undefined;
    }
  }

  put(html) {
    const fresh = document.createElement("template");
    fresh.innerHTML = html;
    if (fits(this, fresh.content)) patch(this, fresh.content);
    else if (this.isPointedAt()) return;
    else this.replaceChildren(fresh.content);
    if (this.querySelector("[data-over]")) clearInterval(this.timer);
    // Relative times are told anew at once.
    document.dispatchEvent(new CustomEvent("htmx:after:swap"));
  }

  isPointedAt() {
    return this.matches(":hover") || this.contains(document.activeElement) || Boolean(this.querySelector("details[open]"));
  }
}

// Whether two trees differ in texts and attributes alone. Elements with another id are others: rows do not turn into their neighbours.
function fits(old, fresh) {
  if (old.childNodes.length !== fresh.childNodes.length) return false;
  return [...fresh.childNodes].every((node, at) => {
    const was = old.childNodes[at];
    return was.nodeName === node.nodeName && (was.id ?? "") === (node.id ?? "") && fits(was, node);
  });
}

function patch(old, fresh) {
  fresh.childNodes.forEach((node, at) => {
    const was = old.childNodes[at];
    if (node.nodeType !== Node.ELEMENT_NODE) {
      if (was.nodeValue !== node.nodeValue) was.nodeValue = node.nodeValue;
      return;
    }
    for (const { name, value } of node.attributes) if (was.getAttribute(name) !== value) was.setAttribute(name, value);
    for (const { name } of [...was.attributes]) if (!node.hasAttribute(name) && name !== "open") was.removeAttribute(name);
    patch(was, node);
  });
}

customElements.define("live-part", LivePart);
