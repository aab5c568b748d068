// Compare: one question to the base and any set of adapters, streaming together. The engine runs them in one batch.

import { isPretrained, isReady } from "../catalogue.js";
import { fillModels } from "../choices.js";
import { button, showAlert } from "../dom.js";
import { suggestionOf } from "../examples.js";
import { errorText } from "../measured_run.js";
import { loraOf, samplingOf } from "../request.js";
import { SamplingFields } from "../sampling_fields.js";
import { Column } from "./compare_column.js";
import { compareParts } from "./compare_parts.js";
import { readColumns, writeColumns } from "./compare_link.js";

const FIRST_COLUMNS = 4; // beside the base, when nothing was chosen
const CONNECTIONS = 6; // of a browser to one server, in HTTP/1.1: more columns wait for one that ends
const DEFAULTS = { max_tokens: "96", temperature: "0" }; // where neither the reader nor a card says it
const FORMS = ["prompt", "raw"]; // "": each one's own

export class CompareView {
  #app;
  #catalogue;
  #parts;
  #sampling;
  #model = "";
  #ask = "";
  #form = "";
  #typed = new Set(); // sampling fields that the reader filled
  #columns = null; // [{lora, scale}]; lora "" is the base; null: the first ones that are listed
  #shown = []; // Column
  #running = null; // AbortController of all columns

