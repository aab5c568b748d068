// The elements of Now: one card for each model.

import { bytesText } from "../adapter_files.js";
import { element } from "../dom.js";
import { hitRate, linePoints } from "../rates.js";

const SVG = "http://www.w3.org/2000/svg";
const WIDTH = 240;
const HEIGHT = 36;

export function nowParts() {
  const about = element("p", { class: "hint" });
  const error = element("p", { class: "error", role: "alert", hidden: true });
  const models = element("div", {});
  const head = element("section", { class: "card", "aria-labelledby": "now-title" }, element("h2", { id: "now-title" }, "Now"), about, error);
  return { about, error, models, all: [head, models] };
}

/** nameOf: the name of an adapter by its digest. */
export function modelCard(name, status, rates, nameOf) {
  const title = element("h2", {}, name);
  if (!status) {
    const waiting = element("p", { class: "note" }, "Its engine is being started, or has not answered for ten seconds.");
    return element("section", { class: "card now", "aria-label": name }, title, waiting);
  }
  return element("section", { class: "card now", "aria-label": name }, title,
    element("dl", { class: "figures" },
      ...figure("running", status.running),
      ...figure("waiting", status.waiting),
      ...figure("completion tokens/s", rateText(rates.latest("completion")), rates.history("completion")),
      ...figure("prompt tokens/s", rateText(rates.latest("prompt")), rates.history("prompt"))),
    memory("Keys and values", status.kv_used_bytes, status.kv_cache_bytes, `${bytesText(status.kv_prefix_bytes)} more kept for prompts that begin alike`),
    memory("Adapters", adapterBytes(status), status.adapter_cache_bytes, `${status.adapters.length} in memory`),
    adapterList(status, nameOf),
    element("dl", { class: "facts" },
      ...fact("prefix cache hits", hitText(hitRate(status))),
      ...fact("completion tokens", status.completion_tokens),
      ...fact("prompt tokens", status.computed_prompt_tokens),
      ...fact("steps", status.steps),
      ...fact("preemptions", status.preemptions)));
}

function figure(label, value, history = null) {
  return [element("div", {}, element("dt", {}, label), element("dd", {}, String(value), history ? line(history, label) : null))].filter(Boolean);
}

function fact(label, value) {
  return [element("div", {}, element("dt", {}, label), element("dd", {}, String(value)))];
}

/** The last minute of a rate. */
function line(values, label) {
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("viewBox", `0 0 ${WIDTH} ${HEIGHT}`);
  svg.setAttribute("role", "img");
  svg.setAttribute("aria-label", `${label} in the last minute`);
  const drawn = document.createElementNS(SVG, "polyline");
  drawn.setAttribute("points", linePoints(values, WIDTH, HEIGHT));
  svg.append(drawn);
  return svg;
}

function memory(label, used, total, more) {
  const bar = element("meter", { min: 0, max: Math.max(1, total), value: used, "aria-label": label });
  return element("div", { class: "memory" }, element("span", {}, label), bar,
    element("small", {}, `${bytesText(used)} of ${bytesText(total)}; ${more}`));
}

function adapterBytes(status) {
  return status.adapters.reduce((sum, one) => sum + one.num_bytes, 0);
}

/** The base and each adapter that runs, then those that are only in memory. */
function adapterList(status, nameOf) {
  const running = status.adapters.filter((one) => one.num_running);
  const idle = status.adapters.filter((one) => !one.num_running);
  const rows = [
    ...(status.running_on_base ? [row("base", status.running_on_base)] : []),
    ...running.map((one) => row(nameOf(one.digest), one.num_running)),
    ...idle.map((one) => row(nameOf(one.digest), 0)),
  ];
  if (!rows.length) return element("p", { class: "hint" }, "No adapter is in memory.");
  return element("ul", { class: "in-batch", "aria-label": "In the batch and in memory" }, ...rows);
}

function row(name, running) {
  return element("li", { class: running ? "running" : "" }, element("span", {}, name), element("small", {}, running ? `${running} running` : "in memory"));
}

function rateText(rate) {
  return rate === null ? "…" : rate.toFixed(rate > 0 && rate < 10 ? 1 : 0);
}

function hitText(rate) {
  return rate === null ? "no prompt yet" : `${(100 * rate).toFixed(0)}%`;
}
