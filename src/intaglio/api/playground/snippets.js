// Turns the request of a view into code, for each language and client. Each text runs as it is pasted; the token stands in the
// environment and never in the code. Knows neither the page nor the network.

import { openaiBase, openaiCall } from "./openai_route.js";
import { accountPath, runPath } from "./request.js";
import { aiSdkOf, fetchOf, openaiJavascriptOf, workerConfigOf, workerOf } from "./snippets_javascript.js";
import { cloudflareOf, intaglioOf, openaiPythonOf } from "./snippets_python.js";

/** name in links -> {label, write}. */
export const LANGUAGES = Object.freeze({
  curl: { label: "curl", write: curlOf },
  cloudflare: { label: "Python (cloudflare)", write: cloudflareOf },
  python: { label: "Python (openai)", write: openaiPythonOf },
  intaglio: { label: "Python (intaglio, no server)", write: intaglioOf },
  fetch: { label: "JavaScript (fetch)", write: fetchOf },
  javascript: { label: "JavaScript (openai)", write: openaiJavascriptOf },
  aisdk: { label: "JavaScript (AI SDK)", write: aiSdkOf },
  worker: { label: "Worker: src/index.js", write: workerOf },
  wrangler: { label: "Worker: wrangler.jsonc", write: workerConfigOf },
});

/**
 * The code of a request {origin, account, model, body, logprobs, withToken, defaults}: `body` is that of the native route,
 * `logprobs` as in openaiCall, `defaults` what the server uses for fields that are left out.
 */
export function codeOf(language, request) {
  const { origin, account, model, body, logprobs } = request;
  const openai = openaiCall(model, body, logprobs);
  const native = { url: `${origin}/${accountPath(account, runPath(model))}`, body };
  // fetch and curl reach any route: logprobs need OpenAI's
  const sent = logprobs === "" ? native : { url: `${openaiBase(origin, account)}/${openai.route}`, body: openai.body };
  return LANGUAGES[language].write({ ...request, openai, sent, isOpenai: logprobs !== "", base: openaiBase(origin, account) });
}

/** A command for a POSIX shell. */
function curlOf({ sent, withToken }) {
  const words = ["curl", ...(sent.body.stream ? ["-N"] : []), quoted(sent.url)];
  const lines = [words.join(" ")];
  if (withToken) lines.push('-H "Authorization: Bearer $CLOUDFLARE_API_TOKEN"');
  lines.push(`-d ${singleQuoted(spaced(sent.body))}`);
  return lines.join(" \\\n  ");
}

function quoted(word) {
  return /^[\w@%+=:,./-]+$/.test(word) ? word : singleQuoted(word);
}

function singleQuoted(text) {
  return `'${text.replaceAll("'", "'\\''")}'`;
}

/** JSON on one line with a space after each comma and colon: what a person would type. */
function spaced(value) {
  if (Array.isArray(value)) return `[${value.map(spaced).join(", ")}]`;
  if (value === null || typeof value !== "object") return JSON.stringify(value);
  return `{${Object.entries(value).map(([key, item]) => `${JSON.stringify(key)}: ${spaced(item)}`).join(", ")}}`;
}
