// Now: what the server is doing, read once a second while the page is looked at.

import { errorText } from "../measured_run.js";
import { Rates } from "../rates.js";
import { showAlert } from "../dom.js";
import { readStatus } from "../wire.js";
import { modelCard, nowParts } from "./now_parts.js";

const EVERY_MS = 1000;

export class NowView {
  #root;
  #app;
  #parts;
  #rates = new Map(); // model id -> Rates
  #reading = false;

  constructor(root, app) {
    this.#root = root;
    this.#app = app;
    this.#parts = nowParts();
    root.append(...this.#parts.all);
    setInterval(() => { if (!root.hidden && !document.hidden) this.refresh(); }, EVERY_MS);
  }

  restore() {
    this.refresh();
  }

  fields() {
    return {};
  }

  async refresh() {
    if (this.#reading) return; // a server that is slow to answer is not asked twice
    this.#reading = true;
    try {
      this.#show(await readStatus(this.#app.catalogue));
      showAlert(this.#parts.error, "");
    } catch (error) {
      const refused = error.status !== undefined && error.status !== null;
      showAlert(this.#parts.error, refused ? errorText(error) : `The server does not answer. What stands below is old; it is asked again each second.`);
      if (!this.#root.hidden) this.#app.onRefusal(error);
    } finally {
      this.#reading = false;
    }
  }

  #show({ version, uptime_s: uptime, models }) {
    this.#parts.about.textContent = `Intaglio ${version}, up for ${durationText(uptime)}.`;
    const cards = Object.entries(models).map(([name, status]) => {
      if (!this.#rates.has(name)) this.#rates.set(name, new Rates());
      const rates = this.#rates.get(name);
      if (status) rates.add(status, uptime);
      return modelCard(name, status, rates, (digest) => this.#nameOf(digest));
    });
    this.#parts.models.replaceChildren(...cards);
  }

  /** The names of this account's and the public adapters with that digest; another account's are not told. */
  #nameOf(digest) {
    const names = this.#app.catalogue.finetunes.filter((item) => item.digest === digest).map((item) => item.name);
    return names.join(", ") || `${digest.slice(0, 12)}…`;
  }
}

/** 45 s, 12 min, 3 h 5 min, 2 days 4 h */
function durationText(seconds) {
  const minutes = Math.floor(seconds / 60);
  const hours = Math.floor(minutes / 60);
  if (!minutes) return `${Math.floor(seconds)} s`;
  if (!hours) return `${minutes} min`;
  if (hours < 48) return `${hours} h ${minutes % 60} min`;
  return `${Math.floor(hours / 24)} days ${hours % 24} h`;
}
