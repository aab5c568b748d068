// LangChain.js on OpenAI's routes: `@langchain/openai` on npm
import { ChatOpenAI } from "@langchain/openai";
import { z } from "zod";
import { report } from "./report.mjs";

const { ACCOUNT, ADAPTER, BASE_URL, DEMO_ADAPTER, MODEL, QUESTION } = process.env;

function model(name = MODEL, maxTokens = 12, options = {}) {
  return new ChatOpenAI({
    configuration: { baseURL: `${BASE_URL}/accounts/${ACCOUNT}/ai/v1` },
    apiKey: "any",
    model: name,
    temperature: 0,
    maxTokens,
    maxRetries: 0,
    ...options,
  });
}

// On both routes: chat completions, and the Responses API.
const routes = [false, true].map((useResponsesApi) => model(MODEL, 12, { useResponsesApi }));

async function chat() {
  const answers = [];
  for (const route of routes) {
    const answer = await route.invoke(QUESTION);
    answers.push([answer.text, answer.usage_metadata.total_tokens]);
  }
  return answers;
}

async function stream() {
  const streams = [];
  for (const route of routes) {
    const pieces = [];
    for await (const chunk of await route.stream(QUESTION)) pieces.push(chunk.text);
    streams.push(pieces);
  }
  return streams;
}

async function adapter() {
  const texts = [];
  for (const name of [ADAPTER, `${MODEL}:${ADAPTER}`]) texts.push((await model(name).invoke(QUESTION)).text);
  return texts;
}

const adapter_by_field = async () => (await model(MODEL, 12, { modelKwargs: { lora: ADAPTER } }).invoke(QUESTION)).text;

// As a JSON schema and as a call of a tool.
async function structured() {
  const ticket = z.object({ category: z.enum(["billing", "shipping", "returns", "other"]), urgent: z.boolean() });
  const tickets = [];
  for (const method of ["jsonSchema", "functionCalling"]) {
    const asked = model(DEMO_ADAPTER, 200).withStructuredOutput(ticket, { name: "ticket", method });
    tickets.push(await asked.invoke(QUESTION));
  }
  return tickets;
}

async function tools() {
  const asked = model(MODEL, 64).bindTools([JSON.parse(process.env.TOOL)], { tool_choice: "required" });
  return (await asked.invoke(QUESTION)).tool_calls.map(({ name, args }) => [name, args]);
}

async function errors() {
  try {
    await model(`${MODEL}:no-such-adapter`).invoke(QUESTION);
  } catch (error) {
    return [error.status, error.message];
  }
}

await report(
  chat, stream, adapter, adapter_by_field, structured, tools, errors,
);
