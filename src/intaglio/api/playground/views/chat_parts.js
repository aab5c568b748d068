// The elements of Chat: the conversation with its composer, and the settings beside it.

import { button, element, field } from "../dom.js";
import { codeParts } from "./code_parts.js";

/** The elements by name; `all` are those that the view holds. */
export function chatParts() {
  const parts = { ...choiceParts(), ...logParts(), ...composerParts(), ...settingsParts() };
  const head = element("div", { class: "bar" }, element("h2", { id: "chat-title" }, "Chat"), parts.fresh);
  const conversation = element("section", { class: "card conversation", "aria-labelledby": "chat-title" },
    head, parts.choices, parts.about, parts.note, parts.empty, parts.log, parts.error, parts.composer);
  return { ...parts, all: [conversation, parts.settings] };
}

function choiceParts() {
  const model = element("select", { name: "model", disabled: true });
  const lora = element("select", { name: "lora", disabled: true });
  const scale = element("input", { name: "scale", inputMode: "decimal", placeholder: "1", autocomplete: "off" });
  const scaleField = field("chat-scale", "Scale", scale, { hidden: true });
  scaleField.classList.add("narrow");
  const choices = element("div", { class: "choices" }, field("chat-model", "Base model", model), field("chat-lora", "Adapter", lora), scaleField);
  return { model, lora, scale, scaleField, choices };
}

function logParts() {
  const starters = element("div", { class: "examples", role: "group", "aria-label": "An example to try" });
  return {
    fresh: button("New chat", null, { disabled: true }),
    about: element("p", { class: "hint" }),
    note: element("p", { class: "note", hidden: true }),
    starters,
    empty: element("div", { class: "empty" }, element("p", {}, "Ask something. The answer comes from this machine."), starters),
    log: element("div", { class: "log", role: "log", "aria-label": "Conversation", tabIndex: 0 }),
    error: element("p", { class: "error", role: "alert", hidden: true }),
  };
}

function composerParts() {
  const message = element("textarea", { id: "chat-message", rows: 2, placeholder: "Enter sends, Shift+Enter is a new line" });
  const send = element("button", { type: "submit", class: "primary" }, "Send");
  const stop = button("Stop", null, { disabled: true, "aria-keyshortcuts": "Escape" });
  stop.append(element("kbd", {}, "Esc"));
  const status = element("span", { role: "status", class: "status" });
  const label = element("label", { for: "chat-message", class: "visually-hidden" }, "Message");
  return { message, send, stop, status, composer: element("form", { class: "composer", noValidate: true }, label, message, element("div", { class: "actions" }, send, stop, status)) };
}

function settingsParts() {
  const system = element("textarea", { rows: 4, placeholder: "optional: how to answer" });
  const sampling = element("div", { class: "grid" });
  const { language, copy, code } = codeParts("chat-", "chat-code-title");
  const asCode = element("details", { class: "card" }, element("summary", { id: "chat-code-title" }, "The next answer as code"),
    element("div", { class: "bar" }, language, copy), code);
  const settings = element("form", { class: "settings" },
    element("section", { class: "card", "aria-labelledby": "chat-system-title" },
      element("h2", { id: "chat-system-title" }, "System text"),
      element("label", { for: "chat-system", class: "visually-hidden" }, "System text"), Object.assign(system, { id: "chat-system" })),
    element("details", { class: "card" }, element("summary", {}, "Sampling"), sampling,
      element("p", { class: "hint" }, "An empty field is left out of the request. Temperature 0 always takes the best token.")),
    asCode);
  return { system, sampling, settings, asCode, language, code };
}
