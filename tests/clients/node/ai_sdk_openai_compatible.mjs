// The AI SDK with its provider for OpenAI's routes: `@ai-sdk/openai-compatible` on npm
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { generateObject, generateText, jsonSchema, streamText, tool } from "ai";
import { z } from "zod";
import { report } from "./report.mjs";

const { ACCOUNT, ADAPTER, BASE_URL, DEMO_ADAPTER, MODEL, QUESTION } = process.env;

// Without supportsStructuredOutputs it asks for any JSON and does not send the schema.
// Without includeUsage a stream has no usage.
const provider = createOpenAICompatible({
  name: "intaglio",
  baseURL: `${BASE_URL}/accounts/${ACCOUNT}/ai/v1`,
  apiKey: "any",
  includeUsage: true,
  supportsStructuredOutputs: true,
});

const greedy = { prompt: QUESTION, temperature: 0, maxOutputTokens: 12, maxRetries: 0 };

async function chat() {
  const { text, usage, finishReason } = await generateText({ ...greedy, model: provider(MODEL) });
  return { text, total: usage.totalTokens, finishReason };
}

async function stream() {
  const answer = streamText({ ...greedy, model: provider(MODEL) });
  const pieces = [];
  for await (const piece of answer.textStream) pieces.push(piece);
  return { pieces, total: (await answer.usage).totalTokens, finishReason: await answer.finishReason };
}

async function adapter() {
  const texts = [];
  for (const name of [ADAPTER, `${MODEL}:${ADAPTER}`]) {
    texts.push((await generateText({ ...greedy, model: provider(name) })).text);
  }
  return texts;
}

// A field that the provider does not know goes under the provider's name, and from there into the body.
async function adapter_by_field() {
  const providerOptions = { intaglio: { lora: ADAPTER } };
  return (await generateText({ ...greedy, model: provider(MODEL), providerOptions })).text;
}

async function structured() {
  const schema = z.object({ category: z.enum(["billing", "shipping", "returns", "other"]), urgent: z.boolean() });
  const { object } = await generateObject({ ...greedy, maxOutputTokens: 200, model: provider(DEMO_ADAPTER), schema });
  return object;
}

const { name, description, parameters } = JSON.parse(process.env.TOOL).function;
const called = { ...greedy, maxOutputTokens: 64, model: provider(MODEL), toolChoice: "required" };

async function tools() {
  const offered = { [name]: tool({ description, inputSchema: jsonSchema(parameters) }) };
  const { toolCalls, finishReason } = await generateText({ ...called, tools: offered });
  return { calls: toolCalls.map(({ toolName, input }) => [toolName, input]), finishReason };
}

async function tools_stream() {
  const offered = { [name]: tool({ description, inputSchema: jsonSchema(parameters) }) };
  const answer = streamText({ ...called, tools: offered });
  const calls = (await answer.toolCalls).map(({ toolName, input }) => [toolName, input]);
  return { calls, finishReason: await answer.finishReason };
}

// The tool runs here, and its result goes back in a second request.
async function tools_result() {
  const asked = [];
  const execute = ({ team }) => {
    asked.push(team);
    return { ticket: 7, team };
  };
  const { steps, text } = await generateText({
    ...called,
    tools: { [name]: tool({ description, inputSchema: jsonSchema(parameters), execute }) },
    prepareStep: ({ stepNumber }) => (stepNumber > 0 ? { toolChoice: "none" } : {}),
    stopWhen: ({ steps }) => steps.length === 2,
  });
  return { asked, steps: steps.map(({ finishReason }) => finishReason), text };
}

async function errors() {
  try {
    await generateText({ ...greedy, model: provider(`${MODEL}:no-such-adapter`) });
  } catch (error) {
    return { name: error.name, status: error.statusCode, retryable: error.isRetryable, message: error.message };
  }
}

await report(
  chat, stream, adapter, adapter_by_field, structured, tools, tools_stream, tools_result, errors,
);
