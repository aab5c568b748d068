// A Workers AI binding over an Intaglio server: bind this entrypoint as a service named AI, and env.AI.run() works.
//
//   INTAGLIO_URL      address of the server, e.g. https://intaglio.example.com
//   INTAGLIO_ACCOUNT  account whose finetunes `lora` may name; `local` if not set
//   INTAGLIO_TOKEN    one of the server's API tokens, as a secret, if the server requires one
//
// Streams and Response objects cross the service binding unchanged, so text arrives while it is generated.

import { WorkerEntrypoint } from "cloudflare:workers";
import { failure, modelsFailure } from "./errors.js";
import { modelsRequest, runRequest } from "./requests.js";

export class IntaglioAI extends WorkerEntrypoint {
  /**
   * Run a model.
   * @param {string} model    e.g. "@cf/google/gemma-7b-it-lora"
   * @param {object} inputs   {prompt} or {messages}, and settings: lora, stream, max_tokens, temperature, ...
   * @param {object} options  lora, queueRequest, rejectIfBusy, returnRawResponse, extraHeaders, signal
   * @returns {Promise<object | ReadableStream<Uint8Array> | Response>}  the result; with `stream` its server-sent
   *   events; with `returnRawResponse` the whole HTTP response, also if it is an error
   * @throws {Error} named InferenceUpstreamError, with the text "<code>: <what is wrong>"
   */
  async run(model, inputs, options = {}) {
    const response = await fetch(runRequest(this.env, model, inputs, options));
    if (options.returnRawResponse) return response;
    if (!response.ok) throw await failure(response);
    if (response.headers.get("content-type") === "application/json") return await response.json();
    return response.body;
  }

  /**
   * The models of the server.
   * @param {object} params  search, task, author, source, hide_experimental, page, per_page
   * @returns {Promise<object[]>}
   */
  async models(params = {}) {
    const response = await fetch(modelsRequest(this.env, params));
    if (!response.ok) throw await modelsFailure(response);
    return (await response.json()).result;
  }
}

export default IntaglioAI;
