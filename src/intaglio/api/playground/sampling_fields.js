// The fields of a model's input schema as elements: name, default and bounds are the schema's, and so is what is said at a
// field whose value does not have it.

import { button, element } from "./dom.js";
import { acceptsPlainText, boundsText, formFields, readTyped } from "./input_schema.js";
import { FIELD_EXAMPLES } from "./examples.js";
import { readSchema } from "./wire.js";

const onlyNumbers = (root) => ({ kind }) => (kind === "number" ? root : null);

export class SamplingFields {
  values = {}; // name -> as typed; an empty one is left out of requests
  #prefix;
  #catalogue;
  #placeOf;
  #onChange;
  #fields = [];
  #shownFor = null;

  /**
   * The fields stand within `root`, their ids begin with `prefix`, and `onChange(name)` is called as they are typed.
   * `placeOf(field)` is the element that a field goes into, or null: without it `root` gets the numbers, and nothing else is shown.
   */
  constructor(root, prefix, catalogue, onChange, placeOf = onlyNumbers(root)) {
    this.root = root;
    this.#prefix = prefix;
    this.#catalogue = catalogue;
    this.#placeOf = placeOf;
    this.#onChange = onChange;
    root.addEventListener("input", ({ target }) => {
      if (target.dataset.field) this.#take(target.dataset.field, typedIn(target));
    });
  }

  /** Shows the fields of a model. Raises WireError if the server does not give its schema. */
  async showFor(model) {
    if (!model || this.#shownFor === model || !this.#catalogue.loaded) return this.show();
    const { input } = await readSchema(this.#catalogue, model);
    this.#shownFor = model;
    const places = formFields(input).map((field) => [field, this.#placeOf(field)]).filter(([, place]) => place);
    this.#fields = places.map(([field]) => field);
    for (const place of new Set(places.map(([, place]) => place))) place.replaceChildren();
    for (const [field, place] of places) place.append(this.#elementOf(field));
    return this.show();
  }

  /** Puts the values into the fields. */
  show() {
    for (const field of this.#fields) {
      const input = this.#inputOf(field);
      const value = this.values[field.name] ?? "";
      if (input.type === "checkbox") input.checked = (value || String(field.schema.default ?? false)) === "true";
      else if (typedIn(input) !== value) input.value = value;
      this.#showProblem(field);
    }
  }

  /** The fields of the request, those that were filled. What is out of bounds is not among them: see `problem`. */
  body() {
    const read = this.#fields.map((field) => [field.name, readTyped(field, this.values[field.name] ?? "")]);
    return Object.fromEntries(read.filter(([, { value }]) => value !== undefined).map(([name, { value }]) => [name, value]));
  }

  /** What the server takes for a number that is left out, by name. */
  get defaults() {
    const usual = this.#fields.filter(({ kind, schema }) => kind === "number" && schema.default !== undefined);
    return Object.fromEntries(usual.map(({ name, schema }) => [name, schema.default]));
  }

  /** {text, focus} of the first field whose value does not have the schema, or null. */
  problem() {
    for (const field of this.#fields) {
      const { problem } = readTyped(field, this.values[field.name] ?? "");
      if (problem) return { text: problem, focus: () => this.#focus(field) };
    }
    return null;
  }

  #take(name, typed) {
    const field = this.#fields.find((one) => one.name === name);
    const isUsual = field.kind === "flag" && typed === String(field.schema.default ?? false);
    this.values[name] = isUsual ? "" : typed;
    this.#showProblem(field);
    this.#onChange(name);
  }

  #focus(field) {
    const input = this.#inputOf(field);
    for (let parent = input.closest("details"); parent; parent = parent.parentElement.closest("details")) parent.open = true;
    input.focus();
  }

  #inputOf({ name }) {
    return this.root.querySelector(`#${this.#prefix}-${name}`);
  }

  #showProblem(field) {
    const { problem = "" } = readTyped(field, this.values[field.name] ?? "");
    const input = this.#inputOf(field);
    const said = this.root.querySelector(`#${input.id}-problem`);
    if (said.textContent !== problem) said.textContent = problem; // announced once, not at each key
    if (problem) input.setAttribute("aria-invalid", "true");
    else input.removeAttribute("aria-invalid");
  }

  #elementOf(field) {
    const { name, schema, kind } = field;
    const id = `${this.#prefix}-${name}`;
    const input = inputs[kind](schema);
    input.id = id;
    input.dataset.field = name;
    input.setAttribute("aria-describedby", `${id}-bounds ${id}-problem`);
    const label = kind === "flag" ? element("label", { for: id }, input, name) : element("label", { for: id }, name);
    const told = kind === "number" ? boundsText(schema) : schema.description ?? "";
    const example = FIELD_EXAMPLES[name];
    const insert = () => {
      input.value = example;
      this.#take(name, example);
      input.focus();
    };
    const offer = example !== undefined && kind !== "number" && button("Insert an example", insert, { class: "small", "aria-label": `Insert an example of ${name}` });
    return element("div", { class: `field ${kind === "flag" ? "check" : kind}` }, element("div", { class: "label-line" }, label, offer), kind !== "flag" && input,
      element("small", { id: `${id}-bounds` }, told), element("small", { id: `${id}-problem`, class: "problem", "aria-live": "polite" }));
  }
}

// A number's empty field shows the default; a number field has "" as its value for a text that is none.
const inputs = {
  number: ({ type, minimum, maximum, default: usual }) => element("input", {
    type: "number", inputMode: type === "integer" && (minimum ?? 0) >= 0 ? "numeric" : "decimal", step: type === "integer" ? "1" : "any",
    ...(minimum === undefined ? {} : { min: minimum }), ...(maximum === undefined ? {} : { max: maximum }), placeholder: String(usual ?? "off"), autocomplete: "off",
  }),
  flag: () => element("input", { type: "checkbox" }),
  choice: ({ enum: allowed }) => element("select", {}, new Option("left out", ""), ...allowed.map((value) => new Option(value, value))),
  text: () => element("textarea", { rows: 2, spellcheck: false, placeholder: "off", class: "code" }),
  json: (schema) => element("textarea", { rows: acceptsPlainText(schema) ? 2 : 4, spellcheck: false, placeholder: acceptsPlainText(schema) ? "off: a text, or JSON" : "off: JSON", class: "code" }),
};

function typedIn(input) {
  if (input.type === "checkbox") return String(input.checked);
  return input.validity.badInput ? "not a number" : input.value;
}
