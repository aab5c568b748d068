// Complete: one prompt in each of its forms, two adapters mixed, sampling, and the same request as code.

import { aboutOf, fillAdapters, fillModels, verificationText } from "../choices.js";
import { byId, button, copyText, showAlert } from "../dom.js";
import { examplesFor, suggestionOf } from "../examples.js";
import { errorText, factItems, factsOf, measuredRun, seconds } from "../measured_run.js";
import { bodyOf, curlOf, EMPTY } from "../request.js";
import { RenderedPrompt } from "../rendered_prompt.js";
import { javascriptOf, pythonOf } from "../snippets.js";

const TEXT_FIELDS = ["model", "lora", "scale", "lora2", "scale2", "system", "prompt", "max_tokens", "temperature", "top_p", "top_k", "seed", "language"];
const CODE = { curl: curlOf, python: pythonOf, javascript: javascriptOf };
const MODE_HINTS = {
  messages: "A chat: the system message and yours, put into the model's chat form.",
  prompt: "One user turn, put into the model's chat form. What most adapters are trained on.",
  raw: "The text goes to the model untouched, and the model continues it.",
};
const NO_ADAPTER = { lora: "", scale: "", lora2: "", scale2: "" };

export class CompleteView {
  #app;
  #catalogue;
  #state = { ...EMPTY };
  #running = null; // AbortController of the running request
  #rendered;
  #typed = new Set(); // fields that the reader has filled: never replaced by an example or a suggestion

