// Turns the form into a request: body and path.
// Knows neither the page nor the network.

/** The form's state when nothing has been typed, without the fields of the model's schema. `logprobs` is how many alternatives are asked for; "" is none. */
export const EMPTY = Object.freeze({
  account: "local", model: "", lora: "", scale: "", lora2: "", scale2: "", mode: "raw", system: "", prompt: "", stream: true, logprobs: "", language: "curl",
});

/** The fields of the sampling form that are filled. Text that is not a number is sent as typed, so that the server says what is wrong. */
export function samplingOf(state, names) {
  const typed = names.map((name) => [name, (state[name] ?? "").trim()]).filter(([, text]) => text);
  return Object.fromEntries(typed.map(([name, text]) => [name, numberOf(text)]));
}

/** The JSON body for POST /ai/run/{model}. `fields` are those of the model's schema, read. */
export function bodyOf(state, fields) {
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
  Object.assign(body, fields);
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
