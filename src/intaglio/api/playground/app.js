// The page: keeps form, address bar and code consistent, runs the prompt, shows the response.
// Text from the model or the server is only ever set as textContent.

import { examplesFor } from "./examples.js";
import { curlOf, EMPTY } from "./request.js";
import { javascriptOf, pythonOf } from "./snippets.js";
import { listFinetunes, listModels, readFinetune, run } from "./wire.js";

const TEXT_FIELDS = ["account", "model", "lora", "scale", "lora2", "scale2", "system", "prompt", "max_tokens", "temperature", "top_p", "top_k", "seed", "language"];
const CODE = { curl: curlOf, python: pythonOf, javascript: javascriptOf };
const MODE_HINTS = {
  messages: "A chat: the system message and yours, put into the model's chat form.",
  prompt: "One user turn, put into the model's chat form. What most adapters are trained on.",
  raw: "The text goes to the model untouched, and the model continues it.",
};

const NO_ADAPTER = { lora: "", scale: "", lora2: "", scale2: "" };

const page = (id) => document.getElementById(id);
let models = [];
let finetunes = [];
let verifications = new Map(); // digest -> verification; null while it is requested or missing
let state = { ...EMPTY, ...stateFromAddress() };
let running = null; // AbortController of the running request
let touched = Boolean(state.prompt); // the reader's own prompt is never replaced by an example

start();

async function start() {
  page("token").value = sessionStorage.getItem("token") ?? "";
  document.addEventListener("input", onInput); // not on the form: fields that only point to it do not bubble through it
  page("form").addEventListener("submit", (event) => { event.preventDefault(); onRun(); });
  page("stop").addEventListener("click", () => running?.abort());
  page("copy").addEventListener("click", onCopy);
  page("reload").addEventListener("click", load);
  document.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) { event.preventDefault(); onRun(); }
  });
  window.addEventListener("hashchange", () => { state = { ...EMPTY, ...stateFromAddress() }; touched = true; fillLists(); show(); });
  fillLists();
  show();
  await load();
}

/** Asks the server for models and adapters and fills the two lists. */
async function load() {
  page("error").hidden = true;
  try {
    [models, finetunes] = await Promise.all([
      listModels(state.account, page("token").value),
      listFinetunes(state.account, page("token").value),
    ]);
  } catch (error) {
    models = finetunes = [];
    showError(error);
  }
  verifications = new Map();
  if (models.length && !models.some((model) => model.name === state.model)) state.model = models[0].name;
  page("model").disabled = page("lora").disabled = models.length === 0;
  if (!touched) applyExample();
  fillLists();
  show();
}

function onInput(event) {
  const chose = event.target.id;
  for (const name of TEXT_FIELDS) state[name] = page(name).value;
  state.mode = new FormData(page("form")).get("mode");
  state.stream = page("stream").checked;
  if (chose === "token") sessionStorage.setItem("token", page("token").value);
  if (chose === "prompt" || chose === "system") touched = true;
  if (chose === "model") { Object.assign(state, NO_ADAPTER); fillLists(); }
  if (chose === "lora") {
    if (!state.lora) state.scale = "";
    if (!state.lora || state.lora === state.lora2) state.lora2 = state.scale2 = "";
    fillLists();
  }
  if ((chose === "model" || chose === "lora") && !touched) applyExample();
  show();
}

function applyExample() {
  Object.assign(state, examplesFor(chosenFinetune())[0] ?? {});
}

/** The name of a finetune in a request: another account's is found by its id alone, a demo adapter by its name too. */
function nameOf(finetune) {
  const isDemo = finetune.name.startsWith("intaglio-"); // only demo adapters may have such names
  return isDemo || finetune.account_id === state.account ? finetune.name : finetune.id;
}

function chosenFinetune(field = "lora") {
  const served = finetunes.filter(isForModel);
  return served.find((item) => nameOf(item) === state[field]) ?? served.find((item) => item.id === state[field]) ?? null;
}

