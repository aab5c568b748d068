// The code of a request: its language, a button that copies it, and the text. Complete and Chat show it.

import { button, copyText, element } from "../dom.js";
import { LANGUAGES } from "../snippets.js";

/** The elements by name; `prefix` makes their ids, `title` is the id of the heading. */
export function codeParts(prefix = "", title = "code-title") {
  const options = Object.entries(LANGUAGES).map(([value, { label }]) => new Option(label, value));
  const language = element("select", { id: `${prefix}language`, "aria-label": "Language of the code" }, ...options);
  const copy = button("Copy", null, { id: `${prefix}copy`, "aria-label": "Copy the code" });
  const code = element("pre", { id: `${prefix}code`, class: "code", role: "group", tabIndex: 0, "aria-labelledby": title });
  copy.addEventListener("click", () => copyText(code.textContent, copy, code));
  return { language, copy, code };
}
