// Asks the AI SDK with its Workers AI provider over env.AI, and tells what it made of the answer.

import { generateText, streamText } from "ai";
import { createWorkersAI } from "workers-ai-provider";

export default {
  async fetch(request, env) {
    const { model, settings, stream, ...call } = await request.json();
    const asked = { model: createWorkersAI({ binding: env.AI })(model, settings), maxRetries: 0, ...call };
    try {
      return Response.json(stream ? await streamed(asked) : await generated(asked));
    } catch (error) {
      const { name, message, statusCode, isRetryable } = error;
      return Response.json({ error: { name, message, statusCode, isRetryable } });
    }
  },
};

async function generated(asked) {
  const { text, finishReason, usage } = await generateText(asked);
  return { text, finishReason, usage };
}

async function streamed(asked) {
  const pieces = [];
  const result = streamText({ ...asked, onError: () => {} });
  for await (const piece of result.textStream) pieces.push(piece);
  return { text: pieces.join(""), pieces, finishReason: await result.finishReason, usage: await result.usage };
}
