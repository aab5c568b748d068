// Runs one evaluation by promptfoo's command and prints what each provider answered: node evaluate.mjs <config>
import { spawnSync } from "node:child_process";
import { readFileSync } from "node:fs";
import path from "node:path";
import { report } from "../node/report.mjs";

// With its telemetry off it still tells its vendor so, once: the tests' https proxy, which does not exist, stops that.
const offline = {
  PROMPTFOO_DISABLE_REMOTE_GENERATION: "1",
  PROMPTFOO_DISABLE_SHARING: "1",
  PROMPTFOO_DISABLE_TELEMETRY: "1",
  PROMPTFOO_DISABLE_UPDATE: "1",
};
const program = path.join(import.meta.dirname, "node_modules", ".bin", "promptfoo");
const done = spawnSync(
  program,
  ["eval", "-c", process.argv[2], "-o", "results.json", "--no-cache", "--no-progress-bar", "--no-table"],
  { env: { ...process.env, ...offline }, encoding: "utf8" },
);

// The status says nothing: an unknown adapter ends the evaluation as a failure, after the results are written.
let results;
try {
  ({ results } = JSON.parse(readFileSync("results.json", "utf8")).results);
} catch (error) {
  throw new Error(`promptfoo ended with ${done.status}:\n${done.stdout}\n${done.stderr}`, { cause: error });
}

function result(label) {
  const found = results.filter(({ provider }) => provider.label === label);
  if (found.length !== 1) throw new Error(`${found.length} results of ${label}:\n${done.stdout}\n${done.stderr}`);
  return found[0];
}

function output(label) {
  const { success, error, response } = result(label);
  if (!success) throw new Error(`${label}: ${error}`);
  return response.output;
}

const chat = () => [output("base"), result("base").response.tokenUsage.total];

const adapter = () => ["adapter", "base and adapter", "field"].map(output);

const structured = () => output("schema");

const tools = () => output("tool").map(({ function: { name, arguments: given } }) => [name, JSON.parse(given)]);

function errors() {
  const { success, error } = result("unknown");
  return [success, error];
}

await report(chat, adapter, structured, tools, errors);
