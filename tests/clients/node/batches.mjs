// A file and a batch of it, by openai's library: node batches.mjs prints what came of it as one line of JSON.
// BASE_URL, API_KEY and the model ECHO come from the environment.

import OpenAI, { toFile } from "openai";

const { BASE_URL: baseURL, API_KEY: apiKey, ECHO } = process.env;
const SAID = ["one\u2028two", "Grüße, 世界"];
const openai = new OpenAI({ baseURL, apiKey, maxRetries: 0, timeout: 20_000 });

const lines = SAID.map((content, n) =>
  JSON.stringify({
    custom_id: `line-${n}`,
    method: "POST",
    url: "/v1/chat/completions",
    body: { model: ECHO, messages: [{ role: "user", content }] },
  }),
);
const file = await openai.files.create({
  file: await toFile(Buffer.from(lines.join("\n")), '世界 "1".jsonl'),
  purpose: "batch",
  expires_after: { anchor: "created_at", seconds: 3600 },
});
await openai.files.waitForProcessing(file.id, { pollInterval: 100, maxWait: 5_000 });
const made = await openai.batches.create({
  input_file_id: file.id,
  endpoint: "/v1/chat/completions",
  completion_window: "24h",
  metadata: { team: "a" },
});
let batch = made;
for (const until = Date.now() + 30_000; batch.status !== "completed" && Date.now() < until; ) {
  await new Promise((resolve) => setTimeout(resolve, 100));
  batch = await openai.batches.retrieve(made.id);
}
const listed = [];
for await (const found of openai.files.list({ limit: 1 })) listed.push(found.id);
const output = await (await openai.files.content(batch.output_file_id)).text();
const answers = output
  .trimEnd()
  .split("\n")
  .map((line) => JSON.parse(line))
  .sort((a, b) => a.custom_id.localeCompare(b.custom_id))
  .map((line) => line.response.body.choices[0].message.content);
const { deleted } = await openai.files.delete(file.id);
console.log(
  JSON.stringify({
    filename: file.filename,
    lifetime: file.expires_at - file.created_at,
    status: batch.status,
    counts: batch.request_counts,
    team: batch.metadata.team,
    listed: [file.id, batch.output_file_id, batch.error_file_id].every((id) => listed.includes(id)),
    twice: listed.length - new Set(listed).size,
    answers,
    after: (await openai.batches.cancel(batch.id)).status,
    deleted,
  }),
);
