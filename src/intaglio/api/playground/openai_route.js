// The same request for the OpenAI-compatible routes, which have log-probabilities; Workers AI's route has none.
// Knows neither the page nor the network.

import { accountPath } from "./request.js";

export const MOST_LOGPROBS = 20; // alternatives of a token, on both routes

/**
 * {route, body} for a native body: `chat/completions`, or for a raw prompt `completions`. One adapter stands in the model's
 * name, where every client has a place for it. `logprobs` is how many alternatives are asked for; "" is none.
 */
export function openaiCall(model, native, logprobs = "") {
  const { prompt, raw, messages, lora, tools, response_format: format, ...others } = native;
  const isList = Array.isArray(lora);
  const body = {
    model: lora && !isList ? `${model}:${lora}` : model,
    ...(raw ? { prompt } : { messages: messages ?? [{ role: "user", content: prompt }] }),
    ...others,
    ...(isList ? { lora } : {}),
    ...(tools ? { tools: tools.map(wrappedTool) } : {}),
    ...(format ? { response_format: wrappedFormat(format) } : {}),
  };
  if (logprobs !== "") Object.assign(body, raw ? { logprobs: Number(logprobs) } : { logprobs: true, top_logprobs: Number(logprobs) });
  return { route: raw ? "completions" : "chat/completions", body };
}

/** What the tokenize route gets to count the prompt of a native body. */
export function countedPrompt({ prompt, messages, raw, tools, tool_choice: choice }) {
  if (raw) return { prompt };
  const offered = tools?.length ? { tools: tools.map(wrappedTool), ...(choice ? { tool_choice: choice } : {}) } : {}; // they stand in the prompt
  return { messages: messages ?? [{ role: "user", content: prompt }], ...offered };
}

/** The base URL that OpenAI's clients get. */
export function openaiBase(origin, account) {
  return `${origin}/${accountPath(account, "v1")}`;
}

function wrappedTool(tool) {
  return tool.function ? tool : { type: "function", function: tool };
}

function wrappedFormat(format) {
  const schema = format.json_schema;
  return !schema || schema.schema ? format : { ...format, json_schema: { name: "answer", schema } };
}
