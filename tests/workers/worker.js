// What wrangler runs: the probe, the AI SDK's probe, and the entrypoint that both ask.

import probe from "./probe.js";
import sdk from "./sdk_probe.js";

export { IntaglioAI } from "../../workers/src/index.js";

export default {
  fetch(request, env) {
    return new URL(request.url).pathname === "/sdk" ? sdk.fetch(request, env) : probe.fetch(request, env);
  },
};
