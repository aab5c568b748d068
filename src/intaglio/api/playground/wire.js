// Talks to the server: lists models and adapters, runs a prompt, reads the event stream.
// Knows the wire format, not the page.

import { accountPath, runPath } from "./request.js";

/** What the server refused, or what came back broken. */
export class WireError extends Error {
  constructor(message, code = null, status = null) {
    super(message);
    this.code = code;
    this.status = status;
  }
}

/** Every model that can generate text: [{name, description, …}]. `connection` has account and token, here and below. */
export async function listModels(connection) {
  return getResult(connection, `models/search?per_page=1000&task=${encodeURIComponent("Text Generation")}`);
}

/** Finetunes of the account and public ones, each once: [{name, model, description, public, …}], by name. */
export async function listFinetunes(connection) {
  const [own, shared] = await Promise.all([
    getResult(connection, "finetunes"),
    getResult(connection, "finetunes/public?limit=1000"),
  ]);
  const byId = new Map();
  for (const item of own) byId.set(item.id, item);
  for (const item of shared) byId.set(item.id, { ...item, public: true });
  return [...byId.values()].sort((a, b) => a.name.localeCompare(b.name));
}

/** One finetune with its files and its verification. */
export async function readFinetune(connection, name) {
  return getResult(connection, `finetunes/${encodeURIComponent(name)}`);
}

/** {input, output}: the JSON schemas of a model. */
export async function readSchema(connection, model) {
  return getResult(connection, `models/schema?model=${encodeURIComponent(model)}`);
}

/** {count, tokens, …} of a prompt: {prompt} or {messages}, with the tokenize route's other fields. */
export async function countTokens(connection, model, asked) {
  const response = await send(connection, "v1/tokenize", { model, ...asked });
  const counted = parsed(await response.text(), response.status);
  if (response.ok) return counted;
  throw new WireError(counted.error?.message ?? `HTTP ${response.status}`, counted.error?.code, response.status);
}

/**
 * Runs a body on a model and calls `onText(piece)` as the completion comes.
 * Resolves to {usage, finishReason, toolCalls, headers} at the end; raises WireError, or AbortError when `signal` fires.
 */
export async function run(connection, model, body, signal, onText) {
  const response = await send(connection, runPath(model), body, signal);
  const headers = response.headers;
  const isStream = (headers.get("content-type") ?? "").startsWith("text/event-stream");
  if (!response.ok || !isStream) {
    const result = await resultOf(response);
    onText(textOf(result.response));
    return { usage: result.usage ?? null, finishReason: result.finish_reason ?? null, toolCalls: result.tool_calls ?? [], headers };
  }
  return { ...(await readStream(response.body, onText)), headers };
}

async function readStream(stream, onText) {
  let usage = null;
  let finishReason = null;
  const toolCalls = [];
  for await (const data of events(stream)) {
    if (data === "[DONE]") return { usage, finishReason, toolCalls };
    const chunk = parsed(data);
    if (chunk.response) onText(textOf(chunk.response));
    toolCalls.push(...(chunk.tool_calls ?? []));
    usage = chunk.usage ?? usage;
    finishReason = chunk.finish_reason ?? finishReason;
    if (chunk.errors?.length) throw new WireError(chunk.errors[0].message, chunk.errors[0].code);
  }
  throw new WireError("The stream was cut: the connection closed before [DONE].");
}

/** The `data:` of each server-sent event, as text. An event ends with an empty line. */
export async function* events(stream) {
  const reader = stream.pipeThrough(new TextDecoderStream()).getReader();
  let held = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    held += value;
    const complete = held.split("\n\n");
    held = complete.pop();
    for (const event of complete) {
      const lines = event.split("\n").filter((line) => line.startsWith("data:"));
      if (lines.length) yield lines.map((line) => line.slice(5).trimStart()).join("\n");
    }
  }
}

/** `result` of a GET below the account's path. */
export async function getResult({ account, token }, path) {
  return resultOf(await fetch(accountPath(account, path), { headers: authorization(token) }));
}

/** `result` of a request that changes something, with or without a JSON body. */
export async function changeResult({ account, token }, method, path, body = null) {
  const headers = { ...(body ? { "Content-Type": "application/json" } : {}), ...authorization(token) };
  return resultOf(await fetch(accountPath(account, path), { method, headers, body: body ? JSON.stringify(body) : null }));
}

/** {version, uptime_s, models}: what the server is doing. */
export async function readStatus({ token }) {
  const response = await fetch("status", { headers: authorization(token) });
  const status = parsed(await response.text(), response.status);
  if (response.ok) return status;
  throw new WireError(status.errors?.[0]?.message ?? `HTTP ${response.status}`, status.errors?.[0]?.code, response.status);
}

/** A POST below the account's path. */
export async function send({ account, token }, path, body, signal = null) {
  const headers = { "Content-Type": "application/json", ...authorization(token) };
  return fetch(accountPath(account, path), { method: "POST", headers, body: JSON.stringify(body), signal });
}

async function resultOf(response) {
  return resultOfText(await response.text(), response.status);
}

/** `result` of the envelope; raises WireError with the code and text of the first error. */
export function resultOfText(text, status) {
  const envelope = parsed(text, status);
  if (envelope.success) return envelope.result;
  const first = envelope.errors?.[0];
  throw new WireError(first?.message ?? `HTTP ${status}`, first?.code, status);
}

/** JSON of the server; raises WireError if it is none. */
export function parsed(text, status = null) {
  try {
    return JSON.parse(text);
  } catch {
    throw new WireError(`Not JSON: ${text.slice(0, 200) || "an empty body"}`, null, status);
  }
}

/** JSON mode answers with an object where others answer with text. */
function textOf(response) {
  return typeof response === "string" ? response : JSON.stringify(response, null, 2);
}

/** The header that a token is sent in; none without one. */
export function authorization(token) {
  return token ? { Authorization: `Bearer ${token}` } : {};
}
