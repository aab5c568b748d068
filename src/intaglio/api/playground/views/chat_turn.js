// One turn of a conversation: its text, its actions and, of an answer, its figures.

import { button, copyText, element } from "../dom.js";
import { markdownNodes } from "../markdown.js";
import { factItems } from "../measured_run.js";

const SHOWN_FACTS = ["tokens/s", "first text after", "prompt tokens", "completion tokens", "finish reason"];

export class TurnView {
  #turn;
  #actions;
  #isDrawn = false;

  /** actions: edit(text), again(), remove(). */
  constructor(turn, actions) {
    this.#turn = turn;
    this.#actions = actions;
    this.name = turn.role === "user" ? "You" : turn.by || "Model";
    this.root = element("article", { class: `turn ${turn.role}`, "aria-label": this.name });
    this.draw();
  }

  draw() {
    const { role, content, facts, error } = this.#turn;
    this.#isDrawn = true;
    this.body = element("div", { class: "text" });
    if (role === "user") this.body.textContent = content;
    else this.body.append(...markdownNodes(content));
    this.root.replaceChildren(
      element("h3", {}, this.name),
      this.body,
      error ? element("p", { class: "error", role: "alert" }, error) : "",
      facts ? element("dl", { class: "facts" }, ...factItems(chosenFacts(facts))) : "",
      this.#buttons(),
    );
  }

  /** Draws the text at the next frame: pieces come faster than a screen shows them. */
  drawSoon() {
    if (!this.#isDrawn) return;
    this.#isDrawn = false;
    requestAnimationFrame(() => {
      if (this.#isDrawn) return; // drawn whole meanwhile
      this.#isDrawn = true;
      this.body.replaceChildren(...markdownNodes(this.#turn.content));
    });
  }

  setBusy(busy) {
    this.root.setAttribute("aria-busy", String(busy));
    if (!busy) this.draw();
  }

  #buttons() {
    const named = (text, act) => button(text, act, { "aria-label": `${text} this ${this.#turn.role === "user" ? "message" : "answer"}` });
    const copy = named("Copy", () => copyText(this.#turn.content, copy, this.body));
    const made = [named("Edit", () => this.#edit()), copy, named("Delete", this.#actions.remove)];
    if (this.#turn.role === "assistant") made.unshift(named("Regenerate", this.#actions.again));
    return element("div", { class: "turn-actions" }, ...made);
  }

  #edit() {
    const isUser = this.#turn.role === "user";
    const text = element("textarea", { rows: 3, value: this.#turn.content, "aria-label": "Changed text" });
    const problem = element("span", { class: "hint", role: "status" });
    const save = button(isUser ? "Ask again" : "Save", () => {
      if (text.value.trim()) this.#actions.edit(text.value);
      else problem.textContent = "A turn has text; Delete removes it.";
    }, { class: "primary" });
    this.body.replaceChildren(text, element("div", { class: "actions" }, save, button("Cancel", () => this.draw()), problem));
    text.addEventListener("keydown", (event) => {
      if (event.key !== "Escape") return;
      event.stopPropagation();
      this.draw();
    });
    text.focus();
  }
}

function chosenFacts(facts) {
  return SHOWN_FACTS.flatMap((name) => facts.filter(([found]) => found === name));
}
