// Calls env.AI with what a test sends, and tells what came back. The same code runs in every way to bind AI.

export default {
  async fetch(request, env) {
    const { method, args } = await request.json();
    try {
      return told(await env.AI[method](...args));
    } catch (error) {
      return Response.json({ kind: "error", name: error.name, message: error.message });
    }
  },
};

async function told(value) {
  if (value instanceof ReadableStream) {
    return new Response(value, { headers: { "content-type": "text/event-stream" } });
  }
  if (value instanceof Response) {
    const headers = Object.fromEntries(value.headers);
    return Response.json({ kind: "response", status: value.status, headers, text: await value.text() });
  }
  return Response.json({ kind: "value", value });
}
