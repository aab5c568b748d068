// The elements of Compare: the question, the choice of columns, and the grid that they stand in.

import { button, element, field } from "../dom.js";

/** The elements by name; `all` are those that the view holds. */
export function compareParts() {
  const question = questionParts();
  const choice = choiceParts();
  const settings = settingsParts();
  const error = element("p", { class: "error", role: "alert", hidden: true });
  const note = element("p", { class: "hint" });
  const title = element("h2", { id: "compare-title" }, "One question, side by side");
  const form = element("form", { class: "card", noValidate: true, "aria-labelledby": "compare-title" },
    title, question.label, question.ask, question.examples, choice.columns, settings.details, error, question.actions, note);
  const grid = element("div", { class: "columns", role: "group", "aria-label": "Answers side by side" });
  return { ...question, ...choice, ...settings, error, note, form, grid, all: [form, grid] };
}

function questionParts() {
  const ask = element("textarea", { id: "compare-ask", name: "ask", rows: 3, placeholder: "Enter asks all of them, Shift+Enter is a new line" });
  const send = element("button", { type: "submit", class: "primary" }, "Ask all");
  const stop = button("Stop", null, { disabled: true, "aria-keyshortcuts": "Escape" });
  stop.append(element("kbd", {}, "Esc"));
  const together = element("span", { role: "status", class: "status" });
  return {
    label: element("label", { for: "compare-ask", class: "visually-hidden" }, "Question"),
    ask, send, stop, together,
    examples: element("div", { class: "examples", role: "group", "aria-label": "Examples to try" }),
    actions: element("div", { class: "actions" }, send, stop, together),
  };
}

/** Checkboxes with a scale beside each adapter. offer(adapters, chosen) fills them; chosen() reads them. */
function choiceParts() {
  const list = element("div", { class: "chips" });
  const columns = element("fieldset", { class: "columns-choice" }, element("legend", {}, "Who answers"), list);

  function offer(adapters, chosen) {
    const listed = new Set(adapters.map(({ name }) => name));
    const missing = chosen.filter(({ lora }) => lora && !listed.has(lora)).map(({ lora }) => ({ name: lora, label: `${lora} (not listed)`, ready: true }));
    const offered = [{ name: "", label: "base", ready: true }, ...adapters, ...missing];
    list.replaceChildren(...offered.map((adapter) => chip(adapter, chosen.find(({ lora }) => lora === adapter.name))));
  }

  function chosen() {
    const checked = [...list.children].filter((item) => item.querySelector("[type=checkbox]").checked);
    return checked.map((item) => ({
      lora: item.querySelector("[type=checkbox]").value,
      scale: item.querySelector(".scale-of")?.value.trim() ?? "",
    }));
  }
  return { columns, offer, chosen };
}

function chip({ name, label, ready }, chosen) {
  const box = element("input", { type: "checkbox", value: name, checked: Boolean(chosen), disabled: !ready && !chosen });
  const scale = name && element("input", {
    class: "scale-of", inputMode: "decimal", placeholder: "1", value: chosen?.scale ?? "", autocomplete: "off",
    title: "scale", "aria-label": `Scale of ${label}`,
  });
  return element("div", { class: "chip" }, element("label", {}, box, ready ? label : `${label} (not ready)`), scale || "");
}

function settingsParts() {
  const model = element("select", { name: "model", disabled: true });
  const sampling = element("div", { class: "grid wide" });
  const forms = element("select", { name: "form" },
    new Option("each one's own: what its card suggests, else the model's chat form", ""), new Option("the model's chat form", "prompt"), new Option("raw: the text is continued", "raw"));
  const details = element("details", {}, element("summary", {}, "Base model, prompt form and sampling"),
    element("div", { class: "choices" }, field("compare-model", "Base model", model), field("compare-form", "Prompt form", forms)), sampling);
  return { model, sampling, details };
}
