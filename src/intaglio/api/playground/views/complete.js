// Complete: one prompt in each of its forms, two adapters mixed, every field of the model's schema, and the same request as code.

import { aboutOf, fillAdapters, fillModels, verificationText } from "../choices.js";
import { button } from "../dom.js";
import { examplesFor, suggestionOf } from "../examples.js";
import { runWithLogprobs } from "../logprobs_run.js";
import { measuredRun } from "../measured_run.js";
import { MOST_LOGPROBS } from "../openai_route.js";
import { RenderedPrompt } from "../rendered_prompt.js";
import { bodyOf, EMPTY } from "../request.js";
import { SamplingFields } from "../sampling_fields.js";
import { codeOf, LANGUAGES } from "../snippets.js";
import { run } from "../wire.js";
import { Answer } from "./answer.js";
import { completeParts, OFTEN } from "./complete_parts.js";

const TEXT_FIELDS = ["model", "lora", "scale", "lora2", "scale2", "system", "prompt", "language"];
const MODE_HINTS = {
  messages: "A chat: the system message and yours, put into the model's chat form.",
  prompt: "One user turn, put into the model's chat form. What most adapters are trained on.",
  raw: "The text goes to the model untouched, and the model continues it.",
};
const NO_ADAPTER = { lora: "", scale: "", lora2: "", scale2: "" };
const JSON_FIELDS = ["response_format", "guided_json", "structured_outputs"];

export class CompleteView {
  #app;
  #catalogue;
  #parts = completeParts();
  #state = { ...EMPTY };
  #fields; // of the model's schema
  #answer;
  #running = null; // AbortController of the running request
  #rendered;
  #typed = new Set(); // fields that the reader has filled: never replaced by an example or a suggestion

