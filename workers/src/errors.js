// Failures as Errors, worded and named as the Workers AI binding does.

/** What a failed run threw: "<code>: <description>". A body that is no such JSON, say a proxy's, is shown as it is. */
export async function failure(response) {
  const text = await response.text();
  const body = parsed(text);
  const item = body?.errors?.[0];
  if (body?.internalCode) return named(body.name, `${body.internalCode}: ${body.description}`);
  if (item) return named("InferenceUpstreamError", `${item.code}: ${item.message}`);
  return named("InferenceUpstreamError", text || `the server answered ${response.status}`);
}

/** What a failed catalogue search threw. */
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