  constructor(root, app) {
    this.#app = app;
    this.#catalogue = app.catalogue;
    this.#parts = compareParts();
    root.append(...this.#parts.all);
    this.#sampling = new SamplingFields(this.#parts.sampling, "compare", app.catalogue, (name) => { this.#typed.add(name); app.changed(); });
    this.#parts.form.addEventListener("submit", (event) => { event.preventDefault(); this.run(); });
    this.#parts.form.addEventListener("input", (event) => this.#onInput(event));
    this.#parts.ask.addEventListener("keydown", (event) => {
      if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
      event.preventDefault();
      this.run();
    });
    this.#parts.stop.addEventListener("click", () => this.stop());
  }

  /** `run` of a link, "1", asks at once. */
  restore({ model = "", ask = this.#ask, form = "", with: columns = "", run = "", ...sampling }) {
    delete sampling.account;
    this.stop();
    this.#model = model;
    this.#ask = ask;
    this.#form = FORMS.includes(form) ? form : "";
    this.#columns = columns ? readColumns(columns) : null;
    this.#sampling.values = { ...DEFAULTS, ...sampling };
    this.#typed = new Set(Object.keys(sampling));
    this.refresh();
    if (run && ask && this.#catalogue.loaded) this.run();
  }

  fields() {
    const chosen = this.#columns ? writeColumns(this.#columns) : "";
    return { model: this.#model, ask: this.#ask, form: this.#form, with: chosen, ...this.#typedValues() };
  }

  #typedValues() {
    return Object.fromEntries(Object.entries(this.#sampling.values).filter(([name]) => this.#typed.has(name)));
  }

  refresh() {
    this.#model = this.#catalogue.chosenModel(this.#model);
    this.#show();
  }

  stop() {
    this.#running?.abort();
  }

  #chosenColumns() {
    if (this.#columns) return this.#columns;
    const listed = this.#catalogue.adaptersOf(this.#model).filter(isReady).slice(0, FIRST_COLUMNS);
    return [{ lora: "", scale: "" }, ...listed.map((item) => ({ lora: this.#catalogue.nameOf(item), scale: "" }))];
  }

  #onInput({ target }) {
    if (target.name === "ask") this.#ask = target.value;
    if (target.name === "form") this.#form = target.value;
    if (target.name === "model") { this.#model = target.value; this.#columns = null; }
    if (target.name === "model") this.#show();
    if (target.closest(".columns-choice")) this.#columns = this.#parts.chosen();
    if (target.closest(".columns-choice") || target.name === "form") this.#showColumns();
    this.#app.changed();
  }

  #show() {
    const { ask, model } = this.#parts;
    if (ask.value !== this.#ask) ask.value = this.#ask;
    fillModels(model, this.#catalogue, this.#model);
    this.#parts.form.elements.form.value = this.#form;
    const adapters = this.#catalogue.adaptersOf(this.#model);
    this.#parts.offer(adapters.map((item) => ({ name: this.#catalogue.nameOf(item), label: item.name, ready: isReady(item) })), this.#chosenColumns());
    const examples = adapters.filter((item) => item.example_prompt);
    this.#parts.examples.replaceChildren(...examples.map((item) => this.#exampleButton(item.example_prompt)));
    this.#sampling.showFor(this.#model).catch((error) => this.#showError(error));
    this.#showColumns();
    this.#app.changed();
  }

  #exampleButton(example) {
    const ask = () => {
      this.#ask = this.#parts.ask.value = example;
      this.#app.changed();
      this.run();
    };
    return button(example, ask, { title: example });
  }

  /** A column for each choice; those that stay keep their text. */
  #showColumns() {
    const chosen = this.#chosenColumns();
    const kept = new Map(this.#shown.map((column) => [column.key, column]));
    const adapters = chosen.map((choice) => this.#catalogue.adapter(this.#model, choice.lora));
    this.#shown = chosen.map((choice, at) => kept.get(Column.keyOf(choice)) ?? new Column(choice, choice.lora ? adapters[at]?.name ?? choice.lora : "base"));
    for (const [at, column] of this.#shown.entries()) column.describe(this.#catalogue, this.#model, adapters[at]);
    this.#parts.grid.replaceChildren(...this.#shown.map((column) => column.root));
    const notes = [];
    if (chosen.length > CONNECTIONS) notes.push(`A browser keeps ${CONNECTIONS} connections to a server: the other columns begin when one of the first ${CONNECTIONS} ends.`);
    if (isPretrained(this.#catalogue.model(this.#model)) && chosen.some((choice) => !choice.lora)) notes.push("The base is pre-trained: alone it continues text and was never trained to answer.");
    this.#parts.note.textContent = notes.join(" ");
  }

  /** Asks all columns at once. */
  async run() {
    if (this.#running) return;
    const problem = !this.#ask.trim() ? "Type a question first." : !this.#shown.length ? "Choose the base or an adapter first." : "";
    showAlert(this.#parts.error, problem);
    if (problem) return this.#parts.ask.focus();
    this.#running = new AbortController();
    this.#setBusy(true);
    const asked = [...this.#shown];
    const meter = this.#meter(asked);
    await Promise.all(asked.map((column) => column.run(this.#catalogue, this.#model, this.#body(column.choice), this.#running.signal)));
    clearInterval(meter);
    this.#markSame(asked);
    for (const column of asked) if (column.refusal) this.#app.onRefusal(column.refusal);
    this.#running = null;
    this.#setBusy(false);
  }

  /** An adapter is asked as its card suggests, where the reader has typed nothing. */
  #body(choice) {
    const adapter = this.#catalogue.adapter(this.#model, choice.lora);
    const { mode, ...suggested } = adapter ? suggestionOf(adapter) : { mode: "prompt" };
    const values = { ...this.#sampling.values };
    for (const [name, value] of Object.entries(suggested)) if (value && !this.#typed.has(name)) values[name] = value;
    const lora = choice.lora ? { lora: loraOf(choice) } : {};
    const raw = (this.#form || mode) === "raw" ? { raw: true } : {};
    return { prompt: this.#ask, ...raw, ...lora, ...samplingOf(values, Object.keys(values)), stream: true };
  }

  /** Shows while they run how much text all columns get together. Pieces are tokens, nearly always. */
  #meter(columns) {
    const start = performance.now();
    const show = () => {
      const pieces = columns.reduce((sum, column) => sum + column.pieces, 0);
      const spent = (performance.now() - start) / 1000;
      this.#parts.together.textContent = `${columns.length} side by side: ${pieces} tokens, ${(pieces / spent).toFixed(0)} tokens/s together`;
    };
    return setInterval(show, 200);
  }

  #markSame(columns) {
    const base = columns.find((column) => !column.choice.lora);
    for (const column of columns) column.markSame(base);
  }

  #setBusy(busy) {
    this.#parts.send.disabled = busy;
    this.#parts.stop.disabled = !busy;
    if (busy) this.#parts.together.textContent = "Asking…";
  }

  #showError(error) {
    showAlert(this.#parts.error, errorText(error));
    this.#app.onRefusal(error);
  }
}
