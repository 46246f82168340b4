// The frame's own behaviour: cookies of taste, keyboard, copying, times that move. Everything listens at the document, so parts that htmx swaps in need nothing.
const root = document.querySelector('meta[name="dw-root"]')?.content ?? "/";
const YEAR_S = 31536000;

function remember(name, value) {
  const age = value ? YEAR_S : 0;
  const secure = location.protocol === "https:" ? "; Secure" : "";
  document.cookie = `${name}=${encodeURIComponent(value)}; Path=/; Max-Age=${age}; SameSite=Lax${secure}`;
}

function recall(name) {
  const found = document.cookie.split("; ").find((one) => one.startsWith(`${name}=`));
  try {
    return found ? decodeURIComponent(found.slice(name.length + 1)) : "";
  } catch {
    // Another application of this host may have its own of this name.
    return "";
  }
}

// The browser's zone from the first visit on; the menu changes it.
if (!recall("dw_zone")) {
  const zone = Intl.DateTimeFormat().resolvedOptions().timeZone;
  if (zone) remember("dw_zone", zone);
}

function putTheme(theme) {
  remember("dw_theme", theme);
  if (theme) document.documentElement.dataset.theme = theme;
  else delete document.documentElement.dataset.theme;
  document.dispatchEvent(new CustomEvent("dw:theme"));
}
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => document.dispatchEvent(new CustomEvent("dw:theme")));

// "3 min ago": one ticker for the page. The title keeps the exact time.
const ago = new Intl.RelativeTimeFormat("en", { numeric: "auto", style: "narrow" });
const STEPS = [["day", 86400], ["hour", 3600], ["minute", 60], ["second", 1]];
function tell(time) {
  const seconds = (Date.parse(time.dateTime) - Date.now()) / 1000;
  const [unit, size] = STEPS.find(([, size]) => Math.abs(seconds) >= size) ?? STEPS[3];
  const text = Math.abs(seconds) < 5 ? "now" : ago.format(Math.trunc(seconds / size), unit);
  if (time.textContent !== text) time.textContent = text;
}
function tellAll() {
  if (!document.hidden) document.querySelectorAll("time[data-ago]").forEach(tell);
}
tellAll();
setInterval(tellAll, 5000);
document.addEventListener("visibilitychange", tellAll);
document.addEventListener("htmx:after:swap", tellAll);

// What waits, beside the screens' names: after the page stands, then now and then in visible tabs.
const bar = document.querySelector("[data-badges]");
async function badge() {
  if (document.hidden) return;
  const answer = await fetch(bar.dataset.badges).catch(() => undefined);
  // A sign-in that has ended leads elsewhere; the next click says so.
  if (!answer?.ok || answer.redirected) return;
  const counts = await answer.json();
  for (const place of bar.querySelectorAll("[data-badge]")) place.textContent = counts[place.dataset.badge]?.toLocaleString("en") ?? "";
}
if (bar) {
  badge();
  setInterval(badge, 30000);
}

// What a change left for the next page to say.
export function notify(text) {
  const notice = document.getElementById("notice");
  if (notice) notice.textContent = text;
}
const left = recall("dw_notice");
if (left) {
  notify(left);
  remember("dw_notice", "");
}

async function copy(button) {
  const text = button.dataset.copy || button.parentElement.querySelector("code").textContent;
  const label = button.querySelector("span");
  try {
    await navigator.clipboard.writeText(text);
    if (label) label.textContent = "Copied";
    else notify("Copied");
  } catch {
    // Without a secure origin browsers have no clipboard: the text is selected, so that the keyboard copies it.
    const code = button.parentElement.querySelector("code");
    if (code) getSelection().selectAllChildren(code);
    if (label) label.textContent = "Press Ctrl+C";
  }
  if (label) setTimeout(() => (label.textContent = "Copy"), 2000);
}

document.addEventListener("click", (event) => {
  const button = event.target.closest("[data-copy]");
  if (button) copy(button);
  // One popup at a time, and none once something else is clicked.
  for (const popup of document.querySelectorAll("details.popup[open]")) {
    if (!popup.contains(event.target)) popup.open = false;
  }
});

document.addEventListener("change", (event) => {
  const chosen = event.target;
  if (chosen.matches("[data-submit]")) chosen.form.requestSubmit();
  if (!chosen.matches("[data-cookie]")) return;
  if (chosen.dataset.cookie === "dw_theme") return putTheme(chosen.value);
  remember(chosen.dataset.cookie, chosen.value);
  location.reload();
});

