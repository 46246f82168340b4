// The four flows of tests/clients, by library: node flows.mjs LIBRARY prints what came of each as one line of JSON.
// BASE_URL, API_KEY and the names of the models come from the environment.

import { createOpenAI } from "@ai-sdk/openai";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { AIMessage, HumanMessage, ToolMessage } from "@langchain/core/messages";
import { tool as langchainTool } from "@langchain/core/tools";
import { ChatOpenAI } from "@langchain/openai";
import {
  Agent,
  OpenAIChatCompletionsModel,
  OpenAIResponsesModel,
  run,
  setTracingDisabled,
  tool as agentsTool,
} from "@openai/agents";
import { generateText, Output, stepCountIs, streamText, tool as aiTool } from "ai";
import OpenAI from "openai";
import { zodResponseFormat, zodTextFormat } from "openai/helpers/zod";
import { z } from "zod";

const { BASE_URL: baseURL, API_KEY: apiKey, PLAIN, TOOLS, ECHO, THINKING, TURNED } = process.env;
const QUESTION = "How is the weather in Oslo?";
const CITY = '{"city":"Oslo","degrees":7}';
const Weather = z.object({ city: z.string(), degrees: z.number() });
const Place = z.object({ city: z.string() });
const weatherOf = async ({ city }) => `${city}: 7 degrees`;

// --- openai

const openai = new OpenAI({ baseURL, apiKey, maxRetries: 0, timeout: 20_000 });
const PARAMETERS = {
  type: "object",
  properties: { city: { type: "string" } },
  required: ["city"],
  additionalProperties: false,
};

const openaiChat = {
  async tools() {
    const runner = openai.chat.completions.runTools({
      model: TOOLS,
      messages: [{ role: "user", content: QUESTION }],
      tools: [
        {
          type: "function",
          function: { name: "get_weather", function: weatherOf, parse: JSON.parse, parameters: PARAMETERS },
        },
      ],
    });
    return { said: await runner.finalContent() };
  },
  async structured() {
    const made = await openai.chat.completions.parse({
      model: ECHO,
      messages: [{ role: "user", content: CITY }],
      response_format: zodResponseFormat(Weather, "weather"),
    });
    return { parsed: made.choices[0].message.parsed };
  },
  async stream() {
    const stream = openai.chat.completions.stream({
      model: THINKING,
      messages: [{ role: "user", content: "Hello" }],
      stream_options: { include_usage: true },
    });
    const final = await stream.finalChatCompletion();
    return { said: final.choices[0].message.content, tokens: final.usage.total_tokens };
  },
  async second() {
    const messages = [{ role: "user", content: "Hello" }];
    const first = await openai.chat.completions.create({ model: THINKING, messages });
    messages.push(first.choices[0].message, { role: "user", content: "And again" });
    const second = await openai.chat.completions.create({ model: THINKING, messages });
    return { said: second.choices[0].message.content };
  },
  async embeddings() {
    const of = async (model) => (await openai.embeddings.create({ model, input: "one" })).data[0].embedding;
    return { plain: Array.from(await of(PLAIN)), turned: Array.from(await of(TURNED)) };
  },
};

const FUNCTION = { type: "function", name: "get_weather", parameters: PARAMETERS, strict: true };

const openaiResponses = {
  async tools() {
    const input = [{ role: "user", content: QUESTION }];
    const first = await openai.responses.create({ model: TOOLS, input, tools: [FUNCTION] });
    input.push(...first.output);
    for (const item of first.output) {
      if (item.type !== "function_call") continue;
      const output = await weatherOf(JSON.parse(item.arguments));
      input.push({ type: "function_call_output", call_id: item.call_id, output });
    }
    const second = await openai.responses.create({ model: TOOLS, input, tools: [FUNCTION] });
    return { said: second.output_text };
  },
  async structured() {
    const made = await openai.responses.parse({
      model: ECHO,
      input: CITY,
      text: { format: zodTextFormat(Weather, "weather") },
    });
    return { parsed: made.output_parsed };
  },
  async stream() {
    const stream = openai.responses.stream({ model: THINKING, input: "Hello" });
    const final = await stream.finalResponse();
    return { said: final.output_text, tokens: final.usage.total_tokens };
  },
  async second() {
    const first = await openai.responses.create({ model: THINKING, input: "Hello" });
    const second = await openai.responses.create({
      model: THINKING,
      input: "And again",
      previous_response_id: first.id,
    });
    return { said: second.output_text };
  },
};

// --- the Vercel AI SDK

