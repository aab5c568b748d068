// The tokens of an answer with their probabilities: one can be chosen, by mouse or by arrow keys, and its alternatives are shown.

import { element } from "./dom.js";

const SHOWN_TOKENS = 2000;
const STEPS = [0.9, 0.5, 0.1]; // probabilities from which a token has a paler mark

export class TokenView {
  #tokens = [];
  #chosen = 0;

  /** `list` gets the tokens, `detail` the alternatives of the chosen one. */
  constructor(list, detail) {
    this.list = list;
    this.detail = detail;
    list.addEventListener("click", ({ target }) => { if (target.dataset.at) this.#choose(Number(target.dataset.at)); });
    list.addEventListener("keydown", (event) => this.#onKey(event));
  }

  clear() {
    this.#tokens = [];
    this.#chosen = 0;
    this.list.replaceChildren();
    this.detail.replaceChildren();
  }

  /** Adds [{token, logprob, top}]. */
  add(tokens) {
    const first = this.#tokens.length;
    this.#tokens.push(...tokens);
    const shown = tokens.slice(0, Math.max(0, SHOWN_TOKENS - first));
    this.list.append(...shown.map((token, index) => this.#buttonOf(token, first + index)));
    if (first === 0 && tokens.length) this.#choose(0, false);
  }

  #buttonOf({ token, logprob }, at) {
    const probability = Math.exp(logprob);
    const step = STEPS.filter((limit) => probability < limit).length;
    return element("button", {
      type: "button", class: `token p${step}`, tabIndex: at === 0 ? 0 : -1, "data-at": at, "aria-pressed": "false",
      "aria-label": `${visible(token)}, ${percent(probability)}`,
    }, visible(token), token.includes("\n") && element("br"));
  }

  #onKey(event) {
    const last = this.list.querySelectorAll("button").length - 1;
    const moves = { ArrowRight: this.#chosen + 1, ArrowDown: this.#chosen + 1, ArrowLeft: this.#chosen - 1, ArrowUp: this.#chosen - 1, Home: 0, End: last };
    if (!Object.hasOwn(moves, event.key) || last < 0) return;
    event.preventDefault();
    this.#choose(Math.min(last, Math.max(0, moves[event.key])), true);
  }

  #choose(at, focuses = true) {
    const buttons = this.list.querySelectorAll("button");
    for (const [chosen, index] of [[false, this.#chosen], [true, at]]) {
      buttons[index].setAttribute("aria-pressed", String(chosen));
      buttons[index].tabIndex = chosen ? 0 : -1; // one stop for the Tab key; arrows go on from there
    }
    this.#chosen = at;
    if (focuses) buttons[at].focus();
    this.#showDetail(this.#tokens[at]);
  }

  #showDetail({ token, logprob, top }) {
    const listed = top.some((one) => one.token === token) ? top : [...top, { token, logprob }];
    const rows = listed.map((one) => element("tr", { class: one.token === token ? "chosen" : "" },
      element("th", { scope: "row" }, element("code", {}, visible(one.token)), one.token === token && " (taken)"),
      element("td", {}, percent(Math.exp(one.logprob))), element("td", {}, one.logprob.toFixed(3).replace(/^-(0\.0+)$/, "$1")),
      element("td", {}, element("meter", { min: 0, max: 1, value: Math.exp(one.logprob), "aria-label": `probability of ${visible(one.token)}` }))));
    const head = element("tr", {}, ...["token", "probability", "logprob", ""].map((name) => element(name ? "th" : "td", name ? { scope: "col" } : {}, name)));
    this.detail.replaceChildren(element("table", { class: "alternatives" }, element("caption", {}, `Token ${this.#chosen + 1}`), element("thead", {}, head), element("tbody", {}, ...rows)));
  }
}

/** White space that could not be seen otherwise. */
function visible(token) {
  return token.replaceAll("\n", "↵").replaceAll("\t", "⇥").replace(/^ | $/g, "·") || "∅";
}

function percent(probability) {
  const share = 100 * probability;
  return `${share >= 10 ? share.toFixed(1) : share.toPrecision(2)}%`;
}
