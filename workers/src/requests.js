// The two requests that a Workers AI binding makes, for the server and account of the Worker's configuration.

import { named } from "./errors.js";

/** POST /run: the model goes into a header, inputs and options into the body. */
export function runRequest(env, model, inputs, options) {
  refuseStreams(inputs);
  const { prefix, extraHeaders, sessionOptions, signal, ...sent } = options;
  const headers = new Headers({ ...sessionOptions?.extraHeaders, ...extraHeaders, ...identity(env) });
  headers.set("content-type", "application/json");
  headers.set("cf-consn-sdk-version", "2.0.0");
  headers.set("cf-consn-model-id", prefix ? `${prefix}:${model}` : model);
  const body = JSON.stringify({ inputs, options: sent });
  return new Request(endpoint(env, "run?version=3"), { method: "POST", headers, body, signal });
}

/** GET /ai-api/models/search */
export function modelsRequest(env, params) {
  const url = endpoint(env, "ai-api/models/search");
  for (const [name, value] of Object.entries(params)) url.searchParams.set(name, String(value));
  return new Request(url, { headers: identity(env) });
}

function endpoint(env, path) {
  if (!env.INTAGLIO_URL) throw named("AiInternalError", "INTAGLIO_URL is not set; set it to the address of the Intaglio server");
  return new URL(path, env.INTAGLIO_URL.replace(/\/*$/, "/"));
}

function identity(env) {
  const headers = {};
  if (env.INTAGLIO_ACCOUNT) headers["intaglio-account"] = env.INTAGLIO_ACCOUNT;
  if (env.INTAGLIO_TOKEN) headers["authorization"] = `Bearer ${env.INTAGLIO_TOKEN}`;
  return headers;
}

// In JSON a stream would become an empty object, and the model would run without that input.
function refuseStreams(inputs) {
  for (const [name, value] of Object.entries(inputs)) {
    for (const one of [value, value?.body]) {
      if (one instanceof ReadableStream || one instanceof FormData) {
        throw named("AiInternalError", `inputs.${name} is a stream or a form; text generation takes JSON only`);
      }
    }
  }
}