/** Puts `state` into the form, the address bar, the hints and the code. */
function show() {
  for (const name of TEXT_FIELDS) if (page(name).value !== state[name]) page(name).value = state[name];
  document.querySelector(`input[name="mode"][value="${state.mode}"]`).checked = true;
  page("stream").checked = state.stream;
  page("system-field").hidden = state.mode !== "messages";
  page("prompt-label").textContent = state.mode === "messages" ? "User message" : "Prompt";
  page("mode-hint").textContent = MODE_HINTS[state.mode];
  const finetune = chosenFinetune();
  const second = chosenFinetune("lora2");
  const model = models.find((item) => item.name === state.model);
  page("scale-field").hidden = page("mix").hidden = !state.lora;
  page("scale2-field").hidden = !state.lora2;
  page("about").textContent = finetune ? aboutOf(finetune) : model?.description ?? "";
  page("about2").textContent = second ? aboutOf(second) : "";
  showVerification(finetune);
  showVerification(second);
  page("examples").replaceChildren(...examplesFor(finetune).map(exampleButton));
  page("curl").textContent = CODE[state.language](state, location.origin, page("token").value !== "");
  history.replaceState(null, "", `#${new URLSearchParams(changedFields())}`);
}

/** What an adapter is for, and why it does not answer if it does not. */
function aboutOf(finetune) {
  const state = finetune.state && finetune.state !== "ready" ? `Not ready: ${finetune.reason ?? finetune.state}.` : "";
  return [finetune.description, state].filter(Boolean).join(" ");
}

/** What the verification of a chosen adapter showed. Only read-one tells it, so it is asked for once. */
async function showVerification(finetune) {
  showVerifications();
  if (!finetune?.digest || verifications.has(finetune.digest)) return;
  verifications.set(finetune.digest, null);
  try {
    const { verification } = await readFinetune(state.account, page("token").value, nameOf(finetune));
    verifications.set(finetune.digest, verification);
  } catch (error) {
    showError(error);
  }
  showVerifications();
}

/** The known verifications of both adapters, whichever are chosen by now. */
function showVerifications() {
  page("verification").textContent = verificationText(verifications.get(chosenFinetune()?.digest));
  page("verification2").textContent = verificationText(verifications.get(chosenFinetune("lora2")?.digest));
}

function verificationText(verification) {
  if (!verification) return "";
  const [mean, largest] = [verification.mean_logit_change, verification.largest_logit_change].map((change) => Number(change.toPrecision(3)));
  const changes = `logits change by ${mean} (at most ${largest})`;
  const agreement = `${(100 * verification.agreement).toFixed(2)}% agreement with the reference`;
  const scaled = verification.scalable ? "" : " It cannot be scaled or mixed.";
  return `Verified: ${verification.modules} modules of rank ${verification.rank}, ${changes}, ${agreement}.${scaled}`;
}

/** Options for the models that the server named and for the adapters of the chosen one. */
function fillLists() {
  page("model").replaceChildren(...modelOptions());
  const served = finetunes.filter(isForModel);
  fillAdapters("lora", "base model (no adapter)", served);
  fillAdapters("lora2", "no other", served.filter((item) => nameOf(item) !== state.lora));
}

/** The served models, then those that another one answers for, then those without weights, which cannot be chosen. */
function modelOptions() {
  if (!models.length) return [new Option(state.model, state.model)]; // before the first response: as in the link
  const options = [];
  const groups = new Map(); // label -> optgroup
  for (const model of models) {
    const option = new Option(model.name, model.name);
    const standIn = propertyOf(model, "stand_in");
    if (standIn || propertyOf(model, "without_weights")) {
      option.disabled = !standIn;
      const label = standIn ? `Answered by ${standIn}` : "No weights on this server";
      if (!groups.has(label)) groups.set(label, Object.assign(document.createElement("optgroup"), { label }));
      groups.get(label).append(option);
    } else {
      options.push(option);
    }
  }
  return [...options, ...groups.values()];
}

function propertyOf(model, id) {
  return model?.properties?.find((item) => item.property_id === id)?.value ?? null;
}

/** Whether a finetune can be used with the chosen model: it was made for it, or for the one that stands in for it. */
function isForModel(finetune) {
  const chosen = models.find((item) => item.name === state.model);
  return finetune.model === state.model || finetune.model === propertyOf(chosen, "stand_in");
}

function fillAdapters(id, none, listed) {
  const groups = [["Public", true], ["Yours", false]].map(([label, isPublic]) => {
    const group = document.createElement("optgroup");
    group.label = label;
    group.append(...listed.filter((item) => Boolean(item.public) === isPublic).map(adapterOption));
    return group;
  });
  page(id).replaceChildren(new Option(none, ""), ...groups.filter((group) => group.childElementCount));
  if (state[id] && !listed.some((item) => nameOf(item) === state[id])) {
    page(id).append(new Option(`${state[id]} (not listed)`, state[id]));
  }
}

