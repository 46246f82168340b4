// A call written out for people to copy. Pure. ai: the address below which OpenAI's clients find the API.
export function curl(ai, path, body) {
  return [`curl ${quoted(`${ai}/${path}`)}`, '  -H "Authorization: Bearer $API_KEY"', "  -H 'Content-Type: application/json'", `  -d ${quoted(JSON.stringify(body, null, 2))}`].join(" \\\n");
}

export function python(ai, path, body) {
  return [
    "import os",
    "import requests",
    "",
    "answer = requests.post(",
    `    ${JSON.stringify(`${ai}/${path}`)},`,
    '    headers={"Authorization": f"Bearer {os.environ[\'API_KEY\']}"},',
    `    json=${literal(body, 4)},`,
    body.stream ? "    stream=True,\n)" : ")",
    "answer.raise_for_status()",
    ...(body.stream ? ["for line in answer.iter_lines():", "    print(line.decode())"] : ["print(answer.json())"]),
  ].join("\n");
}

const METHODS = { "chat/completions": "chat.completions.create", responses: "responses.create", completions: "completions.create", embeddings: "embeddings.create" };
const BEYOND = { "chat/completions": ["top_k", "min_p", "repetition_penalty", "chat_template_kwargs"], responses: ["top_k"], completions: ["top_k", "min_p", "repetition_penalty"], embeddings: [] };

export function sdk(ai, path, body) {
  const head = ["import os", "from openai import OpenAI", "", `client = OpenAI(base_url=${JSON.stringify(ai)}, api_key=os.environ["API_KEY"])`];
  const method = METHODS[path];
  if (!method) return [...head, `print(client.post(${JSON.stringify(`/${path}`)}, body=${literal(body, 0)}, cast_to=object))`].join("\n");
  const beyond = Object.keys(body).filter((name) => BEYOND[path].includes(name) || !/^[a-z_]+$/.test(name));
  const members = Object.entries(body).filter(([name]) => !beyond.includes(name)).map(([name, value]) => `    ${name}=${literal(value, 4)},`);
  if (beyond.length) members.push(`    extra_body=${literal(Object.fromEntries(beyond.map((name) => [name, body[name]])), 4)},`);
  return [...head, `answer = client.${method}(`, ...members, ")", ...(body.stream ? ["for event in answer:", "    print(event)"] : ["print(answer)"])].join("\n");
}

const quoted = (text) => `'${text.replaceAll("'", "'\\''")}'`;

// A JSON value as Python: its texts are Python's texts, its constants are not.
function literal(value, indent) {
  if (value === null) return "None";
  if (value === true) return "True";
  if (value === false) return "False";
  if (typeof value !== "object") return JSON.stringify(value);
  const inner = " ".repeat(indent + 4), end = " ".repeat(indent);
  const parts = Array.isArray(value) ? value.map((one) => literal(one, indent + 4)) : Object.entries(value).map(([name, one]) => `${JSON.stringify(name)}: ${literal(one, indent + 4)}`);
  const [open, close] = Array.isArray(value) ? "[]" : "{}";
  return parts.length ? `${open}\n${parts.map((part) => `${inner}${part},`).join("\n")}\n${end}${close}` : open + close;
}
