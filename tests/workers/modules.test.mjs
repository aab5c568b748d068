// What needs no Worker to be tested, of workers/src and of the example's page: node --test modules.test.mjs

import assert from "node:assert/strict";
import { test } from "node:test";
import { events } from "../../workers/example/public/events.js";
import { failure, modelsFailure } from "../../workers/src/errors.js";
import { modelsRequest, runRequest } from "../../workers/src/requests.js";

const STREAM = 'data: {"response":"Größe "}\n\ndata: {"response":"日本"}\n\ndata: [DONE]\n\n';
const EVENTS = [{ response: "Größe " }, { response: "日本" }];

function body(...chunks) {
  return new ReadableStream({
    start(controller) {
      for (const chunk of chunks) controller.enqueue(chunk);
      controller.close();
    },
  });
}

async function read(stream) {
  const found = [];
  for await (const event of events(stream)) found.push(event);
  return found;
}

test("chunks may be cut at every byte", async () => {
  const bytes = new TextEncoder().encode(STREAM);
  for (let cut = 0; cut <= bytes.length; cut++) {
    assert.deepEqual(await read(body(bytes.slice(0, cut), bytes.slice(cut))), EVENTS);
  }
});

test("a stream without [DONE] is cut, and that is an error", async () => {
  const bytes = new TextEncoder().encode(STREAM.replace("data: [DONE]\n\n", ""));
  await assert.rejects(read(body(bytes)), /ended early/);
});

test("ending the iteration cancels the stream", async () => {
  const cancelled = Promise.withResolvers();
  const endless = new ReadableStream({
    pull: (controller) => controller.enqueue(new TextEncoder().encode('data: {"response":"x"}\n\n')),
    cancel: cancelled.resolve,
  });
  for await (const event of events(endless)) {
    assert.equal(event.response, "x");
    break;
  }
  await cancelled.promise;
});

const ENV = { INTAGLIO_URL: "http://host/below/", INTAGLIO_ACCOUNT: "acme", INTAGLIO_TOKEN: "secret" };

test("a run goes to the configured server, and a caller cannot replace its account and token", async () => {
  const extraHeaders = { authorization: "Bearer other", "intaglio-account": "other", "x-mine": "1" };
  const options = { extraHeaders, prefix: "fast", lora: "mine", signal: AbortSignal.timeout(1000) };
  const request = runRequest(ENV, "@cf/a/b", { prompt: "x" }, options);
  assert.equal(request.url, "http://host/below/run?version=3");
  assert.equal(request.headers.get("cf-consn-model-id"), "fast:@cf/a/b");
  assert.equal(request.headers.get("authorization"), "Bearer secret");
  assert.equal(request.headers.get("intaglio-account"), "acme");
  assert.equal(request.headers.get("x-mine"), "1");
  assert.deepEqual(await request.json(), { inputs: { prompt: "x" }, options: { lora: "mine" } });
});

test("models go there with their query, with or without account and token", () => {
  const request = modelsRequest({ INTAGLIO_URL: "http://host" }, { search: "a b", hide_experimental: true });
  assert.equal(request.url, "http://host/ai-api/models/search?search=a+b&hide_experimental=true");
  assert.equal(request.headers.get("authorization"), null);
  assert.equal(request.headers.get("intaglio-account"), null);
});

test("a stream among the inputs is refused, not sent as an empty object", () => {
  for (const stream of [new ReadableStream(), new FormData()]) {
    for (const value of [stream, { body: stream, contentType: "audio/wav" }]) {
      assert.throws(() => runRequest(ENV, "m", { audio: value }, {}), /AiInternalError: inputs.audio is a stream/);
    }
  }
  assert.throws(() => runRequest({}, "m", { prompt: "x" }, {}), /INTAGLIO_URL is not set/);
});

test("whatever a server or a proxy before it answers becomes an Error that can be read", async () => {
  const binding = { internalCode: 5007, message: "m", name: "Named", description: "No such model" };
  const envelope = { success: false, errors: [{ code: 10000, message: "Authentication error" }] };
  for (const [body, text] of [
    [JSON.stringify(binding), "Named: 5007: No such model"],
    [JSON.stringify(envelope), "InferenceUpstreamError: 10000: Authentication error"],
    ["<h1>502</h1>", "InferenceUpstreamError: <h1>502</h1>"],
    ["null", "InferenceUpstreamError: null"],
    ["", "InferenceUpstreamError: the server responded with status 502"],
  ]) {
    assert.equal(String(await failure(new Response(body, { status: 502 }))), text);
  }
  const failed = await modelsFailure(new Response(JSON.stringify(envelope), { status: 401 }));
  assert.equal(String(failed), "AiInternalError: Authentication error");
  assert.equal(String(await modelsFailure(new Response("<h1>502</h1>"))), "AiInternalError: <h1>502</h1>");
});
