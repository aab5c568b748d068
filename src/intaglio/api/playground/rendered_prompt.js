// The prompt as the model reads it, token by token, with its count: rendered by the server as the reader types.

import { element } from "./dom.js";
import { errorText } from "./measured_run.js";
import { countedPrompt } from "./openai_route.js";
import { countTokens } from "./wire.js";

const PAUSE_MS = 250; // of typing, before the server is asked
const SHOWN_TOKENS = 2000;
const SPACE = "▁"; // as the vocabulary writes a space

export class RenderedPrompt {
  #catalogue;
  #count;
  #tokens;
  #timer = null;
  #asked = ""; // the last question, as JSON: a response to an older one is dropped

  /** `count` gets the number of tokens, `tokens` the tokens themselves. */
  constructor(catalogue, count, tokens) {
    this.#catalogue = catalogue;
    this.#count = count;
    this.#tokens = tokens;
  }

  /** Shows the prompt of a request's body. */
  show(model, body) {
    const asked = countedPrompt(body);
    const key = JSON.stringify([model, asked, body.functions]);
    if (!this.#catalogue.loaded || key === this.#asked) return;
    this.#asked = key;
    if (body.functions?.length) return this.#drawNone("not shown with `functions`, which the server does not count beforehand");
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.#ask(key, model, asked), PAUSE_MS);
  }

  async #ask(key, model, asked) {
    try {
      const counted = await countTokens(this.#catalogue, model, { ...asked, return_token_strs: true });
      if (key === this.#asked) this.#draw(counted);
    } catch (error) {
      if (key !== this.#asked) return;
      this.#drawNone(errorText(error));
      this.#asked = ""; // asked again at the next change
    }
  }

  #drawNone(reason) {
    clearTimeout(this.#timer);
    this.#count.textContent = reason;
    this.#tokens.replaceChildren();
  }

  #draw({ count, max_model_len: window, token_strs: texts }) {
    this.#count.textContent = `${count} ${count === 1 ? "token" : "tokens"} of ${window}`;
    const spans = texts.slice(0, SHOWN_TOKENS).map((text) => element("span", {}, text.replaceAll(SPACE, " ")));
    this.#tokens.replaceChildren(...spans, texts.length > SHOWN_TOKENS ? ` … and ${texts.length - SHOWN_TOKENS} more` : "");
  }
}
