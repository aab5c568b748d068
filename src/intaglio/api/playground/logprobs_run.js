// Runs a request on the OpenAI-compatible routes, whose responses tell each token's probability and its alternatives'.

import { openaiCall } from "./openai_route.js";
import { events, parsed, send, WireError } from "./wire.js";

/**
 * As `run` of wire.js, for a native body; `onTokens` gets [{token, logprob, top: [{token, logprob}]}] as they come, the likeliest
 * alternative first.
 */
export async function runWithLogprobs(connection, model, native, logprobs, signal, onText, onTokens) {
  const { route, body } = openaiCall(model, native, logprobs);
  if (body.stream) body.stream_options = { include_usage: true };
  const response = await send(connection, `v1/${route}`, body, signal);
  const told = { usage: null, finishReason: null, toolCalls: [], headers: response.headers };
  const take = (content) => {
    if (content.error) throw new WireError(content.error.message, content.error.code, response.status);
    told.usage = content.usage ?? told.usage;
    const [choice] = content.choices ?? [];
    if (!choice) return;
    const said = choice.delta ?? choice.message ?? { content: choice.text };
    told.finishReason = choice.finish_reason ?? told.finishReason;
    told.toolCalls.push(...(said.tool_calls ?? []).map(({ function: called }) => called));
    if (choice.logprobs) onTokens(tokensOf(choice.logprobs));
    if (said.content) onText(said.content);
  };
  if (!response.ok || !body.stream) {
    take(parsed(await response.text(), response.status));
    return told;
  }
  for await (const data of events(response.body)) {
    if (data === "[DONE]") return told;
    take(parsed(data));
  }
  throw new WireError("The stream was cut: the connection closed before [DONE].");
}

function tokensOf({ content, tokens, token_logprobs: logprobs, top_logprobs: tops }) {
  if (content) return content.map(({ token, logprob, top_logprobs: top }) => ({ token, logprob, top: sorted(top) }));
  const listed = (top) => Object.entries(top ?? {}).map(([token, logprob]) => ({ token, logprob }));
  return (tokens ?? []).map((token, at) => ({ token, logprob: logprobs[at], top: sorted(listed(tops?.[at])) }));
}

function sorted(alternatives = []) {
  return alternatives.toSorted((one, other) => other.logprob - one.logprob);
}
