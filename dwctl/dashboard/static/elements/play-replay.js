// The body of a call from the log as a state of the playground. Nothing of it is lost: what the page has no form for goes on as JSON.
import { fresh } from "./play-state.js";

const CHAT_MEMBERS = ["model", "messages", "stream", "stream_options", "temperature", "top_p", "max_tokens", "seed", "stop", "reasoning_effort", "response_format", "tools", "tool_choice", "service_tier"];
const RESPONSES_MEMBERS = ["model", "input", "instructions", "stream", "temperature", "top_p", "max_output_tokens", "reasoning", "text", "tools", "tool_choice", "service_tier"];

// uri: the route below /ai/v1. Null where it is no call that the playground can make.
export function stateOf(uri, body) {
  const state = fresh();
  if (typeof body !== "object" || body === null) return null;
  if (/responses/.test(uri)) return fromResponses(state, body);
  if (/chat\/completions/.test(uri)) return fromChat(state, body);
  if (/completions/.test(uri)) return fromCompletion(state, body);
  if (/embeddings/.test(uri)) {
    Object.assign(state, { kind: "embeddings", texts: [body.input].flat().map(asText) });
    return withRest(state, body, ["model", "input", "dimensions"], { dimensions: body.dimensions });
  }
  if (/rerank/.test(uri)) {
    Object.assign(state, { kind: "rerank", query: asText(body.query ?? ""), documents: [body.documents ?? []].flat().map(asText) });
    return withRest(state, body, ["model", "query", "documents", "top_n"], { top_n: body.top_n });
  }
  return null;
}

function fromChat(state, body) {
  const messages = Array.isArray(body.messages) ? [...body.messages] : [];
  if (messages[0]?.role === "system" && typeof messages[0].content === "string") state.system = messages.shift().content;
  for (const message of messages) takeMessage(state.turns, message);
  const format = body.response_format;
  return withRest(state, body, CHAT_MEMBERS, {
    ...common(body),
    max_tokens: body.max_tokens,
    seed: body.seed,
    stop: stopOf(body),
    effort: body.reasoning_effort,
    format: format?.type,
    schema: pretty(format?.json_schema),
  });
}

function fromCompletion(state, body) {
  const isText = typeof body.prompt === "string";
  Object.assign(state, { kind: "completions", prompt: isText ? body.prompt : "" });
  const members = ["model", "stream", "stream_options", "temperature", "top_p", "max_tokens", "seed", "stop", ...(isText ? ["prompt"] : [])];
  const { temperature, top_p, max_tokens, seed } = body;
  return withRest(state, body, members, { temperature, top_p, max_tokens, seed, stop: stopOf(body) });
}

function fromResponses(state, body) {
  state.api = "responses";
  state.system = typeof body.instructions === "string" ? body.instructions : "";
  const input = typeof body.input === "string" ? [{ role: "user", content: body.input }] : Array.isArray(body.input) ? body.input : [];
  for (const item of input) takeItem(state.turns, item);
  const { type, ...schema } = body.text?.format ?? {};
  const { effort, ...reasoning } = body.reasoning ?? {};
  const left = Object.keys(reasoning).length ? { ...body, more: reasoning } : body;
  const made = withRest(state, body, RESPONSES_MEMBERS, { ...common(body), max_tokens: body.max_output_tokens, effort, format: type, schema: type === "json_schema" ? pretty(schema) : "" });
  if (left.more) made.set.extra = pretty({ ...JSON.parse(made.set.extra ?? "{}"), reasoning });
  return made;
}

const stopOf = (body) => [body.stop ?? []].flat().join("\n");

const common = (body) => ({
  temperature: body.temperature,
  top_p: body.top_p,
  tier: ["flex", "priority", "default"].includes(body.service_tier) ? body.service_tier : "",
  tools: pretty(body.tools),
  tool_choice: typeof body.tool_choice === "string" ? body.tool_choice : "",
});

function withRest(state, body, known, set) {
  const rest = Object.fromEntries(Object.entries(body).filter(([name]) => !known.includes(name)));
  if (typeof body.tool_choice === "object" && body.tool_choice) rest.tool_choice = body.tool_choice;
  if (Object.keys(rest).length) state.set.extra = pretty(rest);
  for (const [name, value] of Object.entries(set)) if (value !== undefined && value !== null && value !== "" && value !== "text") state.set[name] = String(value);
  if (typeof body.model === "string") state.models[state.kind] = [body.model];
  state.stream = body.stream === true;
  return state;
}

function takeMessage(turns, message) {
  const last = turns.at(-1)?.answers?.[0];
  const call = message?.role === "tool" && last?.calls.find((one) => one.id === message.tool_call_id);
  if (call && typeof message.content === "string") return void (call.result = message.content);
  const only = (names) => Object.keys(message).every((name) => names.includes(name));
  if (message?.role === "assistant" && only(["role", "content", "tool_calls", "refusal", "annotations"]) && (message.content ?? "").length !== undefined && !Array.isArray(message.content)) {
    const calls = (message.tool_calls ?? []).map((one) => ({ id: asText(one.id), name: asText(one.function?.name), arguments: asText(one.function?.arguments), result: "" }));
    return void turns.push({ role: "assistant", answers: [{ model: "", text: message.content ?? "", calls }] });
  }
  const parts = ["user", "system", "developer"].includes(message?.role) && only(["role", "content"]) && partsOf(message.content);
  turns.push(parts ? { role: message.role, ...parts } : { role: "raw", raw: message });
}

function takeItem(turns, item) {
  const last = turns.at(-1)?.answers?.[0];
  if (item?.type === "function_call") {
    const call = { id: asText(item.call_id), name: asText(item.name), arguments: asText(item.arguments), result: "" };
    return void (last ? last.calls.push(call) : turns.push({ role: "assistant", answers: [{ model: "", text: "", calls: [call] }] }));
  }
  const call = item?.type === "function_call_output" && last?.calls.find((one) => one.id === item.call_id);
  if (call && typeof item.output === "string") return void (call.result = item.output);
  const parts = (item?.type ?? "message") === "message" && partsOf(item.content);
  if (parts && item.role === "assistant" && !parts.images.length) return void turns.push({ role: "assistant", answers: [{ model: "", text: parts.text, calls: [] }] });
  turns.push(parts && ["user", "system", "developer"].includes(item.role) ? { role: item.role, ...parts } : { role: "raw", raw: item });
}

// Text and pictures of a content; null where it has something else, or more than one text.
function partsOf(content) {
  if (typeof content === "string") return { text: content, images: [] };
  if (!Array.isArray(content)) return null;
  const texts = content.filter((part) => ["text", "input_text", "output_text"].includes(part?.type));
  const images = content.filter((part) => ["image_url", "input_image"].includes(part?.type)).map((part) => part.image_url?.url ?? part.image_url);
  if (texts.length > 1 || texts.length + images.length < content.length || !images.every((url) => typeof url === "string")) return null;
  return { text: texts[0]?.text ?? "", images };
}

const asText = (value) => (typeof value === "string" ? value : JSON.stringify(value ?? ""));
const pretty = (value) => (value === undefined || value === null ? "" : JSON.stringify(value, null, 2));
