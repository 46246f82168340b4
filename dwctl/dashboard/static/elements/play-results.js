// What embeddings and rerank give: vectors with their length and how near they are to each other; documents in their new order.
import { element } from "./dom.js";

const SHOWN = 6;

export function resultOf(result, given) {
  if (Array.isArray(result.data)) return vectors(result.data, given);
  if (Array.isArray(result.results)) return ranking(result.results, given);
  return element("pre", { tabIndex: 0 }, element("code", {}, JSON.stringify(result, null, 2).slice(0, 20_000)));
}

export function cosine(one, other) {
  let product = 0, first = 0, second = 0;
  for (let at = 0; at < Math.min(one.length, other.length); at += 1) {
    product += one[at] * other[at];
    first += one[at] ** 2;
    second += other[at] ** 2;
  }
  return first && second ? product / Math.sqrt(first * second) : 0;
}

function vectors(data, given) {
  const found = data.map((one) => (Array.isArray(one.embedding) ? one.embedding : decoded(one.embedding)));
  const rows = found.map((vector, at) =>
    element(
      "tr",
      {},
      element("td.wrap", {}, given[at] ?? `Text ${at + 1}`),
      element("td.num", {}, String(vector.length)),
      element("td.num", {}, Math.sqrt(vector.reduce((sum, value) => sum + value * value, 0)).toFixed(4)),
      element("td.mono", {}, `${vector.slice(0, SHOWN).map((value) => value.toFixed(4)).join(", ")}${vector.length > SHOWN ? ", …" : ""}`),
      ...found.map((other) => element("td.num", {}, cosine(vector, other).toFixed(4))),
    ),
  );
  const head = ["Text", "Dimensions", "Length", "Begins", ...found.map((_, at) => `Cosine to ${at + 1}`)];
  return element("div.stack", {}, table(head, rows), copyable(JSON.stringify(found)));
}

function decoded(base64) {
  const bytes = Uint8Array.from(atob(String(base64)), (sign) => sign.charCodeAt(0));
  return [...new Float32Array(bytes.buffer)];
}

function ranking(results, given) {
  const rows = results.map((one, place) =>
    element("tr", {}, element("td.num", {}, String(place + 1)), element("td.wrap", {}, given[one.index] ?? String(one.document?.text ?? one.document ?? "")), element("td.num", {}, Number(one.relevance_score ?? one.score).toFixed(4)), element("td.num", {}, String(one.index + 1))),
  );
  return table(["Place", "Document", "Score", "Was"], rows);
}

function table(head, rows) {
  const numbers = head.map((name) => (["Text", "Begins", "Document"].includes(name) ? "" : ".num"));
  const cells = head.map((name, at) => element(`th${numbers[at]}`, { scope: "col" }, name));
  return element("div.scroll", { tabIndex: 0 }, element("table", {}, element("thead", {}, element("tr", {}, ...cells)), element("tbody", {}, ...rows)));
}

function copyable(text) {
  return element("button.quiet.small", { type: "button", data: { copy: text } }, element("span", {}, "Copy the vectors"));
}