function adapterOption(finetune) {
  const state = finetune.state && finetune.state !== "ready" ? ` (${finetune.state})` : "";
  return new Option(finetune.name + state, nameOf(finetune));
}

function exampleButton(example) {
  const button = document.createElement("button");
  button.type = "button";
  button.textContent = button.title = example.prompt;
  button.addEventListener("click", () => { Object.assign(state, example); touched = false; show(); });
  return button;
}

async function onRun() {
  if (running) return;
  running = new AbortController();
  page("error").hidden = true;
  page("completion").textContent = "";
  page("facts").replaceChildren();
  setBusy(true);
  const times = { start: performance.now(), first: null, pieces: 0 };
  const onText = (piece) => {
    times.first ??= performance.now();
    times.pieces += 1;
    append(piece);
  };
  try {
    const end = await run({ ...state }, page("token").value, running.signal, onText);
    showFacts(end, times);
    page("status").textContent = "Done.";
  } catch (error) {
    if (error.name === "AbortError") page("status").textContent = `Stopped after ${seconds(performance.now() - times.start)}.`;
    else showError(error);
  } finally {
    running = null;
    setBusy(false);
  }
}

/** Adds to the completion and stays at its end, unless the reader has scrolled up. */
function append(piece) {
  const completion = page("completion");
  const atEnd = completion.scrollHeight - completion.scrollTop - completion.clientHeight < 24;
  completion.append(piece);
  if (atEnd) completion.scrollTop = completion.scrollHeight;
}

function setBusy(busy) {
  page("run").disabled = busy;
  page("stop").disabled = !busy;
  page("completion").setAttribute("aria-busy", String(busy));
  if (busy) page("status").textContent = "Running…";
}

function showFacts({ usage, finishReason, headers }, times) {
  const total = performance.now() - times.start;
  const facts = [["finish reason", finishReason ?? "not said"]];
  if (usage) {
    const cached = usage.prompt_tokens_details?.cached_tokens;
    facts.push(["prompt tokens", cached ? `${usage.prompt_tokens} (${cached} cached)` : usage.prompt_tokens]);
    facts.push(["completion tokens", usage.completion_tokens]);
    if (state.stream && times.first !== null) facts.push(["first text after", seconds(times.first - times.start)]);
    facts.push(["tokens/s", (usage.completion_tokens / (total / 1000)).toFixed(1)]);
  }
  facts.push(["total", seconds(total)]);
  for (const [name, value] of headers) if (/^(intaglio-|cf-ai-req-id$)/.test(name)) facts.push([name, value]);
  page("facts").replaceChildren(...facts.map(([name, value]) => factItem(name, String(value))));
}

function factItem(name, value) {
  const item = document.createElement("div");
  const term = document.createElement("dt");
  const text = document.createElement("dd");
  term.textContent = name;
  text.textContent = value;
  text.classList.toggle("code", value.length > 20);
  item.append(term, text);
  return item;
}

function showError(error) {
  const lost = error instanceof TypeError; // fetch raises it when there is no response at all
  const text = lost ? `No answer from ${location.origin}: is the server still running?` : error.message;
  page("error").textContent = error.code ? `Error ${error.code}: ${text}` : text;
  page("error").hidden = false;
  if (error.status === 401) page("connection").open = true; // where the token goes
  page("status").textContent = "Failed.";
}

async function onCopy() {
  try {
    await navigator.clipboard.writeText(page("curl").textContent);
    page("copy").textContent = "Copied";
  } catch { // no permission, or a plain-http page of another machine: select it, so that Ctrl+C copies
    getSelection().selectAllChildren(page("curl"));
    page("copy").textContent = "Selected";
  }
  setTimeout(() => { page("copy").textContent = "Copy"; }, 1500);
}

function seconds(milliseconds) {
  return `${(milliseconds / 1000).toFixed(2)} s`;
}

/** The form can be shared as a link: what differs from the empty form stands behind the #. The token never does. */
function changedFields() {
  return Object.entries(state).filter(([name, value]) => value !== EMPTY[name]).map(([name, value]) => [name, String(value)]);
}

function stateFromAddress() {
  const fields = Object.fromEntries([...new URLSearchParams(location.hash.slice(1))].filter(([name]) => Object.hasOwn(EMPTY, name)));
  if ("stream" in fields) fields.stream = fields.stream === "true";
  if (fields.mode && !Object.hasOwn(MODE_HINTS, fields.mode)) delete fields.mode;
  if (fields.language && !Object.hasOwn(CODE, fields.language)) delete fields.language;
  return fields;
}
