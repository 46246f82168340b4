// What a person has put together in the playground, as a plain value; its text in the address (`#…`, which browsers keep to themselves); and the way back.
//
// turns: {role, text, images} by a person; {role: "assistant", answers: [{model, text, calls, request}]} by one model or several side by side;
// {role: "raw", raw} what a replayed call had and this page has no form for. calls: {id, name, arguments, result}.
export const MOST_MODELS = 4;
export const KINDS = ["chat", "completions", "embeddings", "rerank"];
const ROLES = ["system", "developer", "user", "assistant", "tool", "raw"];
const SETTINGS = ["temperature", "top_p", "max_tokens", "seed", "stop", "effort", "format", "schema", "tools", "tool_choice", "tier", "extra", "dimensions", "top_n"];
const MOST_IN_ADDRESS = 100_000;
const MOST_UNPACKED = 8_000_000;

export const fresh = () => ({
  kind: "chat",
  api: "chat",
  models: { chat: [], completions: [], embeddings: [], rerank: [] },
  system: "",
  prompt: "",
  turns: [],
  draft: { text: "", images: [] },
  set: {},
  stream: true,
  plain: false,
  texts: ["", ""],
  query: "",
  documents: ["", ""],
});

const text = (value) => (typeof value === "string" ? value : "");
const list = (value) => (Array.isArray(value) ? value : []);
const texts = (value) => list(value).filter((one) => typeof one === "string");
const images = (value) => texts(value).filter((url) => /^(https?:\/\/|data:image\/(png|jpeg|gif|webp);base64,)/.test(url));

// A state of whatever an address held: links come from strangers, too.
export function cleaned(given) {
  const state = fresh();
  if (typeof given !== "object" || given === null) return state;
  if (KINDS.includes(given.kind)) state.kind = given.kind;
  if (given.api === "responses") state.api = "responses";
  for (const kind of KINDS) state.models[kind] = [...new Set(texts(given.models?.[kind]))].slice(0, MOST_MODELS);
  for (const name of ["system", "prompt", "query"]) state[name] = text(given[name]);
  state.turns = list(given.turns).map(cleanedTurn).filter(Boolean);
  state.draft = { text: text(given.draft?.text), images: images(given.draft?.images) };
  for (const name of SETTINGS) if (text(given.set?.[name])) state.set[name] = given.set[name];
  state.stream = given.stream !== false;
  state.plain = given.plain === true;
  for (const name of ["texts", "documents"]) if (texts(given[name]).length) state[name] = texts(given[name]);
  return state;
}

function cleanedTurn(turn) {
  if (!ROLES.includes(turn?.role)) return null;
  if (turn.role === "raw") return turn.raw && typeof turn.raw === "object" ? { role: "raw", raw: turn.raw } : null;
  if (turn.role !== "assistant") return { role: turn.role, text: text(turn.text), images: images(turn.images) };
  const answers = list(turn.answers).slice(0, MOST_MODELS).map((answer) => ({
    model: text(answer?.model),
    text: text(answer?.text),
    request: /^[0-9a-f-]{36}$/.test(answer?.request) ? answer.request : "",
    calls: list(answer?.calls).map((call) => ({ id: text(call?.id), name: text(call?.name), arguments: text(call?.arguments), result: text(call?.result) })),
  }));
  return answers.length ? { role: "assistant", answers } : null;
}

// The state as a text for the address; "" where nothing is in it. Images that would make it too long stay out: `isWhole` says so.
export async function packed(state) {
  const kept = cleaned(state);
  if (JSON.stringify(kept) === JSON.stringify(fresh())) return { text: "", isWhole: true };
  const whole = await deflated(kept);
  if (whole.length <= MOST_IN_ADDRESS) return { text: whole, isWhole: true };
  for (const turn of [...kept.turns, kept.draft]) if (turn.images) turn.images = turn.images.filter((url) => !url.startsWith("data:"));
  const rest = await deflated(kept);
  return { text: rest.length <= MOST_IN_ADDRESS ? rest : "", isWhole: false };
}

// The state of an address's text; null where it is none.
export async function unpacked(text) {
  try {
    const bytes = Uint8Array.from(atob(text.replaceAll("-", "+").replaceAll("_", "/")), (sign) => sign.charCodeAt(0));
    return cleaned(JSON.parse(await inflated(bytes)));
  } catch {
    return null;
  }
}

async function deflated(value) {
  const bytes = new Uint8Array(await new Response(new Blob([JSON.stringify(value)]).stream().pipeThrough(new CompressionStream("deflate-raw"))).arrayBuffer());
  let binary = "";
  for (let from = 0; from < bytes.length; from += 8192) binary += String.fromCharCode(...bytes.subarray(from, from + 8192));
  return btoa(binary).replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");
}

async function inflated(bytes) {
  const reader = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate-raw")).pipeThrough(new TextDecoderStream()).getReader();
  let found = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return found;
    found += value;
    // A few bytes can say "a gigabyte of zeros".
    if (found.length > MOST_UNPACKED) throw new Error("too long");
  }
}
