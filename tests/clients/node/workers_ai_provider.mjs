// The AI SDK with Cloudflare's provider: `workers-ai-provider` on npm
import { generateObject, generateText, jsonSchema, streamText, tool } from "ai";
import { createWorkersAI } from "workers-ai-provider";
import { report } from "./report.mjs";

const { ACCOUNT, ADAPTER, BASE_URL, DEMO_ADAPTER, MODEL, QUESTION } = process.env;

// The provider has no option for the address, but takes a fetch: this one sends its requests to our server.
const toOurServer = (url, init) => fetch(url.replace("https://api.cloudflare.com/client/v4", BASE_URL), init);
const workersai = createWorkersAI({ accountId: ACCOUNT, apiKey: "any", fetch: toOurServer });

const greedy = { prompt: QUESTION, temperature: 0, maxOutputTokens: 12, maxRetries: 0 };

async function chat() {
  const { text, usage, finishReason } = await generateText({ ...greedy, model: workersai(MODEL) });
  return { text, total: usage.totalTokens, finishReason };
}

async function stream() {
  const answer = streamText({ ...greedy, model: workersai(MODEL) });
  const pieces = [];
  for await (const piece of answer.textStream) pieces.push(piece);
  return { pieces, total: (await answer.usage).totalTokens, finishReason: await answer.finishReason };
}

// Settings of the model go into the query string.
async function adapter() {
  const { text } = await generateText({ ...greedy, model: workersai(MODEL, { lora: ADAPTER }) });
  return text;
}

async function demo_adapter() {
  const { text } = await generateText({ ...greedy, model: workersai(MODEL, { lora: DEMO_ADAPTER }) });
  return text;
}

async function adapter_stream() {
  const answer = streamText({ ...greedy, model: workersai(MODEL, { lora: ADAPTER }) });
  const pieces = [];
  for await (const piece of answer.textStream) pieces.push(piece);
  return pieces.join("");
}

async function errors() {
  try {
    await generateText({ ...greedy, model: workersai(MODEL, { lora: "no-such-adapter" }) });
  } catch (error) {
    return { name: error.name, status: error.statusCode, retryable: error.isRetryable, message: error.message };
  }
}

async function structured() {
  const { object } = await generateObject({
    ...greedy,
    maxOutputTokens: 200,
    model: workersai(MODEL, { lora: DEMO_ADAPTER }),
    schema: jsonSchema(JSON.parse(process.env.SCHEMA)),
  });
  return object;
}

async function tools() {
  const { name, description, parameters } = JSON.parse(process.env.TOOL).function;
  const { toolCalls, finishReason } = await generateText({
    ...greedy,
    maxOutputTokens: 64,
    model: workersai(MODEL),
    tools: { [name]: tool({ description, inputSchema: jsonSchema(parameters) }) },
    toolChoice: "required",
  });
  return { calls: toolCalls.map(({ toolName, input }) => [toolName, input]), finishReason };
}

await report(chat, stream, adapter, demo_adapter, adapter_stream, errors, structured, tools);
