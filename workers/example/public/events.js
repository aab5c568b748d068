// A stream of Workers AI: server-sent events, each `data: ` with a line of JSON, the last one `data: [DONE]`.

/** The events of a response's body, parsed. Throws if the stream ends without [DONE], because the completion is then incomplete. */
export async function* events(body) {
  for await (const line of lines(body)) {
    if (line === "data: [DONE]") return;
    if (line.startsWith("data: ")) yield JSON.parse(line.slice("data: ".length));
  }
  throw new Error("the stream ended early");
}

// A chunk may end anywhere, also inside a character or a line break.
async function* lines(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      const parts = (rest + value).split("\n");
      rest = parts.pop();
      yield* parts;
    }
  } finally {
    reader.cancel().catch(() => {}); // tells the server that reading has stopped; fails if the stream is broken
  }
}
