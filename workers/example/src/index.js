// A Worker that uses env.AI as with Workers AI, and a page (../public) that shows the text while it is generated.

export { IntaglioAI } from "../../src/index.js"; // in a project of your own: from "intaglio-workers"

const MODEL = "@intaglio/gemma-3-270m";

export default {
  async fetch(request, env) {
    const { pathname } = new URL(request.url);
    if (pathname === "/models") return Response.json(await env.AI.models());
    if (pathname === "/run" && request.method === "POST") return run(await request.json(), env);
    return new Response("Not found", { status: 404 });
  },
};

async function run({ prompt, lora }, env) {
  try {
    const inputs = { prompt, lora: lora || undefined, max_tokens: 512, temperature: 0, stream: true };
    return new Response(await env.AI.run(MODEL, inputs), { headers: { "content-type": "text/event-stream" } });
  } catch (error) {
    return Response.json({ error: `${error.name}: ${error.message}` }, { status: 502 });
  }
}
