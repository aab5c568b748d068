// Runs a request and measures it as the reader sees it: first text, tokens per second, usage, also of a stopped one.

import { element } from "./dom.js";
import { countedPrompt } from "./openai_route.js";
import { countTokens, run } from "./wire.js";

/**
 * Runs `body` on a model and calls `onText(piece)` as the completion comes.
 * Resolves to {finishReason, usage, toolCalls, firstText, total, rate, headers}: times in milliseconds, rate in tokens per second.
 * When `signal` fires it resolves too, with finishReason "stopped"; raises WireError, or TypeError without a response.
 * `runner` sends the request, as `run` does.
 */
export async function measuredRun(catalogue, model, body, signal, onText, runner = run) {
  const times = { start: performance.now(), first: null, last: null };
  let text = "";
  const onPiece = (piece) => {
    times.last = performance.now();
    times.first ??= times.last;
    text += piece;
    onText(piece);
  };
  let end;
  try {
    end = await runner(catalogue, model, body, signal, onPiece);
  } catch (error) {
    if (error.name !== "AbortError") throw error;
    times.end = performance.now();
    end = { finishReason: "stopped", usage: await countedUsage(catalogue, model, body, text), toolCalls: [], headers: [] };
  }
  return { ...end, ...ratesOf(times, end.usage) };
}

function ratesOf({ start, first, last, end = performance.now() }, usage) {
  const tokens = usage?.completion_tokens ?? 0;
  const between = tokens > 1 && last > first; // from the first token to the last: the time of the prompt is shown by itself
  const rate = between ? (tokens - 1) / (last - first) : tokens / (end - start);
  return { firstText: first === null ? null : first - start, total: end - start, rate: rate * 1000 };
}

/** A stopped stream has no usage: prompt and text are counted by the server's tokenizer. Null if it cannot. */
async function countedUsage(catalogue, model, body, text) {
  try {
    const [prompted, completed] = await Promise.all([
      countTokens(catalogue, model, countedPrompt(body)),
      text ? countTokens(catalogue, model, { prompt: text, add_special_tokens: false }) : { count: 0 },
    ]);
    return { prompt_tokens: prompted.count, completion_tokens: completed.count };
  } catch { // the figures are an extra: a server that is gone cannot count, and the text stays
    return null;
  }
}

/** The figures of a run as [name, value] pairs. */
export function factsOf({ finishReason, usage, firstText, total, rate, headers }) {
  const facts = [["finish reason", finishReason ?? "not said"]];
  if (usage) {
    const cached = usage.prompt_tokens_details?.cached_tokens;
    facts.push(["prompt tokens", cached ? `${usage.prompt_tokens} (${cached} cached)` : usage.prompt_tokens]);
    facts.push(["completion tokens", usage.completion_tokens]);
    facts.push(["tokens/s", rate.toFixed(1)]);
  }
  if (firstText !== null) facts.push(["first text after", seconds(firstText)]);
  facts.push(["total", seconds(total)]);
  for (const [name, value] of headers) if (/^(intaglio-|cf-ai-req-id$)/.test(name)) facts.push([name, value]);
  return facts.map(([name, value]) => [name, String(value)]);
}

/** `dt` and `dd` pairs for a `dl`. */
export function factItems(facts) {
  return facts.map(([name, value]) => element("div", {}, element("dt", {}, name), element("dd", value.length > 20 ? { class: "code" } : {}, value)));
}

export function seconds(milliseconds) {
  return `${(milliseconds / 1000).toFixed(2)} s`;
}

/** An error in one line for the reader. */
export function errorText(error) {
  const lost = error instanceof TypeError; // fetch raises it when there is no response at all, or the connection breaks
  const text = lost ? `No answer from ${location.origin}: is the server still running?` : error.message;
  return error.code ? `Error ${error.code}: ${text}` : text;
}
