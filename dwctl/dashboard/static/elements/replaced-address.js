// A page that must not be asked for twice (it has just made a secret): a reload, and "back" from the next page, lead to `href` instead.
class ReplacedAddress extends HTMLElement {
  connectedCallback() {
    history.replaceState(null, "", this.getAttribute("href"));
  }
}
customElements.define("replaced-address", ReplacedAddress);
