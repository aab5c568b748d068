// OpenAI's SDK for JavaScript: `openai` on npm
import OpenAI from "openai";
import { zodResponseFormat } from "openai/helpers/zod";
import { z } from "zod";
import { report } from "./report.mjs";

const { ACCOUNT, ADAPTER, BASE_URL, DEMO_ADAPTER, MODEL, PROMPT, QUESTION } = process.env;

// The only difference from a program for Workers AI.
const address = `${BASE_URL}/accounts/${ACCOUNT}/ai/v1`;
const client = new OpenAI({ baseURL: address, apiKey: "any", maxRetries: 0 });

const messages = [{ role: "user", content: QUESTION }];
const greedy = { model: MODEL, temperature: 0, max_tokens: 12 };

const prompt = () => client.completions.create({ ...greedy, prompt: PROMPT });

// With the address in the environment the program needs no change.
async function prompt_by_environment() {
  process.env.OPENAI_BASE_URL = address;
  const other = new OpenAI({ apiKey: "any", maxRetries: 0 });
  return (await other.completions.create({ ...greedy, prompt: PROMPT })).choices[0].text;
}

async function prompt_stream() {
  const texts = [];
  for await (const chunk of await client.completions.create({ ...greedy, prompt: PROMPT, stream: true })) {
    texts.push(chunk.choices[0].text);
  }
  return texts;
}

const chat = () => client.chat.completions.create({ ...greedy, messages });

// choices[0] is there on every chunk, since no usage was asked for.
async function stream() {
  const chunks = [];
  for await (const chunk of await client.chat.completions.create({ ...greedy, messages, stream: true })) {
    chunks.push(chunk.choices[0]);
  }
  return {
    role: chunks[0].delta.role,
    pieces: chunks.map((choice) => choice.delta.content ?? ""),
    reasons: chunks.map((choice) => choice.finish_reason).filter(Boolean),
  };
}

// With include_usage the last chunk has the usage and no choice.
async function stream_usage() {
  let last;
  const options = { ...greedy, messages, stream: true, stream_options: { include_usage: true } };
  for await (const chunk of await client.chat.completions.create(options)) last = chunk;
  return [last.choices.length, last.usage.total_tokens];
}

// n answers from one request, the same with the same seed.
async function several() {
  const answers = [];
  for (let times = 0; times < 2; times += 1) {
    const answer = await client.chat.completions.create({ ...greedy, messages, temperature: 1, seed: 7, n: 2 });
    answers.push(answer.choices.map((choice) => choice.message.content));
  }
  return answers;
}

async function adapter() {
  return (await client.completions.create({ ...greedy, prompt: PROMPT, lora: ADAPTER })).choices[0].text;
}

async function demo_adapter() {
  const answer = await client.chat.completions.create({ ...greedy, messages, lora: DEMO_ADAPTER });
  return answer.choices[0].message.content;
}

// For tools that have a field for the model and none for an adapter.
async function adapter_in_model() {
  const answer = await client.chat.completions.create({ ...greedy, messages, model: `${MODEL}:${DEMO_ADAPTER}` });
  return answer.choices[0].message.content;
}

async function models() {
  const names = [];
  for await (const model of client.models.list()) names.push(model.id);
  return names;
}

async function errors() {
  try {
    await client.chat.completions.create({ ...greedy, messages, lora: "no-such-adapter" });
  } catch (error) {
    if (!(error instanceof OpenAI.NotFoundError)) throw error;
    return [error.status, error.message];
  }
}

// parse() sends the type as a JSON schema and hands back a checked object.
async function structured() {
  const ticket = z.object({ category: z.enum(["billing", "shipping", "returns", "other"]), urgent: z.boolean() });
  const answer = await client.chat.completions.parse({
    ...greedy,
    messages,
    max_tokens: 200,
    lora: DEMO_ADAPTER,
    response_format: zodResponseFormat(ticket, "ticket"),
  });
  return answer.choices[0].message.parsed;
}

async function tools() {
  const answer = await client.chat.completions.create({
    ...greedy,
    messages,
    max_tokens: 64,
    tools: [JSON.parse(process.env.TOOL)],
    tool_choice: "required",
  });
  const { finish_reason, message } = answer.choices[0];
  const called = ({ type, function: one }) => [type, one.name, JSON.parse(one.arguments)];
  return [message.tool_calls.map(called), finish_reason];
}

async function logprobs() {
  const asked = { ...greedy, messages, logprobs: true, top_logprobs: 3 };
  return (await client.chat.completions.create(asked)).choices[0].logprobs;
}

await report(
  prompt, prompt_by_environment, prompt_stream, chat, stream, stream_usage, several, adapter, demo_adapter, adapter_in_model, models, errors,
  structured, tools, logprobs,
);
