// The answer of Complete: text as it comes, JSON and tool calls in a readable form, tokens with their alternatives, figures.

import { copyText, element, showAlert } from "../dom.js";
import { errorText, factItems, factsOf, seconds } from "../measured_run.js";
import { TokenView } from "../token_view.js";

export class Answer {
  #parts;
  #tokens;

  constructor(parts) {
    this.#parts = parts;
    this.#tokens = new TokenView(parts.tokens, parts.detail);
    parts.copyAnswer.addEventListener("click", () => copyText(parts.completion.textContent, parts.copyAnswer, parts.completion));
  }

  begin() {
    const { error, completion, calls, facts, tokenPart, copyAnswer } = this.#parts;
    showAlert(error, "");
    completion.textContent = "";
    calls.replaceChildren();
    facts.replaceChildren();
    this.#tokens.clear();
    tokenPart.hidden = copyAnswer.hidden = true;
    this.#setBusy(true);
  }

  /** Adds to the text and stays at its end, unless the reader has scrolled up. */
  append(piece) {
    const { completion } = this.#parts;
    const atEnd = completion.scrollHeight - completion.scrollTop - completion.clientHeight < 24;
    completion.append(piece);
    if (atEnd) completion.scrollTop = completion.scrollHeight;
  }

  addTokens(tokens) {
    this.#parts.tokenPart.hidden = false;
    this.#tokens.add(tokens);
  }

  /** The figures of a measured run; JSON that was asked for is laid out. */
  show(measured, { isJson }) {
    const { completion, calls, facts, status, copyAnswer } = this.#parts;
    if (isJson) completion.textContent = laidOut(completion.textContent);
    calls.replaceChildren(...measured.toolCalls.map(callItem));
    if (measured.toolCalls.length && !completion.textContent) completion.textContent = "The model calls a tool instead of answering in text.";
    facts.replaceChildren(...factItems(factsOf(measured)));
    status.textContent = measured.finishReason === "stopped" ? `Stopped after ${seconds(measured.total)}.` : "Done.";
    copyAnswer.hidden = completion.textContent === "";
  }

  fail(error) {
    showAlert(this.#parts.error, errorText(error));
    this.#parts.status.textContent = "Failed.";
  }

  end() {
    this.#setBusy(false);
  }

  #setBusy(busy) {
    const { run, stop, completion, status } = this.#parts;
    run.disabled = busy;
    stop.disabled = !busy;
    completion.setAttribute("aria-busy", String(busy));
    if (busy) status.textContent = "Running…";
  }
}

function callItem({ name, arguments: given }) {
  const text = typeof given === "string" ? given : JSON.stringify(given ?? {});
  return element("li", {}, element("strong", {}, name), element("pre", {}, laidOut(text)));
}

/** JSON with line breaks; any other text, such as JSON that was cut off, as it is. */
function laidOut(text) {
  try {
    return JSON.stringify(JSON.parse(text), null, 2);
  } catch {
    return text;
  }
}
