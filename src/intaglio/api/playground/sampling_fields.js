// The numbers of a model's input schema as fields: name, default and bounds are the schema's.

import { element, field } from "./dom.js";
import { readSchema } from "./wire.js";

export class SamplingFields {
  values = {}; // name -> as typed; an empty one is left out of requests
  #prefix;
  #catalogue;
  #shownFor = null;

  /** `root` gets the fields, whose ids begin with `prefix`; `onChange(name)` is called as they are typed. */
  constructor(root, prefix, catalogue, onChange) {
    this.root = root;
    this.#prefix = prefix;
    this.#catalogue = catalogue;
    root.addEventListener("input", (event) => {
      this.values[event.target.name] = event.target.value;
      onChange(event.target.name);
    });
  }

  /** Shows the fields of a model. Raises WireError if the server does not give its schema. */
  async showFor(model) {
    if (!model || this.#shownFor === model || !this.#catalogue.loaded) return this.show();
    this.#shownFor = model;
    try {
      const { input } = await readSchema(this.#catalogue, model);
      this.root.replaceChildren(...Object.entries(numbersOf(input)).map(([name, schema]) => this.#fieldOf(name, schema)));
    } catch (error) {
      this.#shownFor = null;
      throw error;
    }
    return this.show();
  }

  /** Puts the values into the fields. */
  show() {
    for (const input of this.root.querySelectorAll("input")) input.value = this.values[input.name] ?? "";
  }

  #fieldOf(name, schema) {
    const inputMode = schema.type === "integer" ? "numeric" : "decimal";
    const placeholder = String(schema.default ?? "off");
    const input = element("input", { name, inputMode, placeholder, autocomplete: "off" });
    const bounds = boundsText(schema);
    const made = field(`${this.#prefix}-${name}`, name, input);
    if (!bounds) return made;
    input.setAttribute("aria-describedby", `${input.id}-bounds`);
    made.append(element("small", { id: `${input.id}-bounds` }, bounds));
    return made;
  }
}

/** {name: schema} of the numbers in any form of the input. */
function numbersOf(input) {
  const properties = Object.assign({}, ...(input.oneOf ?? [input]).map((form) => form.properties));
  return Object.fromEntries(Object.entries(properties).filter(([, schema]) => ["integer", "number"].includes(schema.type)));
}

function boundsText({ minimum, maximum }) {
  if (minimum === undefined && maximum === undefined) return "";
  return maximum === undefined ? `${minimum} or more` : `${minimum ?? "…"} to ${maximum}`;
}
