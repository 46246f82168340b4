// Request bodies of what is in the playground, for one model. Pure. Raises Wrong for a field that cannot be sent.
export class Wrong extends Error {
  constructor(field, message) {
    super(message);
    this.field = field;
  }
}

export const pathOf = (state) => (state.kind === "chat" ? (state.api === "responses" ? "responses" : "chat/completions") : state.kind);

export function bodyFor(state, model) {
  const body = { ...(json(state.set.extra, "extra", "an object") ?? {}), model };
  if (state.kind === "completions") return completion(state, body);
  if (state.kind === "embeddings") return Object.assign(body, { input: filled(state.texts, "texts") }, number(state, "dimensions"));
  if (state.kind === "rerank") return Object.assign(body, { query: state.query, documents: filled(state.documents, "documents") }, number(state, "top_n"));
  return state.api === "responses" ? responses(state, model, body) : chat(state, model, body);
}

function chat(state, model, body) {
  const set = state.set;
  body.messages = [...(state.system ? [{ role: "system", content: state.system }] : []), ...state.turns.flatMap((turn) => messagesOf(turn, model))];
  Object.assign(body, sampling(state), number(state, "max_tokens"), number(state, "seed"));
  if (set.stop) body.stop = lines(set.stop);
  if (set.effort) body.reasoning_effort = set.effort;
  const format = formatOf(set);
  if (format) body.response_format = format.type === "json_schema" ? { type: "json_schema", json_schema: format.schema } : { type: format.type };
  withTools(body, set, (tool) => (tool.type === "function" && !tool.function ? { type: "function", function: without(tool, "type") } : tool));
  if (state.stream) Object.assign(body, { stream: true, stream_options: { include_usage: true } });
  return body;
}

// (A replayed one may have a prompt that is no text: it is among the further members.)
function completion(state, body) {
  if (!state.prompt && !body.prompt) throw new Wrong("prompt", "Write a text to go on with first.");
  if (state.prompt) body.prompt = state.prompt;
  Object.assign(body, number(state, "temperature"), number(state, "top_p"), number(state, "max_tokens"), number(state, "seed"));
  if (state.set.stop) body.stop = lines(state.set.stop);
  if (state.stream) Object.assign(body, { stream: true, stream_options: { include_usage: true } });
  return body;
}

function responses(state, model, body) {
  const set = state.set;
  if (state.system) body.instructions = state.system;
  body.input = state.turns.flatMap((turn) => itemsOf(turn, model));
  Object.assign(body, sampling(state), number(state, "max_tokens", "max_output_tokens"));
  if (set.effort) body.reasoning = { ...body.reasoning, effort: set.effort };
  const format = formatOf(set);
  if (format) body.text = { format: format.type === "json_schema" ? { type: "json_schema", ...format.schema } : { type: format.type } };
  withTools(body, set, (tool) => (tool.function ? { type: "function", ...tool.function } : tool));
  if (state.stream) body.stream = true;
  return body;
}

function sampling(state) {
  const { tier } = state.set;
  return { ...number(state, "temperature"), ...number(state, "top_p"), ...(tier ? { service_tier: tier } : {}) };
}

// What a turn was to one model: its own answer where it gave one, nothing where others of the present ones did.
export function answerOf(turn, model) {
  return turn.answers.find((answer) => answer.model === model) ?? (turn.answers.length === 1 ? turn.answers[0] : null);
}

function messagesOf(turn, model) {
  if (turn.role === "raw") return [turn.raw];
  if (turn.role !== "assistant") return [{ role: turn.role, content: contentOf(turn, (text) => ({ type: "text", text }), (url) => ({ type: "image_url", image_url: { url } })) }];
  const answer = answerOf(turn, model);
  if (!answer) return [];
  const calls = answer.calls ?? [];
  if (!calls.length) return [{ role: "assistant", content: answer.text }];
  const tool_calls = calls.map((call) => ({ id: call.id, type: "function", function: { name: call.name, arguments: call.arguments } }));
  return [{ role: "assistant", content: answer.text || null, tool_calls }, ...calls.map((call) => ({ role: "tool", tool_call_id: call.id, content: call.result ?? "" }))];
}

function itemsOf(turn, model) {
  if (turn.role === "raw") return [turn.raw];
  if (turn.role !== "assistant") return [{ role: turn.role, content: contentOf(turn, (text) => ({ type: "input_text", text }), (image_url) => ({ type: "input_image", image_url })) }];
  const answer = answerOf(turn, model);
  if (!answer) return [];
  return [
    ...(answer.text ? [{ role: "assistant", content: answer.text }] : []),
    ...(answer.calls ?? []).map((call) => ({ type: "function_call", call_id: call.id, name: call.name, arguments: call.arguments })),
    ...(answer.calls ?? []).map((call) => ({ type: "function_call_output", call_id: call.id, output: call.result ?? "" })),
  ];
}

function contentOf(turn, asText, asImage) {
  if (!turn.images?.length) return turn.text;
  return [...(turn.text ? [asText(turn.text)] : []), ...turn.images.map(asImage)];
}

function withTools(body, set, written) {
  const tools = json(set.tools, "tools", "an array");
  if (tools?.length) body.tools = tools.map(written);
  if (set.tool_choice) body.tool_choice = set.tool_choice;
}

function formatOf(set) {
  if (set.format !== "json_schema") return set.format ? { type: set.format } : null;
  const schema = json(set.schema, "schema", "an object");
  if (!schema) throw new Wrong("schema", "A JSON schema is needed for this format.");
  return { type: "json_schema", schema: schema.name && schema.schema ? schema : { name: "answer", schema } };
}

function json(text, field, shape) {
  if (!text?.trim()) return null;
  let value;
  try {
    value = JSON.parse(text);
  } catch (error) {
    throw new Wrong(field, `Not JSON: ${error.message}`);
  }
  const fits = shape === "an array" ? Array.isArray(value) : value !== null && typeof value === "object" && !Array.isArray(value);
  if (!fits) throw new Wrong(field, `Must be ${shape}.`);
  return value;
}

// As the number that was typed; what is none goes as its text, so that the API says what is wrong with it.
function number(state, name, sent = name) {
  const text = state.set[name]?.trim();
  return text ? { [sent]: Number.isFinite(Number(text)) ? Number(text) : text } : {};
}

const lines = (text) => text.split("\n").filter((line) => line !== "");
const without = (object, name) => Object.fromEntries(Object.entries(object).filter(([key]) => key !== name));

function filled(texts, field) {
  const found = texts.filter((text) => text !== "");
  if (!found.length) throw new Wrong(field, "Write at least one text.");
  return found;
}
