// Rates from the counters of /status: each is counted since the engine started, so two reads give what happened between them.

const KEPT = 60; // reads, about a minute

/** The reads of one model: `add` each, then ask for rates. */
export class Rates {
  #reads = []; // {time, prompt, cached, completion}, oldest first

  /** status: of one model; uptime: seconds, of the same read. Counters that went back are those of an engine that was started again. */
  add(status, uptime) {
    const read = { time: uptime, prompt: status.computed_prompt_tokens, cached: status.cached_prompt_tokens, completion: status.completion_tokens };
    const last = this.#reads.at(-1);
    if (last && (read.time <= last.time || read.completion < last.completion || read.prompt < last.prompt)) this.#reads = [];
    this.#reads.push(read);
    if (this.#reads.length > KEPT + 1) this.#reads.shift();
  }

  /** Tokens per second of `prompt` or `completion` between each two reads. */
  history(name) {
    return this.#reads.slice(1).map((read, index) => (read[name] - this.#reads[index][name]) / (read.time - this.#reads[index].time));
  }

  /** The newest rate, or null before the second read. */
  latest(name) {
    return this.history(name).at(-1) ?? null;
  }
}

/** The share of prompt tokens that the prefix cache had, since the engine started; null before the first prompt. */
export function hitRate(status) {
  const all = status.computed_prompt_tokens + status.cached_prompt_tokens;
  return all ? status.cached_prompt_tokens / all : null;
}

/** The points of a line through `values` in a box of this size, for an SVG polyline; the newest value is at the right. */
export function linePoints(values, width, height) {
  const most = Math.max(1, ...values);
  const step = width / (KEPT - 1);
  const start = width - step * (values.length - 1);
  return values.map((value, index) => `${(start + step * index).toFixed(1)},${(height - (value / most) * height).toFixed(1)}`).join(" ");
}
