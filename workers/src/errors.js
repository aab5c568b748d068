// Failures as Errors with the messages and names of the Workers AI binding.

/** The Error of a failed run: "<code>: <description>". Another body, such as a proxy's, is the message itself. */
export async function failure(response) {
  const text = await response.text();
  const body = parsed(text);
  const item = body?.errors?.[0];
  if (body?.internalCode) return named(body.name, `${body.internalCode}: ${body.description}`);
  if (item) return named("InferenceUpstreamError", `${item.code}: ${item.message}`);
  return named("InferenceUpstreamError", text || `the server responded with status ${response.status}`);
}

/** The Error of a failed model search. */
export async function modelsFailure(response) {
  const text = await response.text();
  return named("AiInternalError", parsed(text)?.errors?.[0]?.message ?? text);
}

export function named(name, message) {
  const error = new Error(message);
  error.name = name;
  return error;
}

function parsed(text) {
  try {
    return JSON.parse(text);
  } catch {
    return null;
  }
}
