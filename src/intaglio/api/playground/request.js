// Turns the form into a request: body, path, and the curl command that sends it.
// Knows neither the page nor the network.

const NUMBERS = ["max_tokens", "temperature", "top_p", "top_k", "seed"];

/** The form's state when nothing has been typed. Numbers are kept as typed: an empty one is left out of the request. */
export const EMPTY = Object.freeze({
  account: "local", model: "", lora: "", scale: "", lora2: "", scale2: "", mode: "raw", system: "", prompt: "",
  max_tokens: "", temperature: "", top_p: "", top_k: "", seed: "", stream: true, language: "curl",
});

/** The JSON body for POST /ai/run/{model}. Text that is not a number is sent as typed, so that the server says what is wrong. */
export function bodyOf(state) {
  const body = {};
  if (state.mode === "messages") {
    body.messages = [];
    if (state.system.trim()) body.messages.push({ role: "system", content: state.system });
    body.messages.push({ role: "user", content: state.prompt });
  } else {
    body.prompt = state.prompt;
    if (state.mode === "raw") body.raw = true;
  }
  if (state.lora) body.lora = loraOf(state);
  for (const name of NUMBERS) {
    const typed = state[name].trim();
    if (typed) body[name] = numberOf(typed);
  }
  if (state.stream) body.stream = true;
  return body;
}

/** One adapter by its name; scaled or mixed, a list of them. */
function loraOf({ lora, scale, lora2, scale2 }) {
  if (!scale.trim() && !lora2) return lora;
  const chosen = [[lora, scale.trim()], [lora2, scale2.trim()]].filter(([name]) => name);
  return chosen.map(([name, typed]) => (typed ? { name, scale: numberOf(typed) } : { name }));
}

function numberOf(typed) {
  return Number.isFinite(Number(typed)) ? Number(typed) : typed;
}

/** The path of a Workers AI route of one account. */
export function accountPath(account, rest) {
  return `client/v4/accounts/${encodeURIComponent(account)}/ai/${rest}`;
}

/** Where the request goes; a model id keeps its slashes and its @, as the docs write it. */
export function runPath(state) {
  return accountPath(state.account, `run/${encodeURI(state.model)}`);
}

/** A command for a POSIX shell. The token itself is not shown: it stands in the environment. */
export function curlOf(state, origin, withToken) {
  const words = ["curl"];
  if (state.stream) words.push("-N");
  words.push(quoted(`${origin}/${runPath(state)}`));
  const lines = [words.join(" ")];
  if (withToken) lines.push('-H "Authorization: Bearer $CLOUDFLARE_API_TOKEN"');
  lines.push(`-d ${singleQuoted(spaced(bodyOf(state)))}`);
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