function aiSdk(model) {
  const tools = { get_weather: aiTool({ inputSchema: Place, execute: weatherOf }) };
  const turns = async (name, more) => {
    const messages = [{ role: "user", content: QUESTION }];
    const first = await generateText({ model: model(name), messages, maxRetries: 0, ...more });
    messages.push(...first.response.messages, { role: "user", content: "And again" });
    const second = await generateText({ model: model(name), messages, maxRetries: 0, ...more });
    return { first: first.text, said: second.text };
  };
  return {
    async tools() {
      const made = await generateText({
        model: model(TOOLS),
        prompt: QUESTION,
        tools,
        stopWhen: stepCountIs(4),
        maxRetries: 0,
      });
      return { said: made.text, steps: made.steps.length };
    },
    async structured() {
      const made = await generateText({
        model: model(ECHO),
        prompt: CITY,
        output: Output.object({ schema: Weather }),
        maxRetries: 0,
      });
      return { parsed: made.output };
    },
    async stream() {
      const made = streamText({ model: model(THINKING), prompt: "Hello", maxRetries: 0 });
      const order = [];
      for await (const part of made.fullStream) {
        if (part.type === "error") throw part.error;
        if (/^(reasoning|text)-(start|end)$/.test(part.type)) order.push(part.type);
      }
      const usage = await made.totalUsage;
      return { said: await made.text, thought: await made.reasoningText, order, tokens: usage.totalTokens };
    },
    async second() {
      return turns(THINKING, {});
    },
    async secondAfterTools() {
      return turns(TOOLS, { tools, stopWhen: stepCountIs(4) });
    },
  };
}

// --- langchain

function langchain(useResponsesApi) {
  const model = (name) =>
    new ChatOpenAI({ model: name, apiKey, configuration: { baseURL }, useResponsesApi, maxRetries: 0 });
  const weather = langchainTool(weatherOf, {
    name: "get_weather",
    description: "The weather of a city.",
    schema: Place,
  });
  return {
    async tools() {
      const bound = model(TOOLS).bindTools([weather]);
      const messages = [new HumanMessage(QUESTION)];
      const asked = await bound.invoke(messages);
      messages.push(asked);
      for (const call of asked.tool_calls) messages.push(await weather.invoke(call));
      if (!(messages.at(-1) instanceof ToolMessage)) throw new Error("no tool was called");
      return { said: (await bound.invoke(messages)).text };
    },
    async structured() {
      const asked = model(ECHO).withStructuredOutput(Weather, { method: "jsonSchema" });
      return { parsed: await asked.invoke(CITY) };
    },
    async stream() {
      let whole;
      for await (const chunk of await model(THINKING).stream("Hello")) {
        whole = whole === undefined ? chunk : whole.concat(chunk);
      }
      return { said: whole.text, tokens: whole.usage_metadata.total_tokens };
    },
    async second() {
      const first = await model(THINKING).invoke([new HumanMessage("Hello")]);
      if (!(first instanceof AIMessage)) throw new Error("no message");
      const second = await model(THINKING).invoke([new HumanMessage("Hello"), first, new HumanMessage("And again")]);
      return { said: second.text };
    },
  };
}

// --- the OpenAI Agents SDK

function agents(Model) {
  setTracingDisabled(true); // traces would go to OpenAI
  const weather = agentsTool({
    name: "get_weather",
    description: "The weather of a city.",
    parameters: Place,
    execute: weatherOf,
  });
  const agent = (name, more = {}) => new Agent({ name: "helper", model: new Model(openai, name), ...more });
  return {
    async tools() {
      return { said: (await run(agent(TOOLS, { tools: [weather] }), QUESTION)).finalOutput };
    },
    async structured() {
      return { parsed: (await run(agent(ECHO, { outputType: Weather }), CITY)).finalOutput };
    },
    async stream() {
      const result = await run(agent(THINKING), "Hello", { stream: true });
      let said = "";
      for await (const piece of result.toTextStream()) said += piece;
      await result.completed;
      return { said };
    },
    async second() {
      const helper = agent(TOOLS, { tools: [weather] });
      const first = await run(helper, QUESTION);
      const second = await run(helper, [...first.history, { role: "user", content: "And again" }]);
      return { said: second.finalOutput };
    },
  };
}

const LIBRARIES = {
  "openai-chat": () => openaiChat,
  "openai-responses": () => openaiResponses,
  "ai-sdk-responses": () => aiSdk((name) => createOpenAI({ baseURL, apiKey })(name)),
  "ai-sdk-chat": () => aiSdk((name) => createOpenAI({ baseURL, apiKey }).chat(name)),
  "ai-sdk-compatible": () =>
    aiSdk((name) =>
      createOpenAICompatible({ name: "dwctl", baseURL, apiKey, supportsStructuredOutputs: true, includeUsage: true })(
        name,
      ),
    ),
  "langchain-chat": () => langchain(false),
  "langchain-responses": () => langchain(true),
  "agents-responses": () => agents(OpenAIResponsesModel),
  "agents-chat": () => agents(OpenAIChatCompletionsModel),
};

// All flows of one library in one process: starting it takes longer than they do.
const flows = LIBRARIES[process.argv[2]]();
const came = {};
for (const [name, flow] of Object.entries(flows)) {
  try {
    came[name] = await flow();
  } catch (error) {
    came[name] = { error: `${error.name}: ${error.message}`.slice(0, 2000) };
  }
}
console.log(JSON.stringify(came));
process.exit(0);
