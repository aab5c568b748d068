// Cloudflare's command line: `wrangler` on npm
import { execFile } from "node:child_process";
import { promisify } from "node:util";
import { report } from "./report.mjs";

const { ACCOUNT, ADAPTER_FOLDER, BASE_URL, MODEL, NEW_ADAPTER } = process.env;
const run = promisify(execFile);

// What a user exports; CLOUDFLARE_API_BASE_URL is the only line that differs from the use with Workers AI.
const env = {
  ...process.env,
  CLOUDFLARE_API_BASE_URL: BASE_URL,
  CLOUDFLARE_API_TOKEN: "any",
  CLOUDFLARE_ACCOUNT_ID: ACCOUNT,
  WRANGLER_SEND_METRICS: "false",
  NO_COLOR: "1",
};
const withoutAccount = { ...env, CLOUDFLARE_ACCOUNT_ID: undefined };

async function wrangler(args, environment = env) {
  const { stdout, stderr } = await run("wrangler", args.split(" "), { env: environment, maxBuffer: 1e7 });
  return { stdout, stderr };
}

const whoami = () => wrangler("whoami", withoutAccount);

async function finetunes() {
  const created = await wrangler(`ai finetune create ${MODEL} ${NEW_ADAPTER} ${ADAPTER_FOLDER}`);
  const [listed, json] = await Promise.all([wrangler("ai finetune list"), wrangler("ai finetune list --json")]);
  return { created, listed, json: JSON.parse(json.stdout) };
}

async function models() {
  const [listed, schema] = await Promise.all([wrangler("ai models"), wrangler(`ai models schema ${MODEL}`)]);
  return { listed, schema };
}

async function errors() {
  try {
    return await wrangler("ai models schema @cf/no/such-model");
  } catch ({ code, stderr }) {
    return { code, stderr };
  }
}

// The command says so and ends with 0 all the same: wrangler catches what the server answers.
const name_taken = () => wrangler(`ai finetune create ${MODEL} ${NEW_ADAPTER} ${ADAPTER_FOLDER}`);

await report(whoami, finetunes, models, errors, name_taken);
