// One call through the playground's tunnel: sent, read as it comes, and timed. What it gives goes into the answer; `changed` is called after each piece.
import { eventsOf } from "./sse.js";
import { advice, take, takeWhole } from "./play-answers.js";

export async function ask({ url, body, api, answer, signal, changed }) {
  answer.began = performance.now();
  answer.state = "waiting";
  answer.prompt = JSON.stringify(body.messages ?? body.prompt ?? body.input ?? body.documents ?? "");
  answer.tier = body.service_tier;
  changed();
  try {
    const response = await fetch(url, { method: "POST", body: JSON.stringify(body), headers: { "Content-Type": "application/json" }, credentials: "same-origin", signal });
    answer.request = response.headers.get("x-request-id") ?? "";
    answer.charged = response.headers.get("x-dwctl-cost");
    if (!response.ok) await refused(answer, response);
    else if (response.headers.get("Content-Type")?.startsWith("text/event-stream")) await streamed(answer, response, api, changed);
    else await whole(answer, response, api);
  } catch (error) {
    if (signal.aborted) answer.state = "stopped";
    else broken(answer, error);
  }
  answer.ended = performance.now();
  changed();
}

async function streamed(answer, response, api, changed) {
  let isOver = false;
  for await (const data of eventsOf(response.body)) {
    isOver = take(answer, data, api) || isOver;
    if (answer.pieces && !answer.first) answer.first = performance.now();
    if (answer.pieces) answer.state = "writing";
    changed();
  }
  if (answer.error) {
    answer.state = answer.pieces ? "cut" : "failed";
    answer.error.advice = answer.pieces ? "What came is kept above. Answer again to have it whole." : "Send it again, or try another model.";
  } else if (isOver) answer.state = "done";
  else {
    answer.state = "cut";
    answer.error = { message: "The stream ended before the answer was complete.", advice: "What came is kept above. Answer again to have it whole." };
  }
}

async function whole(answer, response, api) {
  const body = await response.json();
  answer.first = performance.now();
  if (["chat", "responses", "completions"].includes(api)) takeWhole(answer, body, api);
  else Object.assign(answer, { result: body, usage: body.usage ? { prompt: body.usage.prompt_tokens ?? body.usage.total_tokens ?? 0, completion: 0 } : null });
  answer.state = answer.error ? "failed" : "done";
}

async function refused(answer, response) {
  answer.state = "failed";
  answer.status = response.status;
  const said = await response.json().catch(() => null);
  const error = said?.error ?? said ?? {};
  answer.error = { message: error.message ?? `The answer was ${response.status}.`, code: error.code, param: error.param, balance: error.balance, needed: error.needed };
  answer.error.advice = advice(response.status, response.headers.get("Retry-After"));
}

function broken(answer, error) {
  answer.state = answer.first ? "cut" : "failed";
  const came = answer.first ? " What came is kept above." : "";
  answer.error = { message: `The connection broke before the answer was complete (${error.message}).${came}`, advice: "Send it again." };
}
