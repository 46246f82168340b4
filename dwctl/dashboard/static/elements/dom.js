// Elements in few words. `element("button.small", {type: "button", onclick}, "Send")`: texts are texts, never HTML.
export function element(what, properties = {}, ...inside) {
  const [tag, ...classes] = what.split(".");
  const made = document.createElement(tag);
  if (classes.length) made.className = classes.join(" ");
  for (const [name, value] of Object.entries(properties)) {
    if (name.startsWith("aria-") || name === "for" || name === "list") made.setAttribute(name, value);
    else if (name === "data") Object.assign(made.dataset, value);
    else made[name] = value;
  }
  made.append(...inside.filter((one) => one !== null && one !== undefined && one !== false));
  return made;
}

export const button = (label, onclick, properties = {}) => element("button.small.quiet", { type: "button", onclick, ...properties }, label);

// As high as its text, up to what the style sheet allows.
export function grow(area) {
  area.rows = Math.min(24, Math.max(area.minRows ?? 2, area.value.split("\n").length));
}
