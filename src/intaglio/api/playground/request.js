// Turns the form into a request: body, path, and the curl command that sends it.
// Knows neither the page nor the network.

const NUMBERS = ["max_tokens", "temperature", "top_p", "top_k", "seed"];

/** The form's state when nothing has been typed. Numbers are kept as typed: an empty one is left out of the request. */
export const EMPTY = Object.freeze({
  account: "local", model: "", lora: "", scale: "", lora2: "", scale2: "", mode: "raw", system: "", prompt: "",
  max_tokens: "", temperature: "", top_p: "", top_k: "", seed: "", stream: true, language: "curl",
});

/** The fields of the sampling form that are filled. Text that is not a number is sent as typed, so that the server says what is wrong. */
export function samplingOf(state, names = NUMBERS) {
  const typed = names.map((name) => [name, (state[name] ?? "").trim()]).filter(([, text]) => text);
  return Object.fromEntries(typed.map(([name, text]) => [name, numberOf(text)]));
}

/** The JSON body for POST /ai/run/{model}. */
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
  Object.assign(body, samplingOf(state));
  if (state.stream) body.stream = true;
  return body;
}

/** `lora` of a request: one adapter by its name; scaled or mixed, a list of them. */
export function loraOf({ lora, scale = "", lora2 = "", scale2 = "" }) {
  if (!scale.trim() && !lora2) return lora;
  const chosen = [[lora, scale.trim()], [lora2, scale2.trim()]].filter(([name]) => name);
  return chosen.map(([name, typed]) => (typed ? { name, scale: numberOf(typed) } : { name }));
}

/** A number that was typed, or the text if it is none. */
export function numberOf(typed) {
  return Number.isFinite(Number(typed)) ? Number(typed) : typed;
}

/** The path of a Workers AI route of one account. */
export function accountPath(account, rest) {
  return `client/v4/accounts/${encodeURIComponent(account)}/ai/${rest}`;
}

/** Where the request goes, below the account's path; a model id keeps its slashes and its @, as the docs write it. */
export function runPath(model) {
  return `run/${encodeURI(model)}`;
}

/** A command for a POSIX shell. The token itself is not shown: it stands in the environment. */
export function curlOf(state, origin, withToken) {
  const words = ["curl"];
  if (state.stream) words.push("-N");
  words.push(quoted(`${origin}/${accountPath(state.account, runPath(state.model))}`));
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