  constructor(root, app) {
    this.#app = app;
    this.#catalogue = app.catalogue;
    this.#rendered = new RenderedPrompt(app.catalogue, byId("reads-count"), byId("reads-tokens"));
    root.addEventListener("input", (event) => this.#onInput(event));
    byId("form").addEventListener("submit", (event) => { event.preventDefault(); this.#onRun(); });
    byId("stop").addEventListener("click", () => this.stop());
    byId("copy").addEventListener("click", () => copyText(byId("curl").textContent, byId("copy"), byId("curl")));
    root.addEventListener("keydown", (event) => {
      if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) { event.preventDefault(); this.#onRun(); }
    });
  }

  /** Fields of a link; those that are not known are left out. */
  restore(fields) {
    const known = Object.fromEntries(Object.entries(fields).filter(([name]) => Object.hasOwn(EMPTY, name) && name !== "account"));
    if ("stream" in known) known.stream = known.stream === "true";
    if (known.mode && !Object.hasOwn(MODE_HINTS, known.mode)) delete known.mode;
    if (known.language && !Object.hasOwn(CODE, known.language)) delete known.language;
    this.#state = { ...EMPTY, ...known };
    this.#typed = new Set(Object.keys(known).filter((name) => known[name] !== ""));
    this.refresh();
  }

  /** What differs from the empty form. */
  fields() {
    return Object.fromEntries(Object.entries(this.#state).filter(([name, value]) => name !== "account" && value !== EMPTY[name]).map(([name, value]) => [name, String(value)]));
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

  #onInput(event) {
    const chose = event.target.name === "mode" ? "mode" : event.target.id;
    for (const name of TEXT_FIELDS) this.#state[name] = byId(name).value;
    this.#state.mode = new FormData(byId("form")).get("mode");
    this.#state.stream = byId("stream").checked;
    if (event.target.value === "" && chose !== "prompt") this.#typed.delete(chose);
    else this.#typed.add(chose);
    if (chose === "model") Object.assign(this.#state, NO_ADAPTER);
    if (chose === "lora" && !this.#state.lora) this.#state.scale = "";
    if (chose === "lora" && (!this.#state.lora || this.#state.lora === this.#state.lora2)) this.#state.lora2 = this.#state.scale2 = "";
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
    for (const [name, value] of Object.entries(suggested)) if (!this.#typed.has(name)) this.#state[name] = value;
  }

  #chosen(field = "lora") {
    return this.#catalogue.adapter(this.#state.model, this.#state[field]);
  }

  #fillLists() {
    const { model, lora, lora2 } = this.#state;
    const served = this.#catalogue.adaptersOf(model);
    const others = served.filter((item) => this.#catalogue.nameOf(item) !== lora);
    fillModels(byId("model"), this.#catalogue, model);
    fillAdapters(byId("lora"), this.#catalogue, { none: "base model (no adapter)", listed: served, chosen: lora });
    fillAdapters(byId("lora2"), this.#catalogue, { none: "no other", listed: others, chosen: lora2 });
  }

  /** Puts the state into the form, the address, the hints and the code. */
  #show() {
    const state = this.#state;
    for (const name of TEXT_FIELDS) if (byId(name).value !== state[name]) byId(name).value = state[name];
    document.querySelector(`input[name="mode"][value="${state.mode}"]`).checked = true;
    byId("stream").checked = state.stream;
    byId("system-field").hidden = state.mode !== "messages";
    byId("prompt-label").textContent = state.mode === "messages" ? "User message" : "Prompt";
    byId("mode-hint").textContent = MODE_HINTS[state.mode];
    const [finetune, second] = [this.#chosen(), this.#chosen("lora2")];
    byId("scale-field").hidden = byId("mix").hidden = !state.lora;
    byId("scale2-field").hidden = !state.lora2;
    byId("about").textContent = finetune ? aboutOf(finetune) : this.#catalogue.model(state.model)?.description ?? "";
    byId("about2").textContent = second ? aboutOf(second) : "";
    this.#showVerifications();
    byId("examples").replaceChildren(...examplesFor(finetune).map((example) => this.#exampleButton(example)));
    byId("curl").textContent = CODE[state.language](state, location.origin, this.#catalogue.token !== "");
    this.#rendered.show(state.model, bodyOf(state));
    this.#app.changed();
  }

  async #showVerifications() {
    for (const [id, name] of [["verification", "lora"], ["verification2", "lora2"]]) {
      const known = () => { byId(id).textContent = verificationText(this.#catalogue.knownVerification(this.#chosen(name))); };
      known();
      try {
        await this.#catalogue.verification(this.#chosen(name));
      } catch (error) {
        this.#showError(error);
      }
      known(); // of the adapter that is chosen by now
    }
  }

  #exampleButton(example) {
    const take = () => {
      for (const name of Object.keys(example)) this.#typed.delete(name);
      Object.assign(this.#state, example);
      this.#show();
    };
    return button(example.prompt, take, { title: example.prompt });
  }

  async #onRun() {
    if (this.#running) return;
    if (!this.#state.prompt) {
      this.#showError(new Error("Type a prompt first."));
      byId("prompt").focus();
      return;
    }
    this.#begin();
    try {
      const { model } = this.#state;
      const measured = await measuredRun(this.#catalogue, model, bodyOf(this.#state), this.#running.signal, append);
      byId("facts").replaceChildren(...factItems(factsOf(measured)));
      byId("status").textContent = measured.finishReason === "stopped" ? `Stopped after ${seconds(measured.total)}.` : "Done.";
    } catch (error) {
      this.#showError(error);
    } finally {
      this.#running = null;
      setBusy(false);
    }
  }

  #begin() {
    this.#running = new AbortController();
    showAlert(byId("error"), "");
    byId("completion").textContent = "";
    byId("facts").replaceChildren();
    setBusy(true);
  }

  #showError(error) {
    showAlert(byId("error"), errorText(error));
    this.#app.onRefusal(error);
    byId("status").textContent = "Failed.";
  }
}

/** Adds to the completion and stays at its end, unless the reader has scrolled up. */
function append(piece) {
  const completion = byId("completion");
  const atEnd = completion.scrollHeight - completion.scrollTop - completion.clientHeight < 24;
  completion.append(piece);
  if (atEnd) completion.scrollTop = completion.scrollHeight;
}

function setBusy(busy) {
  byId("run").disabled = busy;
  byId("stop").disabled = !busy;
  byId("completion").setAttribute("aria-busy", String(busy));
  if (busy) byId("status").textContent = "Running…";
}