// All zones that the browser knows, once somebody opens the list.
document.addEventListener("focusin", (event) => {
  const list = event.target.closest("[data-zones]");
  if (!list || list.options.length > 1) return;
  const chosen = list.value;
  const known = new Set(["UTC", Intl.DateTimeFormat().resolvedOptions().timeZone, ...Intl.supportedValuesOf("timeZone")]);
  known.delete(chosen);
  for (const zone of known) list.add(new Option(zone, zone));
});

// Filters leave nothing empty in the address (forms marked `data-lean`).
document.addEventListener("formdata", (event) => {
  if (!event.target.matches("[data-lean]")) return;
  for (const [name, value] of [...event.formData]) {
    const field = event.target.elements[name];
    if (value === "" || value === field?.dataset?.default) event.formData.delete(name);
  }
});

// Keyboard.
let goesTo = 0;
const typing = (element) => element.closest("input, textarea, select, [contenteditable]");
function openPalette() {
  const palette = document.getElementById("palette");
  palette?.showModal();
}
function rowsOf(list) {
  return [...list.querySelectorAll("tr[data-row]")];
}
function step(by) {
  const list = document.querySelector("[data-rows]");
  if (!list) return false;
  const rows = rowsOf(list);
  const at = rows.findIndex((row) => row.getAttribute("aria-selected") === "true");
  const next = rows[Math.min(Math.max(at + by, 0), rows.length - 1)];
  if (!next) return false;
  rows[at]?.removeAttribute("aria-selected");
  next.setAttribute("aria-selected", "true");
  next.querySelector("a")?.focus({ preventScroll: true });
  next.scrollIntoView({ block: "nearest" });
  next.dispatchEvent(new CustomEvent("dw:select", { bubbles: true }));
  return true;
}
document.addEventListener("keydown", (event) => {
  if ((event.metaKey || event.ctrlKey) && event.key.toLowerCase() === "k") {
    event.preventDefault();
    return openPalette();
  }
  if (event.key === "Escape") {
    document.querySelectorAll("details.popup[open]").forEach((popup) => {
      popup.open = false;
      popup.querySelector("summary").focus();
    });
  }
  if (event.metaKey || event.ctrlKey || event.altKey || typing(event.target)) return;
  if (goesTo && Date.now() - goesTo < 1500) {
    goesTo = 0;
    const link = document.querySelector(`.bar [data-go="${CSS.escape(event.key)}"]`);
    if (link) {
      event.preventDefault();
      link.click();
    }
    return;
  }
  const keys = {
    "/": () => document.getElementById("jump")?.focus(),
    "?": () => document.getElementById("keys-help")?.showModal(),
    g: () => (goesTo = Date.now()),
    t: () => putTheme(matchMedia("(prefers-color-scheme: dark)").matches === (document.documentElement.dataset.theme !== "light") && document.documentElement.dataset.theme !== "light" ? "light" : "dark"),
    l: () => document.querySelector("[data-live]")?.click(),
    j: () => step(1),
    k: () => step(-1),
  };
  if (event.key in keys && keys[event.key]() !== false) event.preventDefault();
});

// The palette shows the screens whose name has what is typed; Enter without a match searches.
document.addEventListener("input", (event) => {
  if (event.target.id !== "palette-text") return;
  const wanted = event.target.value.trim().toLowerCase();
  for (const item of document.querySelectorAll("#palette-items li")) item.hidden = !item.textContent.toLowerCase().includes(wanted);
});
document.addEventListener("submit", (event) => {
  if (!event.target.closest("#palette")) return;
  const first = document.querySelector("#palette-items li:not([hidden]) a");
  if (first && document.getElementById("palette-text").value.trim()) {
    event.preventDefault();
    location.assign(first.href);
  }
});

// A form that is sent twice is answered twice, and only the second answer is seen: the first, with what it did (or a new key's secret), would be lost.
const ONCE_MS = 10_000;
let sent = new WeakMap();
addEventListener("pageshow", () => (sent = new WeakMap()));
document.addEventListener("submit", (event) => {
  if (event.defaultPrevented || event.target.method !== "post") return;
  if (event.timeStamp - (sent.get(event.target) ?? -Infinity) < ONCE_MS) event.preventDefault();
  else sent.set(event.target, event.timeStamp);
});

export { root, remember, recall };
