// Runs probe.js under miniflare: node miniflare.mjs proxy|service <server or proxy URL>
//
//   proxy    an `ai` binding whose remote proxy is our server
//   service  a binding of workers/ as a service

import { readFileSync } from "node:fs";
import { Miniflare } from "miniflare";

const DATE = "2026-10-01";
const [way, url] = process.argv.slice(2);

function worker(name, folder, files, env, dev) {
  const modules = files.map((file) => [file, { type: "esm", contents: readFileSync(new URL(file, folder), "utf8") }]);
  const manifest = { mainModule: files[0], modules: Object.fromEntries(modules) };
  return { config: { name, compatibilityDate: DATE, manifest, env }, dev };
}

const here = new URL("./", import.meta.url);
const module = new URL("../../workers/src/", import.meta.url);
const workers = {
  proxy: () => [
    worker("probe", here, ["probe.js"], { AI: { type: "ai", dev: { remote: true } } }, {
      remoteProxyConnectionString: new URL(url),
    }),
  ],
  service: () => [
    worker("probe", here, ["probe.js"], { AI: { type: "worker", worker: "intaglio-ai", exportName: "IntaglioAI" } }),
    worker("intaglio-ai", module, ["index.js", "requests.js", "errors.js"], {
      INTAGLIO_URL: { type: "text", value: url },
      INTAGLIO_ACCOUNT: { type: "text", value: "workers" },
      INTAGLIO_TOKEN: { type: "text", value: "the-token" },
    }),
  ],
}[way]();

const miniflare = new Miniflare({ host: "127.0.0.1", port: 0, cf: false, enableDevRegistry: false, workers });
console.log(`ready at ${await miniflare.ready}`);
