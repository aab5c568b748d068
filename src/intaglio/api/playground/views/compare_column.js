// One column of Compare: what answers, its text as it comes, and its figures.

import { aboutOf, verificationText } from "../choices.js";
import { element, showAlert } from "../dom.js";
import { errorText, factItems, factsOf, measuredRun } from "../measured_run.js";

const SHOWN_FACTS = ["tokens/s", "first text after", "completion tokens", "finish reason"];

export class Column {
  pieces = 0;
  refusal = null; // the error of the last run

  /** choice: {lora, scale}; name: what stands above it. */
  constructor(choice, name) {
    this.choice = choice;
    this.key = Column.keyOf(choice);
    this.name = name;
    const scale = choice.scale ? element("span", { class: "scale" }, ` × ${choice.scale}`) : "";
    this.title = element("h3", {}, this.name, scale);
    this.about = element("p", { class: "hint" });
    this.verification = element("p", { class: "hint" });
    this.text = element("div", { class: "output", tabIndex: 0, role: "group", "aria-label": `Answer of ${this.name}` });
    this.error = element("p", { class: "error", role: "alert", hidden: true });
    this.same = element("p", { class: "hint" });
    this.facts = element("dl", { class: "facts" });
    this.root = element("article", { class: "card column" + (choice.lora ? "" : " base"), "aria-label": this.name },
      this.title, this.about, this.text, this.error, this.same, this.facts, this.verification);
  }

  static keyOf({ lora, scale }) {
    return `${lora}:${scale}`;
  }

  /** Shows what answers, and the verification of an adapter as soon as it is known. finetune: null for the base and an unknown name. */
  async describe(catalogue, model, finetune) {
    this.about.textContent = this.choice.lora ? finetune ? aboutOf(finetune) : "" : model;
    try {
      this.verification.textContent = verificationText(await catalogue.verification(finetune));
    } catch (error) {
      this.verification.textContent = errorText(error);
    }
  }

  /** Streams an answer into the column. Never raises: an error is shown here, and the other columns go on. */
  async run(catalogue, model, body, signal) {
    this.#clear();
    const onText = (piece) => {
      this.pieces += 1;
      this.text.append(piece);
      this.text.scrollTop = this.text.scrollHeight;
    };
    try {
      const facts = factsOf(await measuredRun(catalogue, model, body, signal, onText));
      this.facts.replaceChildren(...factItems(SHOWN_FACTS.flatMap((name) => facts.filter(([found]) => found === name))));
    } catch (error) {
      this.refusal = error;
      showAlert(this.error, errorText(error));
    } finally {
      this.text.setAttribute("aria-busy", "false");
    }
  }

  /** Says so if the adapter changed nothing in this answer. */
  markSame(base) {
    const isSame = base && base !== this && this.text.textContent && this.text.textContent === base.text.textContent;
    this.same.textContent = isSame ? "The same text as the base." : "";
  }

  #clear() {
    this.pieces = 0;
    this.refusal = null;
    this.text.textContent = this.same.textContent = "";
    this.facts.replaceChildren();
    showAlert(this.error, "");
    this.text.setAttribute("aria-busy", "true");
  }
}
