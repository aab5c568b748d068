// Cloudflare's own SDK for JavaScript: `cloudflare` on npm
import fs from "node:fs";
import path from "node:path";
import Cloudflare, { toFile } from "cloudflare";
import { report } from "./report.mjs";

const { ACCOUNT, ADAPTER, ADAPTER_FOLDER, BASE_URL, DEMO_ADAPTER, MODEL, NEW_ADAPTER, PROMPT, QUESTION } = process.env;

// The only difference from a program for Workers AI.
const client = new Cloudflare({ baseURL: BASE_URL, apiToken: "any", maxRetries: 0 });

const account_id = ACCOUNT;
const messages = [{ role: "user", content: QUESTION }];
const greedy = { account_id, temperature: 0, max_tokens: 12 };
const raw = { ...greedy, prompt: PROMPT, raw: true };

const prompt = () => client.ai.run(MODEL, raw);

// With the address in the environment the program needs no change.
function prompt_by_environment() {
  process.env.CLOUDFLARE_BASE_URL = BASE_URL;
  return new Cloudflare({ apiToken: "any", maxRetries: 0 }).ai.run(MODEL, raw);
}

const chat = () => client.ai.run(MODEL, { ...greedy, messages });
const adapter = () => client.ai.run(MODEL, { ...raw, lora: ADAPTER });
const demo_adapter = () => client.ai.run(MODEL, { ...greedy, messages, lora: DEMO_ADAPTER });

// run() with stream: true resolves to undefined for every response. The response itself can be read.
async function stream() {
  const response = await client.ai.run(MODEL, { ...raw, stream: true }).asResponse();
  const events = (await response.text()).split("\n\n").filter(Boolean).map((event) => event.replace("data: ", ""));
  if (events.pop() !== "[DONE]") throw new Error("the stream did not end with [DONE]");
  return events.map((event) => JSON.parse(event).response);
}

const stream_by_run = async () => `${await client.ai.run(MODEL, { ...raw, stream: true })}`;

async function finetunes() {
  const made = await client.ai.finetunes.create({ account_id, model: MODEL, name: NEW_ADAPTER });
  for (const file_name of ["adapter_config.json", "adapter_model.safetensors"]) {
    const file = await toFile(fs.createReadStream(path.join(ADAPTER_FOLDER, file_name)));
    await client.ai.finetunes.assets.create(made.id, { account_id, file, file_name });
  }
  const listed = await client.ai.finetunes.list({ account_id });
  const shown = [];
  for await (const item of client.ai.finetunes.public.list({ account_id, limit: 2 })) shown.push(item.name);
  return {
    id: made.id,
    listed: listed.map(({ id, name, model }) => [id, name, model]),
    public: shown,
    answer: await client.ai.run(MODEL, { ...raw, lora: made.id }),
  };
}

// The SDK asks for page after page until one is empty.
async function models() {
  const names = [];
  for await (const model of client.ai.models.list({ account_id })) names.push(model.name);
  const schema = await client.ai.models.schema.get({ account_id, model: MODEL });
  return { names, schema: Object.keys(schema).sort() };
}

async function errors() {
  try {
    await client.ai.run(MODEL, { ...raw, lora: "no-such-adapter" });
  } catch (error) {
    if (!(error instanceof Cloudflare.NotFoundError)) throw error;
    return [error.status, error.errors[0].code, error.message];
  }
}

const structured = () =>
  client.ai.run(MODEL, {
    ...greedy,
    messages,
    max_tokens: 200,
    lora: DEMO_ADAPTER,
    response_format: { type: "json_schema", json_schema: JSON.parse(process.env.SCHEMA) },
  });

const tools = () =>
  client.ai.run(MODEL, {
    ...greedy,
    messages,
    max_tokens: 64,
    tools: [JSON.parse(process.env.TOOL)],
    tool_choice: "required",
  });

async function batch() {
  const one = { prompt: PROMPT, raw: true, temperature: 0, max_tokens: 12 };
  const requests = [
    { ...one, external_reference: "first" },
    { ...one, lora: ADAPTER, external_reference: "second" },
  ];
  const query = { queueRequest: "true" };
  const queued = await client.ai.run(MODEL, { account_id, requests }, { query });
  const poll = () => client.ai.run(MODEL, { account_id, request_id: queued.request_id }, { query });
  for (let tries = 0; tries < 200; tries += 1) {
    const result = await poll();
    if (result.responses) return [queued.status, result.responses];
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
  throw new Error("the batch did not end");
}

await report(
  prompt, prompt_by_environment, chat, stream, stream_by_run, adapter, demo_adapter, finetunes, models, errors, structured, tools, batch,
);
