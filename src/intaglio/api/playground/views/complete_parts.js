// The elements of Complete: the model and its fields at the side; prompt, editors, answer and code beside them.

import { button, element, field } from "../dom.js";
import { MOST_LOGPROBS } from "../openai_route.js";
import { codeParts } from "./code_parts.js";

/** The editors that are seen first, in this order; those of the schema's other fields are folded. */
export const OFTEN = ["response_format", "tools", "tool_choice"];
const FORMS = ["messages", "prompt", "raw"];

/** The elements by name; `all` are those that the view holds. */
export function completeParts() {
  const parts = { ...modelParts(), ...samplingParts(), ...promptParts(), ...editorParts(), ...answerParts(), ...codeParts() };
  const form = element("form", { id: "form", noValidate: true }, parts.modelCard, parts.samplingCard);
  const codeCard = element("section", { class: "card", id: "same", "aria-labelledby": "code-title" },
    element("div", { class: "bar" }, element("h2", { id: "code-title" }, "The same as code"), parts.language, parts.copy), parts.code);
  const work = element("div", { class: "work" }, parts.promptCard, parts.editorCard, parts.answerCard, codeCard);
  return { ...parts, form, all: [form, work] };
}

function modelParts() {
  const named = (names) => Object.fromEntries(names.map((name) => [name, element("select", { disabled: true })]));
  const { model, lora, lora2 } = named(["model", "lora", "lora2"]);
  const scaleInput = () => element("input", { inputMode: "decimal", placeholder: "1", autocomplete: "off" });
  const [scale, scale2] = [scaleInput(), scaleInput()];
  const scaleField = field("scale", "Scale", scale);
  const scaleField2 = field("scale2", element("span", {}, "Scale", element("span", { class: "visually-hidden" }, " of that one")), scale2);
  const [about, verification, about2, verification2] = ["about", "verification", "about2", "verification2"].map((id) => element("p", { id, class: "hint" }));
  const mix = element("div", { id: "mix", hidden: true }, element("div", { class: "scaled" }, field("lora2", "Mixed with", lora2), scaleField2), about2, verification2);
  const modelCard = element("section", { class: "card", "aria-labelledby": "who-title" },
    element("h2", { id: "who-title" }, "Model"), field("model", "Base model", model),
    element("div", { class: "scaled" }, field("lora", "Adapter", lora), scaleField), about, verification, mix);
  return { model, lora, lora2, scale, scale2, scaleField, scaleField2, about, about2, mix, modelCard, told: [[verification, "lora"], [verification2, "lora2"]] };
}

function samplingParts() {
  const numbers = element("div", { class: "grid" });
  const stream = element("input", { type: "checkbox", id: "stream", checked: true });
  const asks = element("input", { type: "checkbox", id: "asks-logprobs" });
  const logprobs = element("input", { type: "number", min: 1, max: MOST_LOGPROBS, step: 1, value: "5", inputMode: "numeric" });
  const logprobsField = field("logprobs", "alternatives", logprobs, { hidden: true });
  logprobsField.append(element("small", { id: "logprobs-problem", class: "problem", "aria-live": "polite" }));
  logprobs.setAttribute("aria-describedby", "logprobs-problem");
  const flags = element("div", { class: "grid" });
  const check = (input, text) => element("div", { class: "field check" }, element("label", {}, input, text));
  const samplingCard = element("section", { class: "card", id: "sampling", "aria-labelledby": "sampling-title" },
    element("h2", { id: "sampling-title" }, "Sampling"), numbers,
    element("div", { class: "grid" }, check(stream, "stream"), check(asks, "logprobs"), logprobsField), flags,
    element("p", { class: "hint" }, "An empty field is left out of the request. Temperature 0 always takes the best token."));
  return { numbers, flags, stream, asks, logprobs, logprobsField, samplingCard };
}

function promptParts() {
  const tabs = element("div", { class: "tabs", role: "radiogroup", "aria-label": "Form of the prompt" }, ...FORMS.map((name) => element("label", {},
    element("input", { type: "radio", name: "mode", value: name, checked: name === "raw" }), element("span", {}, name))));
  const modeHint = element("p", { id: "mode-hint", class: "hint" });
  const system = element("textarea", { rows: 2, placeholder: "optional" });
  const systemField = field("system", "System message", system, { hidden: true });
  const prompt = element("textarea", { rows: 5, "aria-keyshortcuts": "Control+Enter" });
  const promptField = field("prompt", "Prompt", prompt);
  const readsCount = element("span", { id: "reads-count", "aria-live": "polite" });
  const readsTokens = element("pre", { id: "reads-tokens", role: "group", tabIndex: 0, "aria-label": "The rendered prompt, token by token" });
  const reads = element("details", { id: "reads" }, element("summary", {}, "What the model reads: ", readsCount), readsTokens);
  const examples = element("div", { id: "examples", class: "examples", role: "group", "aria-label": "Examples to try" });
  const run = element("button", { type: "submit", class: "primary", "aria-keyshortcuts": "Control+Enter" }, "Run ", element("kbd", {}, "Ctrl"), element("kbd", {}, "Enter"));
  run.setAttribute("form", "form"); // Enter in a field at the side runs too
  const stop = button("Stop", null, { disabled: true });
  const status = element("span", { id: "status", role: "status" });
  const promptCard = element("section", { class: "card", "aria-labelledby": "ask-title" }, element("h2", { id: "ask-title", class: "visually-hidden" }, "Prompt"),
    tabs, modeHint, systemField, promptField, reads, examples, element("div", { class: "actions" }, run, stop, status));
  return { tabs, modeHint, system, systemField, prompt, promptLabel: promptField.querySelector("label"), readsCount, readsTokens, examples, run, stop, status, promptCard };
}

function editorParts() {
  const editors = Object.fromEntries(OFTEN.map((name) => [name, element("div")]));
  const others = element("div", { class: "editors" });
  const filled = element("span", { class: "filled" });
  const editorCard = element("details", { class: "card", id: "editors" }, element("summary", {}, "JSON schema, tools and other fields", filled),
    ...Object.values(editors), element("details", {}, element("summary", {}, "Other fields of this model"), others));
  return { editors, others, filled, editorCard };
}

function answerParts() {
  const error = element("p", { id: "error", class: "error", role: "alert", hidden: true });
  const completion = element("pre", { id: "completion", role: "group", tabIndex: 0, "aria-labelledby": "completion-title", "data-empty": "The answer appears here." });
  const calls = element("ul", { id: "calls", class: "calls", "aria-label": "Tool calls" });
  const tokens = element("div", { id: "tokens", class: "tokens", role: "group", "aria-label": "Tokens of the answer: arrow keys go from one to the next" });
  const detail = element("div", { id: "alternatives", "aria-live": "polite" });
  const tokenPart = element("div", { hidden: true }, element("p", { class: "hint" }, "Each token with its probability: choose one to see what else was likely. Marked tokens were less likely."), tokens, detail);
  const facts = element("dl", { id: "facts" });
  const copyAnswer = button("Copy", null, { "aria-label": "Copy the answer", hidden: true });
  const answerCard = element("section", { class: "card", "aria-labelledby": "completion-title" },
    element("div", { class: "bar" }, element("h2", { id: "completion-title" }, "Answer"), copyAnswer), error, completion, calls, tokenPart, facts);
  return { error, completion, calls, tokens, detail, tokenPart, facts, copyAnswer, answerCard };
}
