// Talks to the server: lists models and adapters, runs a prompt, reads the event stream.
// Knows the wire format, not the page.

import { accountPath, bodyOf, runPath } from "./request.js";

/** What the server refused, or what came back broken. */
export class WireError extends Error {
  constructor(message, code = null, status = null) {
    super(message);
    this.code = code;
    this.status = status;
  }
}

/** Every model that can generate text: [{name, description, …}]. */
export async function listModels(account, token) {
  const path = accountPath(account, `models/search?per_page=1000&task=${encodeURIComponent("Text Generation")}`);
  return getResult(path, token);
}

/** Finetunes of the account and public ones, each once: [{name, model, description, public, …}], by name. */
export async function listFinetunes(account, token) {
  const [own, shared] = await Promise.all([
    getResult(accountPath(account, "finetunes"), token),
    getResult(accountPath(account, "finetunes/public?limit=1000"), token),
  ]);
  const byId = new Map();
  for (const item of own) byId.set(item.id, item);
  for (const item of shared) byId.set(item.id, { ...item, public: true });
  return [...byId.values()].sort((a, b) => a.name.localeCompare(b.name));
}

/** One finetune with its files and its verification. */
export async function readFinetune(account, token, name) {
  return getResult(accountPath(account, `finetunes/${encodeURIComponent(name)}`), token);
}

/**
 * Runs a request and calls `onText(piece)` as the answer comes.
 * Resolves to {usage, finishReason, headers} at the end; raises WireError, or AbortError when `signal` fires.
 */
export async function run(state, token, signal, onText) {
  const response = await fetch(runPath(state), {
    method: "POST",
    headers: { "Content-Type": "application/json", ...authorization(token) },
    body: JSON.stringify(bodyOf(state)),
    signal,
  });
  const headers = response.headers;
  const isStream = (headers.get("content-type") ?? "").startsWith("text/event-stream");
  if (!response.ok || !isStream) {
    const result = await resultOf(response);
    onText(textOf(result.response));
    return { usage: result.usage ?? null, finishReason: result.finish_reason ?? null, headers };
  }
  return { ...(await readStream(response.body, onText)), headers };
}

async function readStream(stream, onText) {
  let usage = null;
  let finishReason = null;
  for await (const data of events(stream)) {
    if (data === "[DONE]") return { usage, finishReason };
    const chunk = parsed(data);
    if (chunk.response) onText(textOf(chunk.response));
    usage = chunk.usage ?? usage;
    finishReason = chunk.finish_reason ?? finishReason;
    if (chunk.errors?.length) throw new WireError(chunk.errors[0].message, chunk.errors[0].code);
  }
  throw new WireError("The stream was cut: the connection closed before [DONE].");
}

/** The `data:` of each server-sent event, as text. An event ends with an empty line. */
async function* events(stream) {
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

async function getResult(path, token) {
  return resultOf(await fetch(path, { headers: authorization(token) }));
}

/** `result` of the envelope; raises WireError with the code and text of the first error. */
async function resultOf(response) {
  const envelope = parsed(await response.text(), response.status);
  if (response.ok && envelope.success) return envelope.result;
  const first = envelope.errors?.[0];
  throw new WireError(first?.message ?? `HTTP ${response.status}`, first?.code, response.status);
}

function parsed(text, status = null) {
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

function authorization(token) {
  return token ? { Authorization: `Bearer ${token}` } : {};
}
