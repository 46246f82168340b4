// The fields beside the conversation, and lists of texts: bound to the state by their names, with what is wrong said at the field.
import { button, element, grow } from "./dom.js";

const FIELD_OF = { max_completion_tokens: "max_tokens", max_output_tokens: "max_tokens", reasoning_effort: "effort", reasoning: "effort", service_tier: "tier", response_format: "schema", text: "schema" };

export function bindSettings(form, state, changed) {
  for (const field of form.elements) {
    if (!field.name) continue;
    field.value = state.set[field.name] ?? "";
    field.oninput = () => {
      if (field.value === "") delete state.set[field.name];
      else state.set[field.name] = field.value;
      unmark(field);
      changed();
    };
    unmark(field);
  }
}

// What the API, or we, say of a field; false where it is none of ours.
export function mark(form, param, message) {
  const name = String(param ?? "").split(/[.[]/)[0];
  const field = form.elements[FIELD_OF[name] ?? name];
  if (!field) return false;
  unmark(field);
  const id = `${field.id}-problem`;
  field.closest(".field").classList.add("wrong");
  field.closest(".field").append(element("p.problem", { id }, message));
  field.setAttribute("aria-invalid", "true");
  field.setAttribute("aria-describedby", id);
  return field;
}

function unmark(field) {
  const around = field.closest(".field");
  if (!around?.classList.contains("wrong")) return;
  around.classList.remove("wrong");
  around.querySelector(".problem")?.remove();
  field.removeAttribute("aria-invalid");
  field.removeAttribute("aria-describedby");
}

// A text each, one more by a button. texts is changed in place.
export function bindTexts(list, texts, label, changed) {
  const show = () => {
    list.replaceChildren(...texts.map(row), button(`Add a ${label.toLowerCase()}`, () => (texts.push(""), changed(), show(), list.querySelectorAll("textarea").item(texts.length - 1).focus())));
  };
  const row = (text, place) => {
    const area = element("textarea", { value: text, rows: 2, "aria-label": `${label} ${place + 1}`, oninput: () => ((texts[place] = area.value), grow(area), changed()) });
    grow(area);
    const remove = button("Remove", () => (texts.splice(place, 1), changed(), show()), { disabled: texts.length < 2, "aria-label": `Remove ${label.toLowerCase()} ${place + 1}` });
    return element("div.play-row", {}, area, remove);
  };
  show();
}