  constructor(root, app) {
    this.#app = app;
    this.#catalogue = app.catalogue;
    root.append(...this.#parts.all);
    this.#answer = new Answer(this.#parts);
    this.#rendered = new RenderedPrompt(app.catalogue, this.#parts.readsCount, this.#parts.readsTokens);
    this.#fields = new SamplingFields(root, "complete", app.catalogue, (name) => this.#onField(name), (field) => this.#placeOf(field));
    root.addEventListener("input", (event) => { if (!event.target.dataset.field) this.#onInput(event); });
    root.addEventListener("keydown", (event) => {
      if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) { event.preventDefault(); this.#onRun(); }
    });
    const { form, stop } = this.#parts;
    form.addEventListener("submit", (event) => { event.preventDefault(); this.#onRun(); });
    stop.addEventListener("click", () => this.stop());
  }

  /** Fields of a link: the page's own, and those of the model's schema, which is not known yet. */
  restore({ account: _, ...fields }) {
    const known = { ...EMPTY };
    const values = {};
    for (const [name, value] of Object.entries(fields)) (Object.hasOwn(EMPTY, name) ? known : values)[name] = value;
    known.stream = known.stream !== "false" && known.stream !== false;
    if (!Object.hasOwn(MODE_HINTS, known.mode)) known.mode = EMPTY.mode;
    if (!Object.hasOwn(LANGUAGES, known.language)) known.language = EMPTY.language;
    this.#state = known;
    this.#fields.values = values;
    this.#typed = new Set(Object.keys(fields).filter((name) => fields[name] !== ""));
    if (OFTEN.some((name) => values[name])) this.#parts.editorCard.open = true;
    this.refresh();
  }

  /** What differs from the empty form. */
  fields() {
    const own = Object.entries(this.#state).filter(([name, value]) => name !== "account" && value !== EMPTY[name]);
    const typed = Object.entries(this.#fields.values).filter(([, value]) => value !== "");
    return Object.fromEntries([...own, ...typed].map(([name, value]) => [name, String(value)]));
  }

  /** Fills the lists anew: the catalogue or the account has changed. */
  refresh() {
    this.#state.account = this.#catalogue.account;
    this.#state.model = this.#catalogue.chosenModel(this.#state.model);
    if (this.#catalogue.loaded && !this.#typed.has("prompt")) this.#take(examplesFor(this.#chosen())[0] ?? {});
    this.#fillLists();
    this.#show();
  }

  stop() {
    this.#running?.abort();
  }

  #placeOf({ name, kind }) {
    const { numbers, flags, editors, others } = this.#parts;
    if (kind === "number") return numbers;
    if (kind === "flag") return flags;
    return editors[name] ?? others;
  }

  #onField(name) {
    if (this.#fields.values[name] === "") this.#typed.delete(name);
    else this.#typed.add(name);
    this.#showRequest();
  }

  #onInput({ target }) {
    const parts = this.#parts;
    const state = this.#state;
    const chose = target.name === "mode" ? "mode" : target.id;
    for (const name of TEXT_FIELDS) state[name] = parts[name].value;
    state.mode = parts.tabs.querySelector(":checked").value;
    state.stream = parts.stream.checked;
    state.logprobs = parts.asks.checked ? parts.logprobs.value || "empty" : "";
    if (chose === "asks-logprobs" && state.logprobs === "empty") state.logprobs = parts.logprobs.value = "5";
    if (target.value === "" && chose !== "prompt") this.#typed.delete(chose);
    else this.#typed.add(chose);
    if (chose === "model") Object.assign(state, NO_ADAPTER);
    if (chose === "lora" && !state.lora) state.scale = "";
    if (chose === "lora" && (!state.lora || state.lora === state.lora2)) state.lora2 = state.scale2 = "";
    if (chose === "lora" || chose === "model") this.#takeSuggestion();
    this.#show();
  }

  /** Another adapter: its example, or beside the reader's own prompt its form and limits. */
  #takeSuggestion() {
    this.#fillLists();
    const finetune = this.#chosen();
    this.#typed.delete("mode"); // the form that fitted the last choice need not fit this one
    this.#take(this.#typed.has("prompt") ? suggestionOf(finetune) : examplesFor(finetune)[0] ?? suggestionOf(finetune));
  }

  #take(suggested) {
    for (const [name, value] of Object.entries(suggested)) {
      if (!this.#typed.has(name)) (Object.hasOwn(EMPTY, name) ? this.#state : this.#fields.values)[name] = value;
    }
  }

  #chosen(field = "lora") {
    return this.#catalogue.adapter(this.#state.model, this.#state[field]);
  }

  #fillLists() {
    const { model, lora, lora2 } = this.#state;
    const served = this.#catalogue.adaptersOf(model);
    const others = served.filter((item) => this.#catalogue.nameOf(item) !== lora);
    fillModels(this.#parts.model, this.#catalogue, model);
    fillAdapters(this.#parts.lora, this.#catalogue, { none: "base model (no adapter)", listed: served, chosen: lora });
    fillAdapters(this.#parts.lora2, this.#catalogue, { none: "no other", listed: others, chosen: lora2 });
  }

  /** Puts the state into the elements, the address, the hints and the code. */
  #show() {
    const [state, parts] = [this.#state, this.#parts];
    for (const name of TEXT_FIELDS) if (parts[name].value !== state[name]) parts[name].value = state[name];
    parts.tabs.querySelector(`[value="${state.mode}"]`).checked = true;
    parts.stream.checked = state.stream;
    parts.asks.checked = state.logprobs !== "";
    parts.logprobsField.hidden = state.logprobs === "";
    if (state.logprobs !== "" && parts.logprobs.value !== state.logprobs) parts.logprobs.value = state.logprobs;
    parts.systemField.hidden = state.mode !== "messages";
    parts.promptLabel.textContent = state.mode === "messages" ? "User message" : "Prompt";
    parts.modeHint.textContent = MODE_HINTS[state.mode];
    parts.scaleField.hidden = parts.mix.hidden = !state.lora;
    parts.scaleField2.hidden = !state.lora2;
    const [finetune, second] = [this.#chosen(), this.#chosen("lora2")];
    parts.about.textContent = finetune ? aboutOf(finetune) : this.#catalogue.model(state.model)?.description ?? "";
    parts.about2.textContent = second ? aboutOf(second) : "";
    parts.examples.replaceChildren(...examplesFor(finetune).map((example) => this.#exampleButton(example)));
    this.#showVerifications();
    this.#showRequest();
    this.#fields.showFor(state.model).then(() => this.#showRequest(), (error) => this.#fail(error));
  }

  /** What follows from the request: code, rendered prompt, address, and how many editors are filled. */
  #showRequest() {
    const [state, parts] = [this.#state, this.#parts];
    const body = this.#body();
    const { account, model, logprobs } = state;
    parts.logprobsField.querySelector(".problem").textContent = logprobsProblem(logprobs);
    parts.code.textContent = codeOf(state.language, { origin: location.origin, account, model, body, logprobs, withToken: this.#catalogue.token !== "", defaults: this.#fields.defaults });
    const filled = [...parts.editorCard.querySelectorAll("[data-field]")].filter(({ value }) => value !== "").length;
    parts.filled.textContent = filled ? ` (${filled} filled)` : "";
    this.#rendered.show(model, body);
    this.#app.changed();
  }

  #body() {
    return bodyOf(this.#state, this.#fields.body());
  }

  async #showVerifications() {
    for (const [told, name] of this.#parts.told) {
      const known = () => { told.textContent = verificationText(this.#catalogue.knownVerification(this.#chosen(name))); };
      known();
      try {
        await this.#catalogue.verification(this.#chosen(name));
      } catch (error) {
        this.#fail(error);
      }
      known(); // of the adapter that is chosen by now
    }
  }

  #exampleButton(example) {
    const take = () => {
      for (const name of Object.keys(example)) this.#typed.delete(name);
      this.#take(example);
      this.#show();
    };
    return button(example.prompt, take, { title: example.prompt });
  }

  async #onRun() {
    if (this.#running) return;
    this.#running = new AbortController();
    try {
      await this.#fields.showFor(this.#state.model); // a request without the fields that were typed would be another one
      const problem = this.#problem();
      if (problem) {
        this.#answer.fail(new Error(problem.text));
        problem.focus();
        return;
      }
      await this.#send();
    } catch (error) {
      this.#fail(error);
    } finally {
      this.#running = null;
      this.#answer.end();
    }
  }

  async #send() {
    const { model, logprobs } = this.#state;
    const body = this.#body();
    const runner = logprobs === "" ? run : (connection, name, native, signal, onText) => runWithLogprobs(connection, name, native, logprobs, signal, onText, (tokens) => this.#answer.addTokens(tokens));
    this.#answer.begin();
    const measured = await measuredRun(this.#catalogue, model, body, this.#running.signal, (piece) => this.#answer.append(piece), runner);
    this.#answer.show(measured, { isJson: JSON_FIELDS.some((name) => name in body) });
  }

  /** Why the request is not sent, and where to mend it; or null. */
  #problem() {
    const { prompt, logprobs } = this.#parts;
    if (!this.#state.prompt) return { text: "Type a prompt first.", focus: () => prompt.focus() };
    const text = logprobsProblem(this.#state.logprobs);
    return text ? { text, focus: () => logprobs.focus() } : this.#fields.problem();
  }

  #fail(error) {
    this.#answer.fail(error);
    this.#app.onRefusal(error);
  }
}

function logprobsProblem(typed) {
  const number = Number(typed);
  if (typed === "" || (Number.isInteger(number) && number >= 1 && number <= MOST_LOGPROBS)) return "";
  return `logprobs is ${typed}, not a whole number from 1 to ${MOST_LOGPROBS}.`;
}
