// Turns the form into code for OpenAI's clients, which get the same completion from the OpenAI-compatible routes.
// Knows neither the page nor the network.

import { accountPath, bodyOf } from "./request.js";

const NOT_OPENAIS = ["top_k", "lora"]; // accepted by the routes, but not arguments of the Python client's methods

/** A Python program. */
export function pythonOf(state, origin, withToken) {
  const { route, fields } = callOf(state);
  const known = Object.entries(fields).filter(([name]) => !NOT_OPENAIS.includes(name));
  const extra = Object.fromEntries(Object.entries(fields).filter(([name]) => NOT_OPENAIS.includes(name)));
  const lines = known.map(([name, value]) => `    ${name}=${value === true ? "True" : JSON.stringify(value)},`);
  if (Object.keys(extra).length) lines.push(`    extra_body=${JSON.stringify(extra)},`);
  const key = withToken ? 'os.environ["CLOUDFLARE_API_TOKEN"]' : '"any"';
  const [piece, whole] = state.mode === "raw" ? ["text", "text"] : ["delta.content", "message.content"];
  return [
    ...(withToken ? ["import os", ""] : []),
    "from openai import OpenAI",
    "",
    `client = OpenAI(base_url=${JSON.stringify(baseOf(state, origin))}, api_key=${key})`,
    `answer = client.${route}.create(`,
    ...lines,
    ")",
    ...(state.stream
      ? ["for chunk in answer:", `    print(chunk.choices[0].${piece} or "", end="", flush=True)`]
      : [`print(answer.choices[0].${whole})`]),
  ].join("\n");
}

/** A JavaScript module for Node.js. */
export function javascriptOf(state, origin, withToken) {
  const { route, fields } = callOf(state);
  const key = withToken ? "process.env.CLOUDFLARE_API_TOKEN" : '"any"';
  const [piece, whole] = state.mode === "raw" ? ["text", "text"] : ["delta.content", "message.content"];
  return [
    'import OpenAI from "openai";',
    "",
    `const client = new OpenAI({ baseURL: ${JSON.stringify(baseOf(state, origin))}, apiKey: ${key} });`,
    `const answer = await client.${route}.create({`,
    ...Object.entries(fields).map(([name, value]) => `  ${name}: ${JSON.stringify(value)},`),
    "});",
    state.stream
      ? `for await (const chunk of answer) process.stdout.write(chunk.choices[0].${piece} ?? "");`
      : `console.log(answer.choices[0].${whole});`,
  ].join("\n");
}

/** The client's method and its fields. One adapter stands in the model's name, where every client has a place for it. */
function callOf(state) {
  const { prompt, raw, lora, ...others } = bodyOf(state);
  const isList = Array.isArray(lora);
  const model = lora && !isList ? `${state.model}:${lora}` : state.model;
  const rest = isList ? { ...others, lora } : others;
  if (raw) return { route: "completions", fields: { model, prompt, ...rest } };
  const messages = rest.messages ?? [{ role: "user", content: prompt }];
  return { route: "chat.completions", fields: { model, ...rest, messages } };
}

function baseOf(state, origin) {
  return `${origin}/${accountPath(state.account, "v1")}`;
}
