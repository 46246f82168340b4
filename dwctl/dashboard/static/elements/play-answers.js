// What comes back, taken into an answer: {text, thoughts, refusal, calls, usage, finish, error, status, waits}. Pure; one function for each form of it.
export const blank = (model) => ({ model, text: "", thoughts: "", refusal: "", calls: [], usage: null, finish: "", error: null, request: "", waits: false, pieces: 0 });

const counts = (usage) =>
  usage && {
    prompt: usage.prompt_tokens ?? usage.input_tokens ?? 0,
    completion: usage.completion_tokens ?? usage.output_tokens ?? 0,
    cached: (usage.prompt_tokens_details ?? usage.input_tokens_details)?.cached_tokens ?? 0,
    reasoning: (usage.completion_tokens_details ?? usage.output_tokens_details)?.reasoning_tokens ?? 0,
  };

// One event of a stream. True once it was the last.
export function take(answer, data, api) {
  if (data === "[DONE]") return true;
  const event = JSON.parse(data);
  if (event.error && !event.type?.startsWith("response.")) {
    answer.error = event.error;
    return true;
  }
  return api === "responses" ? takeResponse(answer, event) : takeChunk(answer, event);
}

function takeChunk(answer, chunk) {
  answer.usage = counts(chunk.usage) ?? answer.usage;
  const choice = chunk.choices?.[0];
  if (!choice) return false;
  const { content, refusal, tool_calls, reasoning_content, reasoning, function_call } = choice.delta ?? {};
  if (content || choice.text || reasoning_content || reasoning || refusal || tool_calls || function_call) answer.pieces += 1;
  answer.text += content ?? choice.text ?? "";
  answer.thoughts += reasoning_content ?? (typeof reasoning === "string" ? reasoning : "");
  answer.refusal += refusal ?? "";
  for (const piece of tool_calls ?? []) {
    const call = (answer.calls[piece.index ?? 0] ??= { id: "", name: "", arguments: "", result: "" });
    call.id ||= piece.id ?? "";
    call.name += piece.function?.name ?? "";
    call.arguments += piece.function?.arguments ?? "";
  }
  answer.finish = choice.finish_reason ?? answer.finish;
  return false;
}

function takeResponse(answer, event) {
  const { type } = event;
  if (type === "response.queued") answer.waits = true;
  if (type === "response.in_progress") answer.waits = false;
  if (typeof event.delta === "string") answer.pieces += 1;
  if (type === "response.output_text.delta") answer.text += event.delta;
  if (type === "response.refusal.delta") answer.refusal += event.delta;
  if (type === "response.reasoning_text.delta" || type === "response.reasoning_summary_text.delta") answer.thoughts += event.delta;
  if (type === "response.function_call_arguments.delta") {
    const call = answer.calls.find((one) => one.item === event.item_id) ?? answer.calls.at(-1);
    if (call) call.arguments += event.delta;
  }
  if (type === "response.output_item.added" && event.item?.type === "function_call") {
    answer.calls.push({ item: event.item.id, id: event.item.call_id ?? "", name: event.item.name ?? "", arguments: event.item.arguments ?? "", result: "" });
  }
  if (type === "error") {
    answer.error = event.error ?? event;
    return true;
  }
  if (!["response.completed", "response.incomplete", "response.failed"].includes(type)) return false;
  takeWhole(answer, event.response ?? {}, "responses");
  return true;
}

// An answer in one piece, or the object that ends a stream of the Responses API: it holds all that the pieces were.
export function takeWhole(answer, body, api) {
  answer.usage = counts(body.usage) ?? answer.usage;
  if (api !== "responses") {
    const choice = body.choices?.[0] ?? {};
    takeChunk(answer, { choices: [{ text: choice.text, delta: { ...choice.message, tool_calls: choice.message?.tool_calls?.map((call, index) => ({ ...call, index })) }, finish_reason: choice.finish_reason }] });
    return;
  }
  answer.waits = false;
  answer.error = body.error ?? answer.error;
  answer.finish = body.incomplete_details?.reason ?? body.status ?? answer.finish;
  const items = body.output ?? [];
  const parts = items.filter((item) => item.type === "message").flatMap((item) => item.content ?? []);
  const joined = (type, of = parts) => of.filter((part) => part.type === type).map((part) => part.text ?? part.refusal ?? "").join("");
  if (!items.length) return;
  answer.text = joined("output_text");
  answer.refusal = joined("refusal");
  const thoughts = items.filter((item) => item.type === "reasoning").flatMap((item) => [...(item.content ?? []), ...(item.summary ?? [])]);
  answer.thoughts = thoughts.map((part) => part.text ?? "").join("\n\n") || answer.thoughts;
  answer.calls = items.filter((item) => item.type === "function_call").map((item) => ({ id: item.call_id, name: item.name, arguments: item.arguments, result: "" }));
}

const ADVICE = {
  401: "Your sign-in is over. Sign in again in another tab, then send again.",
  402: "There is not enough credit for this call.",
  403: "You may not call this model.",
  404: "This model or route does not exist here. Choose another one.",
  408: "It took too long. Send it again.",
  413: "This is larger than a request may be. Use smaller or fewer images.",
  429: "Too many calls at once.",
  502: "The model's server failed or could not be reached. Send it again, or try another model.",
  503: "This is not possible at this moment. Send it again.",
  504: "The model's server was too slow. Send it again, or try another model.",
};

// What an error says and what helps. retryAfter: the header's seconds.
export function advice(status, retryAfter) {
  const seconds = Number(retryAfter);
  const wait = Number.isFinite(seconds) && seconds > 0 ? ` Try again in ${seconds} s.` : "";
  return (ADVICE[status] ?? (status >= 500 ? "Send it again, or try another model." : "Change what it names, then send again.")) + wait;
}
